"""The story of the demo: what is done, what must be seen, and how long it took.

Each step does one thing to a running Seaway and waits for its effect as a client would see it. A step that does not see what it should
raises `StepFailed`, which says what was expected and what came.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from common.process import atomic_write
from seaway.demo import objects

PATIENCE: Final = 20.0  # seconds
_PAUSE: Final = 0.001  # seconds between two requests; a request is the measure here, so it must be short


class StepFailed(Exception):
    """A step of the demo did not see what it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got. `body` is empty where it is no JSON."""

    status: int
    body: dict[str, Any]

    @property
    def backend(self) -> str:
        """Who answered."""
        return str(self.body.get("backend", ""))


class Story:
    """A folder of manifests that Seaway follows, and a client of what Seaway serves."""

    def __init__(self, manifests: Path, port: int, client: aiohttp.ClientSession) -> None:
        self._manifests = manifests
        self._url = f"http://127.0.0.1:{port}/hello"
        self._client = client

    async def answer(self) -> Answer:
        """One request for the sample application."""
        async with self._client.get(self._url, headers={"Host": objects.HOST}) as response:
            body = await response.json() if response.content_type == "application/json" else {}
            return Answer(response.status, body)

    async def serve(self, backends: Mapping[str, int]) -> float:
        """Gives the application these backends, name to port; returns the seconds until one of them answers a client."""
        began = self._write("application.yaml", objects.application(sorted(backends.values())))
        await self._until(lambda answer: answer.backend in backends, f"{' or '.join(backends)} answers", began)
        return time.monotonic() - began

    async def answers(self, count: int) -> list[str]:
        """Who answers, `count` times."""
        return [(await self.answer()).backend for _ in range(count)]

    async def break_something(self) -> None:
        """Adds an Ingress that cannot be served."""
        self._write("oops.yaml", objects.bad_ingress())

    async def others_live_on(self) -> None:
        """The application still answers, a hundred times out of a hundred."""
        answers = [await self.answer() for _ in range(100)]
        wrong = [answer.status for answer in answers if answer.status != 200]
        if wrong:
            raise StepFailed(f"{len(wrong)} of 100 requests were not answered with 200 but with {sorted(set(wrong))}")

    def _write(self, name: str, text: str) -> float:
        began = time.monotonic()
        atomic_write(self._manifests / name, text.encode())
        return began

    async def _until(self, seen: Callable[[Answer], bool], what: str, began: float) -> None:
        last = "nothing"
        while time.monotonic() - began < PATIENCE:
            try:
                answer = await self.answer()
                if seen(answer):
                    return
                last = f"{answer.status} {answer.backend}".strip()
            except aiohttp.ClientConnectionError as error:
                last = str(error)
            await asyncio.sleep(_PAUSE)
        raise StepFailed(f"within {PATIENCE:g} s it was not seen that {what}; the last answer was: {last}")
