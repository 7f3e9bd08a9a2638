"""How the values of annotations are read: text → typed value, or ValueError with what to write instead."""

import re
from collections.abc import Callable
from typing import Final

from common.contracts.ip import Address, read_address, read_network

_SECONDS: Final = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)(ms|s|m|h|)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_PATH: Final = re.compile(r"/[A-Za-z0-9/_.~?=&%+-]{0,255}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_MOST: Final = 64  # networks in one value


def seconds(least: float, most: float) -> Callable[[str], float]:
    """A duration such as 500ms, 5s or 2m; a bare number is seconds."""

    def read(value: str) -> float:
        found = _SECONDS.fullmatch(value)
        given = float(found[1]) * _UNITS[found[2]] if found else -1.0
        if not least <= given <= most:
            raise ValueError(f"write a duration such as 500ms, 5s or 2m, from {least:g} s to {most:g} s")
        return round(given, 3)

    return read


def path(value: str) -> str:
    """A path of HTTP."""
    if not _PATH.fullmatch(value):
        raise ValueError("write a path such as /healthz, of letters, digits and /_.~?=&%+-")
    return value


def key(value: str) -> str:
    """A sharing key."""
    if not _KEY.fullmatch(value):
        raise ValueError("write up to 63 letters, digits and _./- between them")
    return value


def name(value: str) -> str:
    """The name of a pool."""
    if not _LABEL.fullmatch(value):
        raise ValueError("write the name of a pool: up to 63 small letters, digits and - between them")
    return value


def addresses(value: str) -> tuple[Address, ...]:
    """Addresses with commas between them, one a family at most."""
    try:
        found = tuple(read_address(text.strip()) for text in value.split(","))
    except ValueError:
        raise ValueError("write an address, or one of each family with a comma between them") from None
    if len({address.version for address in found}) != len(found):
        raise ValueError("a Service has one address of each family at most; write one IPv4 and one IPv6 address, or one of them")
    return found


def networks(value: str) -> tuple[str, ...]:
    """Networks with commas between them, in their canonical form, sorted."""
    texts = [text.strip() for text in value.split(",")]
    if len(texts) > _MOST:
        raise ValueError(f"write at most {_MOST} networks")
    return canonical(texts)


def canonical(texts: list[str]) -> tuple[str, ...]:
    """Networks in their canonical form, sorted, each once. Bits of a host are dropped, as kube-proxy does."""
    try:
        found = {read_network(text.strip()) for text in texts}
    except ValueError:
        raise ValueError("write networks such as 192.0.2.0/24 or 2001:db8::/32, with commas between them") from None
    return tuple(str(network) for network in sorted(found, key=lambda one: (one.version, int(one[0]), one.prefixlen)))
