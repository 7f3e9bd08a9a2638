"""A CloudEvent: the envelope of everything on the bus (CloudEvents 1.0.2).

Attribute names follow the specification §2: required are `id`, `source`, `type` (and `specversion`, which is always 1.0). The names of
extensions are lower-case letters and digits. `data` is plain data: what msgpack can carry.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_EXTENSION: Final = re.compile(r"[a-z0-9]+", re.ASCII)
_CORE_ATTRIBUTES: Final = frozenset(
    {"id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """One event. `time` is an RFC 3339 text; empty texts and None mean "absent"."""

    id: str
    source: str
    type: str
    subject: str = ""
    time: str = ""
    dataschema: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)
    data: Any = None

    def __post_init__(self) -> None:
        for name in ("id", "source", "type"):
            if not getattr(self, name):
                raise ValueError(f"a CloudEvent needs a non-empty {name}")
        for name in self.extensions:
            if not _EXTENSION.fullmatch(name) or name in _CORE_ATTRIBUTES:
                raise ValueError(f"{name!r} cannot be the name of a CloudEvents extension: lower-case letters and digits only")
