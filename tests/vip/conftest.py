"""These tests run keepalived in network namespaces: root and the program are needed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from common.testing.debian import THIS_MACHINE, Installation, debian13
from tests.conftest import needs
from tests.vip.world import Scene, scene

HERE = Path(__file__).parent
VIP = "10.9.0.100"
OTHERS = ("10.9.0.101", "10.9.0.102", "fd09::100")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what stands in this directory."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.root)
            for program in ("keepalived", "iptables"):
                item.add_marker(needs(program))
            item.add_marker(needs("ip", package="iproute2"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is believed of keepalived is held against this machine's and Debian 13's: what a host may have, and what our images have."""
    if "installation" in metafunc.fixturenames:
        metafunc.parametrize("installation", ["this-machine", "debian13"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    """Whose keepalived it is."""
    return THIS_MACHINE if request.param == "this-machine" else debian13()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def scenery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Three nodes at work, which all tests share that leave no trace."""
    over = asyncio.Event()
    begun: asyncio.Future[Scene] = asyncio.get_running_loop().create_future()
    addresses = (VIP, *OTHERS)

    async def stand() -> None:
        directory = tmp_path_factory.mktemp("vip")
        async with scene(directory, *addresses, EDGES='["tcp:127.0.0.1:9000"]', STALE_AFTER="1", PROBE_INTERVAL="1") as made:
            begun.set_result(made)
            await over.wait()

    standing = asyncio.create_task(stand())
    waiting: set[asyncio.Future[Any]] = {standing, begun}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if standing.done():
        standing.result()
    yield begun.result()
    over.set()
    await standing


@pytest_asyncio.fixture(loop_scope="session")
async def world(scenery: Scene) -> Scene:
    """The shared scene, as it was in the beginning."""
    await scenery.fresh()
    return scenery
