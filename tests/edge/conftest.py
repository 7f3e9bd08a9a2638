"""Edges for the tests of this directory.

A module that says `BOTH = True` is run with this machine's nginx and with Debian 13's: with what a container of ours has, and what a
Debian 12 host has. `ONLY` names one of them.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from common.testing.debian import THIS_MACHINE, Installation, debian13
from tests.edge.world import EdgeWorld, edge, open_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of the test's own that nginx gets through."""
    with open_directory() as directory:
        yield directory


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "installation" in metafunc.fixturenames:
        both = ["this-machine", "debian13"] if getattr(metafunc.module, "BOTH", False) else ["this-machine"]
        names = [metafunc.module.ONLY] if hasattr(metafunc.module, "ONLY") else both
        metafunc.parametrize("installation", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def installation(request: pytest.FixtureRequest) -> Installation:
    """Whose nginx it is."""
    if request.param == "this-machine":
        return THIS_MACHINE
    if os.geteuid() != 0:
        pytest.skip("needs root: Debian 13's nginx runs in a root of its own")
    return debian13()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(installation: Installation) -> AsyncIterator[EdgeWorld]:
    """One edge for all tests of a module, which keep to hosts of their own."""
    with open_directory() as directory:
        async with edge(directory, installation) as world:
            yield world


@pytest.fixture
async def own(tmp_path: Path, installation: Installation) -> AsyncIterator[EdgeWorld]:
    """An edge for one test."""
    async with edge(tmp_path, installation) as world:
        yield world
