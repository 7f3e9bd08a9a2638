"""A trial: what nginx itself says of a configuration, found out where it can do no harm.

nginx -t opens files and ports, and loads what it is told to. So it runs in a network namespace of its own without any network, as a user
who owns nothing but the directory of the trial, without our keys, and with limits on time, memory and files. The same goes for a template
of the operator, which could as well compute for ever. Where the machine permits no such isolation only our own template is tried, which
holds no text of anybody.
"""

import os
import pickle
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from common.process import Outcome, validate
from nginx_config_renderer.configuration import Edge, configuration
from nginx_config_renderer.default_certificate import ensure_certificate, owner_of
from nginx_config_renderer.options import Options
from nginx_config_renderer.program import copy_program, program_digest

SOURCE: Final = "source"
TEXT: Final = "nginx.conf"
_DEADLINE: Final = 30.0
_NOBODY: Final = 65534
# It may have no right to the ports of nginx; and where it shares nginx's network, it must take no client that is meant for nginx.
_HTTP: Final = 20080
_HTTPS: Final = 20443
_FIRST: Final = 21000
_LIMITS: Final = ("prlimit", "--cpu=8", "--as=8589934592", "--fsize=67108864", "--nofile=1024", "--core=0", "--")
_AS_NOBODY: Final = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs", "--")

_PREFIX: Final = re.compile(r"^.*\[emerg\] (\d+#\d+: )?")

log = structlog.get_logger(__name__)


class BadConfigurationError(Exception):
    """nginx does not take the configuration, or the template makes none; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where trials are made: what a command begins with, and whether that keeps it from everything else."""

    prefix: tuple[str, ...]
    isolated: bool

    async def run(self, *command: str) -> Outcome:
        """Runs a program to its end. Raises BadConfigurationError if that takes too long."""
        try:
            return await validate([*self.prefix, *_LIMITS, *command], timeout=_DEADLINE)
        except TimeoutError as error:
            raise BadConfigurationError(f"it took more than {_DEADLINE:g} s") from error


async def find_ground() -> Ground:
    """The best that this machine permits us."""
    own_network = ("unshare", "--net", "--ipc", "--")
    ways = [(*own_network, *_AS_NOBODY)] if os.geteuid() == 0 else [("unshare", "--user", "--net", "--ipc", "--")]
    for way in ways:
        try:
            outcome = await validate([*way, *_LIMITS, "true"], timeout=_DEADLINE)
        except (OSError, TimeoutError):
            continue
        if outcome.code == 0:
            return Ground(way, isolated=True)
    log.warning("trial.not_isolated", hint="templates of a ConfigMap are refused; allow user namespaces, or run as root")
    return Ground((), isolated=False)


async def text_of(edge: Edge, options: Options, ground: Ground) -> str:
    """nginx.conf. Raises BadConfigurationError if a template of the operator makes none."""
    if not options.template:
        return configuration(edge, options, program_digest())
    if not ground.isolated:
        raise BadConfigurationError("a template is tried in isolation only, and this machine permits none")
    with tempfile.TemporaryDirectory(prefix="seaway-template-") as directory:
        source = Path(directory) / SOURCE
        source.write_bytes(pickle.dumps((edge, options, program_digest())))
        # Python may be where nobody else gets to, so this runs as ourselves; what a template may ask for is the sandbox's affair.
        own = Ground(ground.prefix[: ground.prefix.index("--") + 1], isolated=True)
        outcome = await own.run(sys.executable, "-m", "nginx_config_renderer.rendering", directory)
        if outcome.code != 0:
            raise BadConfigurationError(
                outcome.output.strip().splitlines()[-1][:500] if outcome.output.strip() else "it made nothing"
            )
        return (Path(directory) / TEXT).read_text()


async def test(edge: Edge, options: Options, program: str, ground: Ground) -> None:
    """Raises BadConfigurationError with nginx's own words if it would not start with `edge` and `options`."""
    with tempfile.TemporaryDirectory(prefix="seaway-test-") as directory:
        here = Path(directory)
        if ground.isolated and os.geteuid() == 0:
            os.chown(here, _NOBODY, _NOBODY)
        copy_program(here / "program")
        ensure_certificate(here / "default.crt", here / "default.key", here)
        elsewhere = replace(
            edge,
            http_port=_HTTP,
            https_port=_HTTPS if edge.https_port else 0,
            state=directory,
            run=directory,
            admin_socket=f"{directory}/admin.sock",
            program=f"{directory}/program",
            certificate=f"{directory}/default.crt",
            certificate_key=f"{directory}/default.key",
            journals=(),
            listeners=tuple(replace(one, port=_FIRST + number) for number, one in enumerate(edge.listeners)),
        )
        text = await text_of(elsewhere, options, ground)
        (here / TEXT).write_text(text)
        _give(here)
        outcome = await ground.run(program, "-t", "-q", "-e", "stderr", "-p", directory, "-c", str(here / TEXT))
    if outcome.code != 0:
        raise BadConfigurationError(_words(outcome, text).replace(directory, edge.state))


def _give(directory: Path) -> None:
    """Makes all that is in a directory its owner's."""
    for path in directory.rglob("*"):
        os.chown(path, *owner_of(directory))


def _words(outcome: Outcome, text: str) -> str:
    """Nginx's complaint in one line, with the line of the configuration that it is about."""
    said = outcome.output.strip().splitlines()
    complaint = next((line for line in said if "[emerg]" in line), said[0] if said else f"nginx -t ended with {outcome.code}")
    number = complaint.rpartition(f"{TEXT}:")[2]
    lines = text.splitlines()
    shown = f" ({lines[int(number) - 1].strip()[:120]})" if number.isdigit() and 0 < int(number) <= len(lines) else ""
    return _PREFIX.sub("", complaint) + shown
