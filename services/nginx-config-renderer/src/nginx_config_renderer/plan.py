"""Plan: from what nginx's tables hold to what they should hold, as pushes of bounded size.

What nginx holds is known by digests. The order of writes matters, because a request may come between two of them: what is named is set
before what names it (backends and policies before hosts, key pairs before the certificates of a host), and taken away after it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

HOSTS: Final = "hosts"
POLICIES: Final = "policies"
BACKENDS: Final = "backends"
CERTIFICATES: Final = "certificates"
PAIRS: Final = "pairs"
_ORDER: Final = (PAIRS, CERTIFICATES, BACKENDS, POLICIES, HOSTS)
LARGEST: Final = 256 * 1024  # bytes of keys and values in one push; well below what nginx keeps in memory

Entry: TypeAlias = tuple[str, str]  # table and key


@dataclass(frozen=True, slots=True)
class Write:
    """One entry of a table; None takes it away."""

    table: str
    key: str
    value: str | None


def plan(running: Mapping[Entry, str], wanted: Mapping[Entry, str], keys: Iterable[Entry]) -> tuple[Write, ...]:
    """What must be written so that nginx has `keys` as `wanted` has them. `running` holds the digests of what it has."""
    writes = (Write(*key, wanted.get(key)) for key in set(keys))
    return tuple(sorted((write for write in writes if running.get((write.table, write.key)) != digest(write.value)), key=_order))


def digest(value: str | None) -> str | None:
    """The MD5 of an entry, as nginx's own digest has it; it guards against drift, not against attackers."""
    return None if value is None else hashlib.md5(to_bytes(value), usedforsecurity=False).hexdigest()


def to_bytes(value: str) -> bytes:
    """An entry as bytes. A path may hold any byte, and UTF-8 would not take each (PEP 383)."""
    return value.encode(errors="surrogateescape")


def chunks(writes: Iterable[Write], largest: int = LARGEST) -> Iterator[tuple[Write, ...]]:
    """`writes` in their order, in pushes of at most `largest` characters (one that is larger by itself goes alone)."""
    chunk: list[Write] = []
    size = 0
    for write in writes:
        more = len(write.key) + len(write.value or "")
        if chunk and size + more > largest:
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(write)
        size += more
    if chunk:
        yield tuple(chunk)


def _order(write: Write) -> tuple[int, str]:
    at = _ORDER.index(write.table)
    return (at if write.value is not None else 2 * len(_ORDER) - at), write.key
