"""Places for the Seaways of this directory's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.world import open_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of the test's own that nginx gets through."""
    with open_directory() as directory:
        yield directory
