"""Requests without a pause, of which every one must be answered.

On new connections and on kept ones, with and without a body, answered at once or under way for a while.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp

_VISITORS: Final = 8
_BETWEEN: Final = 0.02  # seconds between two requests of one visitor
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


@dataclass
class Load:
    """What became of the requests."""

    answers: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many requests have come to an end."""
        return self.answers.total() + len(self.lost)


@asynccontextmanager
async def load(address: str, host: str, *, kept: bool = True) -> AsyncIterator[Load]:
    """Requests to `host` at `address` while the block runs. The last ones are waited for. `kept`: half of them on kept connections."""
    found, ending = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(_VISITORS):
            url = f"http://{address}/" if number < _VISITORS / 2 else f"http://{address}/delay/100"
            group.create_task(_visit(url, host, found, ending, keep=kept and number % 2 == 0, body=number % 4 >= 2))
        try:
            yield found
        finally:
            ending.set()


async def _visit(url: str, host: str, found: Load, ending: asyncio.Event, *, keep: bool, body: bool) -> None:
    connector = aiohttp.TCPConnector(force_close=not keep)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, headers={"Host": host}) as session:
        while not ending.is_set():
            try:
                async with session.request("POST" if body else "GET", url, data=b"x" * 100 if body else None) as response:
                    text = await response.read()
                    if response.status == 200:
                        found.answers[(await response.json())["name"]] += 1
                    else:
                        found.lost.append(f"{response.status} {text[:80]!r}")
            except (aiohttp.ClientError, TimeoutError) as error:
                found.lost.append(repr(error))
            await asyncio.sleep(_BETWEEN)
