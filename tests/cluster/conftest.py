"""One cluster for all tests of a run: the machine's, if it has one (`make cluster`), or one that is made for them and removed at the end.

Tests elsewhere use it too:  from tests.cluster.conftest import cluster, namespace
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.traces import Traces

from common.testing.kubernetes import kubernetes_programs, machine, node
from common.testing.kubernetes.cluster import Cluster

OWN = Path(".run/test-cluster")


class SharedCluster:
    """The cluster of this run, and how the machine was before."""

    def __init__(self, cluster: Cluster, *, ours: bool, before: Traces) -> None:
        self.cluster = cluster
        self.ours = ours
        self.before = before


def obstacle() -> str:
    """Why there can be no cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "a cluster needs root"
    missing = node.missing_packages()
    return f"missing Debian packages: {' '.join(missing)}" if missing else ""


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """The test that removes the cluster is the last of all."""
    items.sort(key=lambda item: item.path.name == "test_removal.py")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds before the first test, whose time would not suffice."""
    if session.items and not session.config.option.collectonly and not obstacle():
        kubernetes_programs()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[SharedCluster]:
    if reason := obstacle():
        pytest.skip(reason)
    owner = machine.owner()
    shared = SharedCluster(Cluster(Path(owner or OWN)), ours=owner is None, before=Traces.now())
    shared.cluster.up()
    yield shared
    if shared.ours:
        shared.cluster.down()


@pytest.fixture(scope="session")
def cluster(shared_cluster: SharedCluster) -> Cluster:
    """A running cluster."""
    return shared_cluster.cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
