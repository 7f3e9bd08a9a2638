"""Addresses of Services on a real API server and a real bus: given, kept, shared, refused, and given back."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.lb_world import CONFIGMAPS, NAMESPACES, POOLS, RECORD, SOON, World, balancer, front_addresses, world

from common.contracts.refs import ObjectRef, Resource
from common.kube.session import KubeSession
from common.kube.status import Writer
from common.testing import wait_until
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.nats import nats_server
from common.testing.objects import endpoint_slice
from haproxy_lb.record import NoNamespace, Record

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SLICES = Resource("discovery.k8s.io", "endpointslices")
PUBLIC = "pools: [{name: public, addresses: [192.0.2.1-192.0.2.9], quarantine: 1h}]"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[KubeApi]:
    async with kube_api(service_range="10.96.0.0/16,fd00:96::/112") as api:
        yield api


@pytest_asyncio.fixture(loop_scope="module")
async def there(api: KubeApi, tmp_path: Path) -> AsyncIterator[World]:
    async with (
        KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube,
        nats_server() as nats,
        world(api, kube, nats, tmp_path) as there,
    ):
        yield there


async def test_a_service_is_given_an_address_that_is_shown_served_and_wanted(there: World) -> None:
    await there.pools(PUBLIC)
    async with balancer(there) as lb:
        web = await there.service("web", 80, 443)
        await there.shows(web, "192.0.2.1")
        ports = [{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]
        assert await there.shown(web) == [{"ip": "192.0.2.1", "ipMode": "Proxy", "ports": ports}]
        assert "192.0.2.1" in await there.told(web, "AddressAllocated")
        expected = {("192.0.2.1", 80, "default/web:80"), ("192.0.2.1", 443, "default/web:443")}
        await wait_until(lambda: front_addresses(lb) == expected, within=SOON)
        assert lb.path.released

        async def wished() -> bool:
            wish = await there.wish()
            return wish is not None and [(one.ip, one.pool, one.services) for one in wish.addresses] == [
                ("192.0.2.1", "public", ("default/web",))
            ]

        await wait_until(wished, within=SOON)
        await there.gone(web)
        await wait_until(lambda: not front_addresses(lb), within=SOON)

        async def nothing() -> bool:
            wish = await there.wish()
            return wish is not None and not wish.addresses

        await wait_until(nothing, within=SOON)


async def test_other_classes_are_left_alone_and_classless_services_are_ours_only_by_default(there: World) -> None:
    await there.pools(PUBLIC)
    other = await there.service("other", loadBalancerClass="example.com/other")
    bare = await there.service("bare", loadBalancerClass=None)
    async with balancer(there):
        await there.shows(await there.service("ours"), "192.0.2.1")
        assert await there.addresses(other) == []
        assert await there.addresses(bare) == []
    async with balancer(there, default_class=True):
        await there.shows(bare, "192.0.2.2")
        assert await there.addresses(other) == []


async def test_a_restart_keeps_what_was_given_though_older_services_wait(there: World) -> None:
    await there.pools("pools: [{name: public, addresses: [192.0.2.1-192.0.2.2]}]")
    async with balancer(there):
        first = await there.service("z-first")
        await there.shows(first, "192.0.2.1")
    second = await there.service("a-second")  # while nobody leads
    async with balancer(there, "lb-2"):
        await there.shows(second, "192.0.2.2")
        assert await there.addresses(first) == ["192.0.2.1"]


async def test_a_lost_status_and_a_lost_record_cost_nobody_his_address(there: World) -> None:
    await there.pools(PUBLIC)
    async with balancer(there):
        one, two = await there.service("one"), await there.service("two")
        await there.shows(one, "192.0.2.1")
        await there.shows(two, "192.0.2.2")
        await there.kube.patch(one, {"status": {"loadBalancer": None}}, manager="t", subresource="status")
        await there.shows(one, "192.0.2.1")
    await there.gone(one)
    await there.gone(RECORD)
    async with balancer(there):
        await there.shows(await there.service("three"), "192.0.2.1")
        assert await there.addresses(two) == ["192.0.2.2"]


async def test_conflict_and_exhaustion_are_told_and_nobody_loses(there: World) -> None:
    await there.pools("pools: [{name: small, addresses: [192.0.2.1]}]")
    async with balancer(there):
        first = await there.service("first")
        await there.shows(first, "192.0.2.1")
        thief = await there.service("thief", annotations={"load-balancer-ips": "192.0.2.1"})
        late = await there.service("late")
        assert "belongs to default/first" in await there.told(thief, "AddressConflict")
        assert "no IPv4 address is left in small" in await there.told(late, "PoolExhausted")
        await there.pools("pools: [{name: small, addresses: [192.0.2.1-192.0.2.3]}]")
        await there.shows(late, "192.0.2.2")
        assert await there.addresses(first) == ["192.0.2.1"], "a pool that grows moves nobody"
        assert await there.addresses(thief) == []


async def test_services_share_an_address_and_a_port_has_one_owner(there: World) -> None:
    await there.pools(PUBLIC)
    key = {"allow-shared-ip": "front"}
    async with balancer(there) as lb:
        web = await there.service("web", 80, annotations=key)
        await there.shows(web, "192.0.2.1")
        tls = await there.service("tls", 443, annotations=key)
        await there.shows(tls, "192.0.2.1")
        again = await there.service("again", 80, annotations=key)
        await there.shows(again, "192.0.2.2")
        await there.kube.patch(web, {"spec": {"ports": [_port(80), _port(443)]}}, manager="t")
        assert "port 443/TCP of 192.0.2.1 belongs to default/tls" in await there.told(web, "AddressConflict")

        async def refused() -> bool:
            (shown,) = await there.shown(web)
            return {port["port"]: port.get("error") for port in shown["ports"]} == {80: None, 443: "seaway.dev/PortTaken"}

        await wait_until(refused, within=SOON)
        assert ("192.0.2.1", 443, "default/tls:443") in front_addresses(lb)
        assert ("192.0.2.1", 80, "default/web:80") in front_addresses(lb)


def _port(number: int) -> dict[str, object]:
    return {"name": f"p{number}", "port": number, "protocol": "TCP"}


async def test_both_families_are_given_where_the_policy_asks_for_them(there: World) -> None:
    await there.pools('pools: [{name: both, addresses: [192.0.2.1-192.0.2.9, "2001:db8::/64"]}]')
    async with balancer(there) as lb:
        both = await there.service("both", ipFamilyPolicy="RequireDualStack")
        await there.shows(both, "192.0.2.1", "2001:db8::1")
        six = await there.service("six", ipFamilyPolicy="SingleStack", ipFamilies=["IPv6"])
        await there.shows(six, "2001:db8::2")
        expected = {
            ("192.0.2.1", 80, "default/both:80"),
            ("2001:db8::1", 80, "default/both:80"),
            ("2001:db8::2", 80, "default/six:80"),
        }
        await wait_until(lambda: front_addresses(lb) == expected, within=SOON)
        await there.kube.patch(both, {"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}}, manager="t")
        await there.shows(both, "192.0.2.1")


async def test_a_service_that_is_made_again_gets_its_address_back_and_others_do_not(there: World) -> None:
    await there.pools("pools: [{name: one, addresses: [192.0.2.1-192.0.2.2], quarantine: 1h}]")
    async with balancer(there):
        web = await there.service("web")
        await there.shows(web, "192.0.2.1")
        await there.gone(web)
        other = await there.service("other")
        await there.shows(other, "192.0.2.2")
    async with balancer(there, "lb-2"):
        third = await there.service("third")
        assert "no IPv4 address is left" in await there.told(third, "PoolExhausted")
        await there.service("web")
        await there.shows(web, "192.0.2.1")


async def test_a_service_that_is_no_load_balancer_any_more_gives_its_address_back(there: World) -> None:
    await there.pools("pools: [{name: one, addresses: [192.0.2.1], quarantine: 0s}]")
    async with balancer(there):
        web = await there.service("web")
        await there.shows(web, "192.0.2.1")
        other = await there.service("other")
        await there.kube.patch(web, {"spec": {"type": "ClusterIP", "loadBalancerClass": None}}, manager="t")
        await there.shows(other, "192.0.2.1")
        assert "192.0.2.1" in await there.told(web, "AddressReleased")
        assert await there.addresses(web) == []
    await there.gone(web)


async def test_ports_of_udp_are_refused_with_the_reason_or_left_to_the_kernel(there: World) -> None:
    await there.pools(PUBLIC)
    async with balancer(there) as lb:
        mixed = await there.service("mixed", 53, "53/UDP")
        await there.shows(mixed, "192.0.2.1")
        (shown,) = await there.shown(mixed)
        assert [port.get("error") for port in shown["ports"]] == [None, "seaway.dev/ProtocolNotSupported"]
        assert "HAProxy carries TCP alone" in await there.told(mixed, "ProtocolNotSupported")
        kernel = await there.service("kernel", 53, "53/UDP", annotations={"udp": "kernel"})
        await there.shows(kernel, "192.0.2.2")
        assert [one["ipMode"] for one in await there.shown(kernel)] == ["VIP"]
        only = await there.service("only", "53/UDP")
        await there.told(only, "ProtocolNotSupported")
        assert await there.addresses(only) == []
        assert front_addresses(lb) == {("192.0.2.1", 53, "default/mixed:53")}


async def test_bad_pools_are_refused_whole_and_the_good_ones_stay_in_force_over_a_restart(there: World) -> None:
    await there.pools(PUBLIC)
    async with balancer(there):
        await there.shows(await there.service("one"), "192.0.2.1")
        await there.pools("pools: [{name: public, addresses: [192.0.2.1-192.0.2.300]}]")
        assert "this is no address" in await there.told(POOLS, "BadPools")
        await there.shows(await there.service("two"), "192.0.2.2")
    async with balancer(there, "lb-2") as lb:
        await there.shows(await there.service("three"), "192.0.2.3")
        await wait_until(lambda: len(front_addresses(lb)) == 3, within=SOON)


async def test_of_two_who_think_to_lead_one_gives_addresses(there: World) -> None:
    await there.pools(PUBLIC)
    async with balancer(there, "lb-1"), balancer(there, "lb-2"):
        made = [await there.service(f"s{n}") for n in range(6)]
        await wait_until(lambda: _have_one(there, made), within=SOON)
        given = [address for ref in made for address in await there.addresses(ref)]
        assert len(set(given)) == 6, "nobody has what another has"
        record = await there.kube.get(ObjectRef(CONFIGMAPS, RECORD.namespace, RECORD.name))
        assert len(record["data"]["reservations"].splitlines()) == 6


async def _have_one(there: World, refs: Sequence[ObjectRef]) -> bool:
    return all([len(await there.addresses(ref)) == 1 for ref in refs])


async def test_a_record_without_a_namespace_is_told_and_made_as_soon_as_there_is_one(there: World) -> None:
    record = Record(there.kube, Writer(there.kube, "haproxy-lb"), ObjectRef(CONFIGMAPS, "elsewhere", "lb-reservations"))
    await record.read()
    with pytest.raises(NoNamespace, match="no namespace 'elsewhere'"):
        await record.write((), None)
    await there.kube.create(NAMESPACES, {"metadata": {"name": "elsewhere"}})
    await record.write((), None)


async def test_the_command_lists_services_and_explains_one(there: World) -> None:
    await there.pools("pools: [{name: public, addresses: [192.0.2.1], priority: 7}]")
    async with balancer(there):
        web = await there.service(
            "web", 80, externalTrafficPolicy="Local", annotations={"balance": "leastconn", "local-fallback": "true"}
        )
        await there.shows(web, "192.0.2.1")
        await there.kube.create(SLICES, endpoint_slice("web", "10.1.0.1", port_name="p80"), namespace="default")
        late = await there.service("late", 80)
        await there.told(late, "PoolExhausted")
        command = [sys.executable, "-m", "seaway", "lb"]

        async def listed() -> bool:
            lines = [line.split() for line in (await said(*command, "list", "--nats", there.nats.url)).splitlines()]
            return lines[1:] == [
                ["default", "late", "-", "80/TCP", "-", "0", "PoolExhausted"],
                ["default", "web", "192.0.2.1", "80/TCP", "public", "1", "-"],
            ]

        await wait_until(listed, within=SOON, every=0.2)
        told = await said(*command, "explain", "default/web", "--nats", there.nats.url)
        for part in (
            "address 192.0.2.1, of pool public: the pool has priority 7 and permits every Service",
            "in its status: yes",
            "asked of the nodes: yes",
            "port 80: 192.0.2.1:80",
            "10.1.0.1:8080, in use",
            "endpoints of the own node, others where it has none",
            "balance: leastconn",
        ):
            assert part in told, told
        assert "PoolExhausted: no IPv4 address is left" in await said(*command, "explain", "default/late", "--nats", there.nats.url)
        assert "there is no such Service" in await said(*command, "explain", "default/nobody", "--nats", there.nats.url)
        await there.gone(ObjectRef(SLICES, "default", "web-1"))


async def said(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(SOON):
        output, _ = await process.communicate()
    return output.decode()
