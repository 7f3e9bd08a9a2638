"""nginx.conf, as a function of the machine (`Edge`) and of the operator's options. No object of the cluster but the operator's ConfigMap
can change a byte of it.

The template is ours, or the operator's own, which is rendered in Jinja's sandbox.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nginx_config_renderer.contract import fingerprint
from nginx_config_renderer.locations import LOCATIONS, SecureLocation, retry_words
from nginx_config_renderer.options import Options
from nginx_config_renderer.policy import Special
from nginx_config_renderer.render import policy_entry
from nginx_config_renderer.streams import Listener

TEMPLATE: Final = "nginx.conf.j2"
STREAMS: Final = "stream.conf.j2"
_MANNER: Final[dict[str, Any]] = {
    "undefined": StrictUndefined,
    "autoescape": False,  # this is no HTML
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}
_OURS: Final = Environment(loader=PackageLoader("nginx_config_renderer"), **_MANNER)  # noqa: S701
_THEIRS: Final = ImmutableSandboxedEnvironment(**_MANNER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The machine: paths are absolute, and nginx writes only below `run`; sizes are in MiB. `nginx` is its version;
    `quic` says whether it was built with HTTP/3.

    An empty `modules` means that nginx finds them by itself. `passes`: connections to HTTPS are looked at before they are opened, and some
    are passed on. `listeners` are the operator's ports, `streams` the directory with their endpoints; for either nginx needs
    `stream_modules`. `logs` is the directory of the logs; without one they go to nginx's own output. `secured` are the locations
    for backends that must prove who they are, `authorities` the directory of those who vouch for them, in files named by their hash.
    """

    http_port: int
    https_port: int
    workers: str
    open_files: int
    state: str
    run: str
    admin_socket: str
    program: str
    certificate: str
    certificate_key: str
    modules: tuple[str, ...]
    journals: tuple[str, ...]
    table_size: int
    ipv6: bool
    nginx: tuple[int, ...] = ()
    quic: bool = False
    passes: bool = False
    listeners: tuple[Listener, ...] = ()
    streams: str = ""
    logs: str = ""
    stream_modules: tuple[str, ...] = ()
    secured: tuple[SecureLocation, ...] = ()
    authorities: str = ""

    @property
    def pools(self) -> list[str]:
        """The pools of connections that those have, each once."""
        return sorted({one.pool for one in self.secured})

    @property
    def carries(self) -> bool:
        """Whether there is anything that is not opened, so that nginx's stream modules are needed."""
        return self.passes or bool(self.listeners)


def configuration(edge: Edge, options: Options, program_digest: str) -> str:
    """nginx.conf. It carries a fingerprint of itself and of the program, by which a running nginx says which configuration it has.

    Raises jinja2.TemplateError for a template of the operator that cannot be rendered.
    """
    template = _THEIRS.from_string(options.template) if options.template else _OURS.get_template(TEMPLATE)
    known = {
        "edge": replace(edge, modules=edge.modules + edge.stream_modules) if edge.carries else edge,
        "options": options,
        "locations": LOCATIONS,
        "retry": retry_words(options.usual),
        "streams": _OURS.get_template(STREAMS).render(edge=edge, options=options) if edge.carries else "",
        "usual_entry": policy_entry(Special(options.usual, options.usual)),
    }
    marked = template.render(known, fingerprint=program_digest)
    return template.render(known, fingerprint=fingerprint(marked))
