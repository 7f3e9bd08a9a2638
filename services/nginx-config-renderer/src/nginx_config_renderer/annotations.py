"""The annotations of ingress-nginx that are known here: one table, from which they are read and told to people.

A value is parsed to a type before anything else sees it. A bad one is told, with the object, and stands for nothing: the route is served as
if it were not there. An annotation that is not in the table is somebody else's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from nginx_config_renderer.model import Policy

PREFIX: Final = "nginx.ingress.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation: the field of `Policy` that it sets, how its value is read, and what it does. `read` raises ValueError."""

    name: str
    field: str
    read: Callable[[str], Any]
    text: str


def boolean(value: str) -> bool:
    """`true` or `false`."""
    if value not in {"true", "false"}:
        raise ValueError("write true or false")
    return value == "true"


TABLE: Final = (
    Annotation(
        "force-ssl-redirect", "force_ssl_redirect", boolean, "Who asks by HTTP is sent to HTTPS, even without a certificate."
    ),
    Annotation(
        "ssl-redirect", "ssl_redirect", boolean, "Who asks a host with a certificate by HTTP is sent to HTTPS. True unless given."
    ),
)
_BY_NAME: Final[Mapping[str, Annotation]] = {f"{PREFIX}{annotation.name}": annotation for annotation in TABLE}


def policy(ingress: Ingress) -> tuple[Policy, tuple[Problem, ...]]:
    """What the annotations of `ingress` ask for, and what is wrong with them."""
    fields: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in sorted(ingress.metadata.annotations.items()):
        known = _BY_NAME.get(name)
        if known is None:
            continue
        try:
            fields[known.field] = known.read(value.strip())
        except ValueError as mend:
            problems.append(Problem(ingress.ref, "BadAnnotation", f"annotation {name} is {value[:80]!r}; {mend}"))
    return replace(Policy(), **fields), tuple(problems)
