"""`seaway explain` and `seaway ingress list` where several edges serve: who says what is told, and what they say alike is told once."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from common.bus.nats import connect
from common.bus.settings import BusSettings
from common.bus.streams import STATE, ensure_streams
from common.contracts.objects import Ingress
from common.contracts.subjects import sync_subject
from common.testing import wait_until
from common.testing.nats import nats_server
from common.testing.objects import ingress, rule, service
from nginx_config_renderer.questions import Questions
from seaway.nats_conf import RENDERER
from tests.edge.world import EdgeWorld, edge, open_directory

ALIKE, LATE = "alike.example", "late.example"
NAMES = ("node-a", "node-b")


class Two:
    """Two edges on one bus."""

    def __init__(self, url: str, worlds: tuple[EdgeWorld, ...]) -> None:
        self.url = url
        self.worlds = worlds

    async def seaway(self, *arguments: str) -> str:
        """What the operator's command prints."""
        command = (sys.executable, "-m", "seaway", *arguments, f"--nats={self.url}")
        process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
        async with asyncio.timeout(30):
            output, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        return output.decode()


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server())
        bus = await connect(BusSettings(url=server.url, name="test"))
        stack.push_async_callback(bus.close)
        await ensure_streams(bus, 1, [STATE])
        await bus.publish(sync_subject("local", Ingress.resource), b"a marker", {})
        worlds = [await stack.enter_async_context(edge(stack.enter_context(open_directory()))) for _ in NAMES]
        answering = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = []
        for name, world in zip(NAMES, worlds, strict=True):
            questions = Questions(world.wanted, world.applier, world.settings.inquiry_socket, name)
            tasks.append(answering.create_task(questions.run(bus, "local", RENDERER)))
        both = Two(server.url, tuple(worlds))

        async def both_are_asked() -> bool:
            return len(json.loads(await both.seaway("ingress", "list", "-o", "json"))["edges"]) == len(NAMES)

        await wait_until(both_are_asked)
        yield both
        for task in tasks:
            task.cancel()


async def test_what_edges_say_alike_is_told_once_and_what_they_do_not_by_name(two: Two) -> None:
    first, second = two.worlds
    served = await first.serve("web")
    for world in two.worlds:
        await world.put(service("web"), *served, ingress("alike", rule(ALIKE, "/", "web:80")))
    await first.put(ingress("late", rule(LATE, "/", "web:80")))

    alike = await two.seaway("explain", ALIKE)
    assert alike.count("Ingress default/alike, host") == 1
    assert "2 of 2 edges: node-a, node-b" in alike

    differing = await two.seaway("explain", LATE)
    by_edge = dict(re.findall(r"1 of 2 edges: (\S+)\n((?:  (?!\d of).*\n?)*)", differing))
    assert set(by_edge) == set(NAMES)
    assert "Ingress default/late" in by_edge["node-a"]
    assert "404" in by_edge["node-b"]
    assert "node-b" not in await two.seaway("explain", LATE, "--edge", "node-a")

    rows = [line.split()[:4] for line in (await two.seaway("ingress", "list")).splitlines()[1:]]
    assert rows == [
        ["node-a", "default", "alike", "serving"],
        ["node-a", "default", "late", "serving"],
        ["node-b", "default", "alike", "serving"],
    ]
    assert second.wanted.hosts.keys() == {ALIKE}
