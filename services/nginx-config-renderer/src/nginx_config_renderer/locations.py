"""The locations of nginx.conf: ways of treating a request that nginx knows from its configuration alone.

There is a fixed set of them, one for each combination of what an Ingress may ask for; the program jumps to the one that a policy needs.
Two things are coarser here than a policy: a body that comes without a length is cut off at the next of four sizes, and the statuses that
lead to another try are all of 500, 502, 503 and 504 or none. nginx never tries again once it has begun to send a body that it did not keep
(ngx_http_upstream_next), so those combinations are left out.

Where backends must prove who they are, a location of that kind is made for each Secret that says to whom, and for each way of treating
requests that its Ingresses ask for.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from nginx_config_renderer.policy import Policy, Scheme, Secured

_FIELDS: Final = 5
_HASH: Final = re.compile(r"[0-9a-f]{0,64}", re.ASCII)
SIZES: Final = (("1m", 1024**2), ("64m", 64 * 1024**2), ("1g", 1024**3), ("any", 0))
RETRIES: Final = (
    ("once", "error timeout"),
    ("status", "error timeout invalid_header http_500 http_502 http_503 http_504"),
    ("always", "error timeout non_idempotent"),
    ("status-always", "error timeout invalid_header http_500 http_502 http_503 http_504 non_idempotent"),
)


@dataclass(frozen=True, slots=True)
class Location:
    """One of them. `size` is in nginx's notation; `retry` are the words of proxy_next_upstream."""

    name: str
    scheme: Scheme
    request_buffering: bool
    buffering: bool
    size: str
    retry: str

    @property
    def grpc(self) -> bool:
        """Whether HTTP/2 is spoken to the backend."""
        return self.scheme.startswith("grpc")


def _all() -> Iterator[Location]:
    schemes: tuple[Scheme, ...] = ("http", "https", "grpc", "grpcs")
    retries = dict(RETRIES)
    for scheme, kept, buffering, (size, limit), retry in product(schemes, (True, False), (True, False), SIZES, retries):
        if (scheme.startswith("grpc") and (kept or buffering)) or (not kept and retry != "once"):
            continue
        name = _name(scheme, size, retry, kept=kept, buffering=buffering)
        yield Location(name, scheme, kept, buffering, size if limit else "0", retries[retry])


def _name(scheme: Scheme, size: str, retry: str, *, kept: bool, buffering: bool) -> str:
    return f"@{scheme}-{'kept' if kept else 'passed'}-{'kept' if buffering else 'passed'}-{size}-{retry}"


LOCATIONS: Final = tuple(_all())


@dataclass(frozen=True, slots=True)
class SecureLocation:
    """A location beside those: it treats requests as `like` does, and backends as an Ingress asks (see derive/secured.py)."""

    like: Location
    pool: str
    authority: str
    depth: int
    server_name: bool

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.like.name}-{self.pool}"


_BY_NAME: Final = {one.name: one for one in LOCATIONS}


def secure_location(policy: Policy, secured: Secured) -> SecureLocation:
    """The one that `policy` needs for that."""
    return SecureLocation(_BY_NAME[_needs(policy)], secured.pool, secured.authority, secured.depth, secured.server_name)


def secure_locations(data: Iterable[object]) -> tuple[SecureLocation, ...]:
    """Locations as `as_data` wrote them, without those that are none."""
    found = (_read(*one) for one in data if isinstance(one, list) and len(one) == _FIELDS)
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.name))


def _read(name: object, pool: object, authority: object, depth: object, server_name: object) -> SecureLocation | None:
    like = _BY_NAME.get(name) if isinstance(name, str) else None
    texts = isinstance(pool, str) and isinstance(authority, str) and _HASH.fullmatch(pool) and _HASH.fullmatch(authority)
    if like is None or not texts or type(depth) is not int or type(server_name) is not bool:
        return None
    return SecureLocation(like, str(pool), str(authority), depth, server_name)


def as_data(found: Iterable[SecureLocation]) -> list[list[object]]:
    """Locations as plain data."""
    return [[one.like.name, one.pool, one.authority, one.depth, one.server_name] for one in found]


def location(policy: Policy, usual: Policy) -> str:
    """The name of the location that `policy` needs; empty if that is the one of everybody, which limits bodies exactly as `usual` does."""
    alike = _needs(policy) == _needs(usual) and (policy.body_size == usual.body_size or 0 < policy.body_size < usual.body_size)
    return "" if alike else _needs(policy)


def retry_words(policy: Policy) -> str:
    """When nginx tries another endpoint, in its words."""
    return dict(RETRIES)[_retry(policy)]


def _needs(policy: Policy) -> str:
    grpc = policy.scheme.startswith("grpc")
    kept = policy.request_buffering and not grpc
    size = next((name for name, limit in SIZES if limit and 0 < policy.body_size <= limit), "any")
    retry = _retry(policy) if kept else "once"
    return _name(policy.scheme, size, retry, kept=kept, buffering=policy.buffering and not grpc)


def _retry(policy: Policy) -> str:
    words = [word for word, asked in (("status", "status"), ("always", "non_idempotent")) if asked in policy.retry_on]
    return "-".join(words) or "once"
