"""The code means the same in every Python that it runs on."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for part in ("libs", "services", "tests", "scripts") for path in (ROOT / part).rglob("*.py"))


def raised(source: str) -> Iterator[int]:
    """The lines on which something new is raised inside `except*`."""
    groups = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.TryStar))
    inside = (node for group in groups for handler in group.handlers for node in ast.walk(handler))
    return (node.lineno for node in inside if isinstance(node, ast.Raise) and node.exc is not None)


def test_nothing_is_raised_where_a_group_is_caught() -> None:
    """Python 3.11.2, which Debian 12 has, raises a group with it; later ones the exception itself (python/cpython#103590).

    It is assigned there, and raised after the try.
    """
    assert list(raised("try: pass\nexcept* OSError as error:\n    raise ValueError from error")) == [3]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in raised(path.read_text())]
    assert found == []
