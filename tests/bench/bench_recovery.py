"""How long clients and changes wait after a part was killed: nginx, its renderer, the watcher, the bus.

A Seaway on a folder of manifests, one site, one client that asks about every millisecond. "answered" is the time without a right answer
after nginx was killed; "whole" is the time until a change, made at the moment of the kill, is served.
"""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from tests.bench.edges import passable_directory
from tests.bench.effort import Effort
from tests.bench.rows import Row
from tests.bench.visitor import Answer, Visitor
from tests.e2e.up_world import Up, up, write
from tests.edge.world import backend

GOAL: Final = "<= 2"  # seconds, for nginx and its renderer
HOST: Final = "site.example"

Backend = tuple[str, int]  # name and port


async def bench(effort: Effort) -> list[Row]:
    """The slowest of some kills of each part."""
    rows: list[Row] = []
    async with _seaway() as (seaway, folder, backends), Visitor(seaway.http) as visitor:
        away = [await _answered(seaway, visitor) for _ in range(effort.joins)]
        rows.append(Row(name="nginx killed, answered again, slowest", value=max(away), unit="s", goal=GOAL))
        for part in ("nginx", "renderer", "watcher", "nats-server"):
            times = []
            for _ in range(effort.joins):
                backends.reverse()
                times.append(await _whole(seaway, visitor, folder, part, backends[0]))
            goal = GOAL if part in {"nginx", "renderer"} else ""
            rows.append(Row(name=f"{part} killed, whole again, slowest", value=max(times), unit="s", goal=goal))
    return rows


async def _answered(seaway: Up, visitor: Visitor) -> float:
    old = seaway.kill("nginx")
    killed = await visitor.until(HOST, lambda answer: answer.status != 200)
    answered = await visitor.until(HOST, lambda answer: answer.status == 200)
    await seaway.back("nginx", old)
    return answered - killed


async def _whole(seaway: Up, visitor: Visitor, folder: Path, part: str, to: Backend) -> float:
    name, port = to

    def moved(answer: Answer) -> bool:
        return answer.status == 200 and json.loads(answer.body)["name"] == name

    old = seaway.parts()[part]

    async def kill_and_change() -> None:
        os.kill(old, signal.SIGKILL)
        _site(folder, port)

    reaction = await visitor.reaction(HOST, moved, kill_and_change)
    await seaway.back(part, old)
    return reaction.since_sent


def _site(folder: Path, port: int) -> None:
    objects = [ingress("site", rule(HOST, "/", "site:80")), service("site"), endpoint_slice("site", "127.0.0.1", port=port)]
    write(folder / "site.yaml", [ingress_class(), *objects])


@asynccontextmanager
async def _seaway() -> AsyncIterator[tuple[Up, Path, list[Backend]]]:
    """A Seaway that serves a site from the first of two backends."""
    with passable_directory("seaway-bench-recovery-") as directory:
        folder = _folder(Path(directory))
        async with backend("first") as first, backend("second") as second:
            _site(folder, first)
            async with up(folder.parent, f"--manifests={folder}") as seaway:
                yield seaway, folder, [("first", first), ("second", second)]


def _folder(directory: Path) -> Path:
    folder = directory / "manifests"
    folder.mkdir()
    return folder
