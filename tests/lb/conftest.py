"""Balancers for the tests of this directory.

A module that says `BOTH = True` is run with this machine's HAProxy and nft, and with Debian 13's: with what a container of ours has, and
with what a Debian 12 host has.
"""

import pytest

from common.testing.debian import THIS_MACHINE, Installation, debian13


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "installation" in metafunc.fixturenames:
        names = ["this-machine", "debian13"] if getattr(metafunc.module, "BOTH", False) else ["this-machine"]
        metafunc.parametrize("installation", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def installation(request: pytest.FixtureRequest) -> Installation:
    """Whose HAProxy it is."""
    return THIS_MACHINE if request.param == "this-machine" else debian13()
