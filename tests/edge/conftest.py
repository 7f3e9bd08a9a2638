"""Edges for the tests of this directory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.edge.world import EdgeWorld, edge


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EdgeWorld]:
    """One edge for all tests of a module, which keep to hosts of their own."""
    async with edge(tmp_path_factory.mktemp("edge")) as world:
        yield world


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[EdgeWorld]:
    """An edge for one test."""
    async with edge(tmp_path) as world:
        yield world
