"""`kubectl apply -k deploy/overlays/single-lb`: Services of type LoadBalancer on real pods, at addresses that the node holds."""

import asyncio
import subprocess
from collections.abc import Iterator

import pytest
from tests.cluster.applications import answered_by, application, deploy, running
from tests.cluster.balanced import EDGE, LB, SOON, VIPS, Balanced, addresses, answered, balanced, pools, with_balancers
from tests.cluster.installed import with_keys
from tests.cluster.load import load
from tests.conftest import needs

from common.testing import wait_until
from common.testing.kubernetes.cluster import Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(900), needs("nft", package="nftables")]

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 a path


def tables() -> str:
    """The tables in the kernel, as this machine's own nft reads what a newer one has made."""
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def seaway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    """Seaway with balancers, all of them ready."""
    overlay = with_keys(tmp_path_factory.mktemp("seaway")) / "overlays/single-lb"
    (overlay / "pools.yaml").write_text(pools(cluster))
    with with_balancers(cluster, overlay) as found:
        yield found


async def test_a_service_is_answered_by_its_pods_at_an_address_that_the_node_holds(seaway: Balanced, namespace: str) -> None:
    address = await balanced(seaway, namespace)
    pods, found = running(seaway.cluster, namespace), set()

    async def all_answered() -> bool:
        found.add(await seaway.ask(address))
        return found - {""} == pods

    await wait_until(all_answered, within=SOON)
    assert len(pods) == 2
    assert f" {address}/32 " in addresses()
    seaway.cluster.kubectl("-n", namespace, "delete", "service", "balanced")
    await wait_until(lambda: f" {address}/32 " not in addresses(), within=SOON)
    assert not await seaway.ask(address)


def test_haproxy_has_no_token_writes_no_configuration_and_lets_only_its_own_user_command_it(seaway: Balanced) -> None:
    assert seaway.inside(LB, "haproxy", f"ls {TOKEN} 2>&1 || true").endswith("No such file or directory")
    assert "Read-only" in seaway.inside(LB, "haproxy", "touch /run/seaway/haproxy/x 2>&1 || true")
    modes = seaway.inside(LB, "haproxy", "stat -c '%a %u' /run/seaway/sockets/admin.sock /run/seaway/sockets/master.sock")
    assert modes.splitlines() == ["600 65532", "600 65532"]
    capable = "grep -h CapEff /proc/[0-9]*/status | sort -u"
    assert seaway.inside(LB, "haproxy", capable) == f"CapEff:\t{0:016x}"
    assert (
        seaway.inside(LB, "haproxy-lb", f"grep CapEff /proc/1/status; ls {TOKEN}/token")
        == f"CapEff:\t{1 << 12:016x}\n{TOKEN}/token"
    )


def test_what_holds_addresses_has_no_token_and_is_not_root(seaway: Balanced) -> None:
    for container, capabilities in (("keepalived-vip", 1 << 12 | 1 << 13), ("keepalived", 1 << 12 | 1 << 13 | 1 << 23)):
        assert seaway.inside(VIPS, container, f"ls {TOKEN} 2>&1 || true").endswith("No such file or directory")
        assert seaway.inside(VIPS, container, "id -u; grep CapEff /proc/self/status") == f"65532\nCapEff:\t{0:016x}"
        mine = seaway.inside(VIPS, container, f"grep -h CapEff /proc/[0-9]*/status | grep -c {capabilities:016x}")
        assert int(mine) >= 1


async def test_a_rolling_update_behind_a_load_balancer_loses_no_request(seaway: Balanced, namespace: str) -> None:
    address = await balanced(seaway, namespace)
    # On new connections: a kept one is the pod's, which ends it when it leaves; who sends just then asks again, here as without a balancer.
    async with load(address, "any.example.org", kept=False) as found:
        await asyncio.to_thread(deploy, seaway.cluster, namespace, application(f"{namespace}.example.org", release=2))
        await answered_by(found, await asyncio.to_thread(running, seaway.cluster, namespace))
    assert not found.lost


async def test_killed_programs_come_back_with_what_they_had(seaway: Balanced, namespace: str) -> None:
    address = await balanced(seaway, namespace)
    for workload, container, program in ((LB, "haproxy", "haproxy"), (VIPS, "keepalived", "keepalived")):
        before = seaway.processes(workload, container, program)
        seaway.inside(workload, container, f"kill -KILL {' '.join(before)}")

        def others(where: tuple[str, str, str] = (workload, container, program), old: set[str] = before) -> bool:
            now = seaway.processes(*where)
            return len(now) >= 2 and not now & old  # the one that watches, and the one that works

        await wait_until(others, within=SOON)
        await answered(seaway, address)


async def test_a_replaced_pod_holds_the_addresses_again(seaway: Balanced, namespace: str) -> None:
    address = await balanced(seaway, namespace)
    for workload in (VIPS, LB):
        await asyncio.to_thread(seaway.cluster.kubectl, "-n", EDGE, "rollout", "restart", workload)
        await asyncio.to_thread(seaway.rolled_out)
        await answered(seaway, address)


async def test_the_services_own_rights_suffice(seaway: Balanced) -> None:
    said = seaway.cluster.kubectl("-n", EDGE, "logs", LB, "-c", "haproxy-lb")
    assert "service.started" in said
    assert "forbidden" not in said.lower()


def test_no_part_was_ever_started_again(seaway: Balanced) -> None:
    """What was killed came back within its container; nothing ended one."""
    states = [(pod["metadata"]["name"], each) for pod in seaway.pods() for each in pod["status"].get("containerStatuses", ())]
    assert len(states) == 9, states
    assert not {name: each.get("lastState") for name, each in states if each["restartCount"] > 0}, seaway.logs()


async def test_nothing_is_left_on_a_node_that_is_no_edge_any_more(seaway: Balanced, namespace: str) -> None:
    address = await balanced(seaway, namespace)
    assert "seaway_lb" in tables()
    for workload in (LB, VIPS):
        seaway.cluster.kubectl("-n", EDGE, "delete", workload, "--timeout=60s")
    await wait_until(lambda: "seaway_lb" not in tables(), within=SOON)
    await wait_until(lambda: f" {address}/32 " not in addresses(), within=SOON)
    assert "127.107." not in addresses("lo")
