"""Taking a cluster down. Runs after every other test, since all of them share the cluster."""

import asyncio
import contextlib

import pytest
from tests.cluster.conftest import SharedCluster
from tests.cluster.traces import Traces

from common.testing import wait_until

pytestmark = pytest.mark.root


def test_a_removed_cluster_leaves_nothing_on_the_machine(shared_cluster: SharedCluster) -> None:
    if not shared_cluster.ours:
        pytest.skip(f"the cluster in {shared_cluster.cluster.root} was there before this run, and is left alone")
    shared_cluster.cluster.kubectl("create", "deployment", "left-behind", "--image=localhost/seaway/echo:1", "--replicas=2")
    shared_cluster.cluster.kubectl("rollout", "status", "deployment/left-behind", "--timeout=60s")
    while_it_ran = shared_cluster.before.new_in(Traces.now())
    assert set(while_it_ran) >= {"processes", "mounts", "links", "rules", "groups", "files"}

    shared_cluster.cluster.down()

    # Other programs come and go meanwhile; what a cluster leaves would stay.
    with contextlib.suppress(AssertionError):
        asyncio.run(wait_until(lambda: not shared_cluster.before.new_in(Traces.now()), within=30, every=0.5))
    assert shared_cluster.before.new_in(Traces.now()) == {}
    assert not shared_cluster.cluster.root.exists()
