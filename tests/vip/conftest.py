"""These tests run keepalived in network namespaces: root and the program are needed."""

from pathlib import Path

import pytest

from tests.conftest import needs

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what stands in this directory."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.root)
            for program in ("keepalived", "iptables"):
                item.add_marker(needs(program))
            item.add_marker(needs("ip", package="iproute2"))
