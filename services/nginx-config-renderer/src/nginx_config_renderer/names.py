"""Names: keeps looking up the names that Services lead to.

It is level-triggered, like the keyring: it compares which names are needed with what it has, and looks up the difference, and each name
again when the time of its records is over (TTL, RFC 1035 §3.2.1). IPv6 addresses are used where a name has no others, as in ingress-nginx.
A lookup that fails leaves the last addresses in force, those that nginx has if it was the first one; a name that is said not to exist has
none any more.
"""

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from common.backoff import Backoff
from nginx_config_renderer.resolved import Resolved, resolved

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

SHORTEST: Final = 1.0  # seconds; a name whose records may not be kept at all is not looked up at every request either
LONGEST: Final = 600.0
PATIENCE: Final = 5.0  # seconds for an answer
AT_A_TIME: Final = 8
BACKOFF: Final = Backoff(first=1, most=30)

log = structlog.get_logger(__name__)


class Wants(Protocol):
    """What is needed of `nginx_config_renderer.follow.Intake`."""

    @property
    def named(self) -> asyncio.Event:
        """Set when `names` changed."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """The names that must be known."""
        ...

    def resolve(self, found: Resolved) -> None:
        """Takes what a name means."""
        ...

    def unname(self, name: str) -> None:
        """Drops a name."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a name, and for how many seconds they are good."""

    addresses: tuple[str, ...]
    ttl: float


class Missing(Exception):
    """The name does not exist, or has no addresses."""


class Unanswered(Exception):
    """Nobody says what the name means; trying again may help."""


class Source(Protocol):
    """Who knows."""

    async def look_up(self, name: str) -> Found:
        """The addresses of `name`. Raises Missing, Unanswered."""
        ...


class DNS:
    """The name servers that the machine uses (`nginx_config_renderer.lookup`). What is needed to ask them is loaded with the first name,
    since it takes 7 MB and in most clusters no Service leads to one.
    """

    def __init__(self, resolver: "Resolver | None" = None) -> None:
        self._resolver = resolver

    async def look_up(self, name: str) -> Found:
        """See Source."""
        lookup = await asyncio.to_thread(import_module, "nginx_config_renderer.lookup")
        found: Found = await lookup.look_up(name, self._resolver)
        return found


@dataclass(frozen=True, slots=True)
class _Known:
    found: Resolved
    due: float
    failures: int = 0


class Names:
    """The names of one renderer."""

    def __init__(self, source: Source, wants: Wants) -> None:
        self._source = source
        self._wants = wants
        self._known: dict[str, _Known] = {}

    async def run(self) -> None:
        """Keeps them until cancelled."""
        while True:
            self._wants.named.clear()
            await self._once()
            due = min((known.due for known in self._known.values()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wants.named.wait()

    async def _once(self) -> None:
        needed = self._wants.names
        for name in self._known.keys() - needed:
            del self._known[name]
            self._wants.unname(name)
        now = asyncio.get_running_loop().time()
        gate = asyncio.Semaphore(AT_A_TIME)

        async def look(name: str) -> None:
            async with gate:
                await self._look(name)

        async with asyncio.TaskGroup() as group:
            for name in sorted(needed):
                if name not in self._known or self._known[name].due <= now:
                    group.create_task(look(name))

    async def _look(self, name: str) -> None:
        before = self._known.get(name)
        known = await self._ask(name, before)
        self._known[name] = known
        if before is None or known.found != before.found:
            log.info("name.resolved", name=name, addresses=len(known.found.addresses), problem=known.found.problem)
            self._wants.resolve(known.found)

    async def _ask(self, name: str, before: _Known | None) -> _Known:
        if is_address(name):
            return _Known(resolved(name, (name,), own_of((name,))), _after(LONGEST))
        try:
            found = await self._source.look_up(name)
        except Missing as error:
            return _again(before, resolved(name, problem=str(error)))
        except Unanswered as error:
            last = before.found if before is not None else resolved(name, known=False)
            return _again(before, replace(last, problem=f"{error}; what was known last is still used"))
        return _Known(resolved(name, found.addresses, own_of(found.addresses)), _after(min(max(found.ttl, SHORTEST), LONGEST)))


def _again(before: _Known | None, found: Resolved) -> _Known:
    failures = before.failures if before is not None else 0
    return replace(_Known(found, _after(BACKOFF.delay(failures, random.random()))), failures=failures + 1)  # noqa: S311 jitter


def _after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def is_address(name: str) -> bool:
    """Whether a name is an address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_of(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those that are this machine's: what would be sent there comes from there (no packet is sent for that)."""
    return tuple(sorted(address for address in addresses if _source_of(address) == ipaddress.ip_address(address)))


def _source_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    return None
