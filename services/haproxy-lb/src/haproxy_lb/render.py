"""Render: haproxy.cfg and the tables beside it, so that a HAProxy that starts has at once what the one before it had at last.

The configuration depends on the frame and on the layout, both ours; the servers of the slots stand in it as addresses, numbers and
keywords that were made from values and checked. What users wrote is in the tables alone.

`fingerprint` names all that needs a reload to change. HAProxy tells it on its socket, so that we know what it runs with.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2

from haproxy_lb.desire import Desired
from haproxy_lb.doors import door
from haproxy_lb.frame import Frame
from haproxy_lb.rules import TABLES, Table
from haproxy_lb.slots import Layout, Slot, parse

CONFIGURATION: Final = "haproxy.cfg"


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    where: str
    number: int
    options: Sequence[str]


def fingerprint(frame: Frame, layout: Layout) -> str:
    """A short digest of all that needs a reload to change."""
    return hashlib.sha256(_render(frame, layout, {}, "").encode()).hexdigest()[:16]


def configuration(frame: Frame, layout: Layout, desired: Desired) -> str:
    """The text of haproxy.cfg."""
    return _render(frame, layout, {slot: _lines(specs) for slot, specs in desired.slots.items()}, fingerprint(frame, layout))


def given(text: str) -> frozenset[Slot]:
    """The slots that have servers in a haproxy.cfg of ours."""
    found: set[Slot] = set()
    section = ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word in {"backend", "defaults", "frontend", "listen", "peers"}:
            section = rest.partition(" ")[0]
        elif parse(section) and line.startswith("    server "):
            found.add(Slot(section))
    return frozenset(found)


def files(frame: Frame, layout: Layout, desired: Desired) -> dict[str, str]:
    """All that HAProxy reads, by the names of the files. The configuration is last, since it needs the others."""
    tables = {f"{name}.map": table(desired.tables[name]) for name in TABLES}
    return tables | {CONFIGURATION: configuration(frame, layout, desired)}


def table(entries: Table) -> str:
    """The text of a map file."""
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def _lines(specs: Mapping[str, Any]) -> list[_Line]:
    """What drains is left out: the connections on it belong to the HAProxy that took them."""
    taken: set[int] = set()
    lines = []
    for spec in specs.values():
        if spec.draining:
            continue
        number = spec.number_beside(taken)
        taken.add(number)
        lines.append(_Line(spec.name, spec.where, number, spec.options))
    return lines


def _render(frame: Frame, layout: Layout, servers: Mapping[Slot, Sequence[_Line]], name: str) -> str:
    kinds = [
        (kind, [(slot, door(slot), servers.get(slot, ())) for slot in map(kind.slot, range(count))])
        for kind, count in sorted(layout.items())
    ]
    affinities = sorted({kind.affinity for kind in layout} - {0})
    return _template().render(frame=frame, kinds=kinds, affinities=affinities, fingerprint=name or "none", ms=_milliseconds)


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(1000 * seconds))}ms"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 no HTML
    )
    return environment.from_string(resources.files("haproxy_lb").joinpath("templates/haproxy.cfg.j2").read_text())
