"""The client of nginx's admin socket: one HTTP request at a time, each with a deadline.

AdminError
├── Absent      nobody answers: nginx is not there
└── Stale       nginx is another instance, or at another revision, than the push was made for
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from nginx_config_renderer.journal import as_lists
from nginx_config_renderer.plan import Entry, Write, to_bytes

_DEADLINE: Final = 10.0


class AdminError(Exception):
    """Whatever goes wrong between us and nginx."""


class Absent(AdminError):
    """Nobody answers at the socket."""


class Stale(AdminError):
    """The push was made for another state."""


@dataclass(frozen=True, slots=True)
class Status:
    """Which nginx this is. `instance` names its memory; `fingerprint` its configuration."""

    instance: str
    revision: int
    fingerprint: str
    free: dict[str, int]
    capacity: dict[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """What nginx counted of requests: key → number (see seaway.counts), the limits of the buckets in seconds, and connections by state."""

    numbers: dict[str, float]
    buckets: tuple[float, ...]
    connections: dict[str, int]


class Admin:
    """A way to one nginx, open while its asynchronous context lasts."""

    def __init__(self, socket: Path, *, deadline: float = _DEADLINE) -> None:
        self._socket = socket
        self._timeout = aiohttp.ClientTimeout(total=deadline)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(str(self._socket), limit=2)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def status(self) -> Status:
        """Which nginx this is now."""
        return _status(await self._ask("GET", "status"))

    async def digest(self) -> tuple[Status, dict[Entry, str]]:
        """What nginx holds: for each entry its digest."""
        data = await self._ask("GET", "digest")
        return _status(data), {(table, key): value for table, key, value in data.get("entries", ())}

    async def apply(self, instance: str, revision: int, writes: Sequence[Write]) -> dict[Entry, str]:
        """Writes `writes` to `instance`, leading from `revision` to the next one; says which do not fit, and why. Raises Stale."""
        push = {"instance": instance, "from": revision, "to": revision + 1, "writes": as_lists(writes)}
        data = await self._ask("POST", "apply", to_bytes(json.dumps(push, ensure_ascii=False, separators=(",", ":"))))
        return {(table, key): reason for table, key, reason in data.get("refused", ())}

    async def counts(self) -> Counts:
        """What nginx counted of requests."""
        data = await self._ask("GET", "counts")
        return Counts({key: float(number) for key, number in data["counts"]}, tuple(data["buckets"]), data["connections"])

    async def answers(self, ingresses: Sequence[str]) -> dict[str, tuple[int, int]]:
        """How many answers each of these Ingresses has had, and how many of them were 5xx."""
        data = await self._ask("POST", "answers", json.dumps(list(ingresses)).encode())
        return {name: (int(answers), int(failures)) for name, answers, failures in data.get("answers", ())}

    async def forget(self, keys: Sequence[str]) -> None:
        """Makes nginx forget what it counted under these keys."""
        await self._ask("POST", "forget", json.dumps(list(keys)).encode())

    async def reload(self) -> None:
        """Makes nginx read its configuration again. Watch `status().fingerprint` to see whether it took it."""
        await self._ask("POST", "reload")

    async def reopen(self) -> None:
        """Makes nginx open its logs anew."""
        await self._ask("POST", "reopen")

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        if self._session is None:
            raise Absent("the way to nginx is not open")
        try:
            async with self._session.request(method, f"http://nginx/{path}", data=body and BytesIO(body)) as response:
                data: dict[str, Any] = json.loads(await response.read())
                if response.status in {200, 202}:
                    return data
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Absent(f"nginx does not answer at {self._socket}: {str(error) or type(error).__name__}") from error
        if response.status == 409:
            raise Stale(f"nginx is at revision {data.get('revision')} of instance {data.get('instance')}")
        raise AdminError(f"nginx answered {response.status} to {path}: {data.get('error')}")


def _status(data: dict[str, Any]) -> Status:
    return Status(data["instance"], data["revision"], data["fingerprint"], data.get("free", {}), data.get("capacity", {}))
