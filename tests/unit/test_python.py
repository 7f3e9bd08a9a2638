"""The code means the same in every Python that it runs on."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for part in ("libs", "services", "tests", "scripts") for path in (ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_raised_where_a_group_is_caught(path: Path) -> None:
    """Python 3.11.2, which Debian 12 has, raises a group with it; later ones the exception itself (python/cpython#103590)."""
    groups = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.TryStar)]
    raised = [
        inner.lineno
        for group in groups
        for handler in group.handlers
        for inner in ast.walk(handler)
        if isinstance(inner, ast.Raise) and inner.exc is not None
    ]
    assert raised == [], f"{path.relative_to(ROOT)}: assign it, and raise it after the try"
