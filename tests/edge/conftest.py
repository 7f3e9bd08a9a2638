"""Edges for the tests of this directory."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.edge.world import EdgeWorld, edge, open_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of the test's own that nginx gets through."""
    with open_directory() as directory:
        yield directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[EdgeWorld]:
    """One edge for all tests of a module, which keep to hosts of their own."""
    with open_directory() as directory:
        async with edge(directory) as world:
            yield world


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[EdgeWorld]:
    """An edge for one test."""
    async with edge(tmp_path) as world:
        yield world
