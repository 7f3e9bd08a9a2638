"""What `seaway lb` tells of a Service: its addresses and why, who holds them, how its endpoints are, and its rules."""

from typing import Any

from tests.messages import NOW, message

from common.bus.protocol import Message
from common.codec import encode
from common.contracts.addresses import AddressesWanted, WantedAddress, wanted_event
from common.contracts.balancers import BalancerFound, UnwellEndpoint, found_event
from common.contracts.events import CloudEvent
from common.contracts.subjects import wanted_subject
from common.contracts.vips import HeldAddress, VipNode, VipPlan, vip_event
from common.pools import KEY
from common.testing.objects import config_map, endpoint_slice, service
from haproxy_lb.claims import ServiceName
from haproxy_lb.derive.classes import Class
from haproxy_lb.finding import MOST, found
from haproxy_lb.model import BackendKey
from haproxy_lb.rules import Admin, Server
from haproxy_lb.slots import Slot
from seaway.balancing import Scope, explain, picture, rows
from seaway.lb import CONFIGMAPS
from seaway.wished import DEAF, Wished, read

AT = 1_000_000.0
POOLS = "pools: [{name: public, addresses: [192.0.2.0/28]}, {name: shop, addresses: [192.0.2.32/28], namespaces: [shop]}]"
WEB = ServiceName("shop", "web")


def said(service_name: str, what: str, event: CloudEvent, *, age: float = 0) -> Message:
    encoded = encode(event)
    return Message(wanted_subject("local", service_name, what), encoded.headers, encoded.body, 1, AT - age)


def wished(*, age: float = 0, unwell: tuple[str, ...] = ()) -> Wished:
    """One balancer and one holder, edge-1, heard `age` seconds ago."""
    wish = AddressesWanted(instance="lb", addresses=(WantedAddress(ip="192.0.2.1", services=("shop/other", "shop/web")),))
    holder = VipNode(node="edge-1", revision=1, held=(HeldAddress(ip="192.0.2.1", group=3, since=NOW),))
    endpoints = tuple(UnwellEndpoint(namespace="shop", service="web", port=80, endpoint=one) for one in unwell)
    finds = BalancerFound(node="edge-1", unwell=endpoints)
    messages = (
        said("haproxy-lb", "addresses", wanted_event(wish, service="haproxy-lb", id="1", time=NOW)),
        said("haproxy-lb", "node/edge-1", found_event(finds, id="2", time=NOW), age=age),
        said("keepalived-vip", "node/edge-1", vip_event(holder, id="3", time=NOW), age=age),
        said("keepalived-vip", "plan", vip_event(VipPlan(instance="v", revision=1), id="4", time=NOW)),
    )
    return read(messages, AT)


def told(seen: Wished, **spec: Any) -> list[str]:
    """What is told of shop/web, which has the address 192.0.2.1 and two endpoints."""
    made = service("web", 80, namespace="shop")
    made["spec"] |= {"type": "LoadBalancer", "loadBalancerClass": "seaway.dev/haproxy", **spec}
    made["status"] = {
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "Proxy", "ports": [{"port": 80, "protocol": "TCP"}]}]}
    }
    objects = [
        made,
        endpoint_slice("web", "10.0.0.1", "10.0.0.2", port_name=made["spec"]["ports"][0].get("name", ""), namespace="shop"),
        config_map("lb-pools", {KEY: POOLS}, "seaway-edge"),
    ]
    messages = [message(one, number) for number, one in enumerate(objects, 1)]
    found_here = picture(Scope("local", Class(), *CONFIGMAPS), messages, seen, int(AT))
    assert [row[:3] for row in rows(found_here)] == [("shop", "web", "192.0.2.1")]
    return [line.strip() for line in explain(found_here, WEB)]


def test_an_address_is_told_with_its_pool_its_holder_and_who_shares_it() -> None:
    lines = told(wished())
    assert "address 192.0.2.1, of pool public: the pool has priority 100 and permits every Service" in lines
    assert "in its status: yes" in lines
    assert "asked of the nodes: yes, shared with shop/other" in lines
    assert f"held by node edge-1, in instance seaway-4-3, since {NOW}" in lines


def test_a_holder_that_is_silent_is_told_so_and_a_silent_balancer_says_nothing() -> None:
    lines = told(wished(age=DEAF + 1, unwell=("10.0.0.1:8080",)))
    assert f"held by node edge-1, in instance seaway-4-3, since {NOW}; that node is silent now" in lines
    assert "10.0.0.1:8080, in use; no balancer tells how it is" in lines


def test_an_address_that_nobody_holds_is_told_so() -> None:
    assert "held by no node that is known here" in told(Wished())


def test_endpoints_are_told_with_what_their_checks_found() -> None:
    lines = told(wished(unwell=("10.0.0.2:8080",)))
    assert "10.0.0.1:8080, in use, well" in lines
    assert "10.0.0.2:8080, does not answer edge-1" in lines


def test_rules_are_told() -> None:
    lines = told(wished(), loadBalancerSourceRanges=["203.0.113.0/24"], sessionAffinity="ClientIP", externalTrafficPolicy="Local")
    assert "only from 203.0.113.0/24" in lines
    assert "a client's address stays with its endpoint" in lines
    assert any(line.startswith("endpoints of the own node") for line in lines)


def test_a_message_that_cannot_be_read_is_named_and_hides_no_other() -> None:
    bad = Message(wanted_subject("local", "haproxy-lb", "node/x"), {}, b"?", 1, AT)
    seen = read((bad,), AT)
    assert len(seen.faults) == 1
    assert seen.faults[0].startswith(f"{bad.subject} cannot be read: ")


def test_a_balancer_tells_of_those_that_are_meant_to_be_used_and_do_not_answer() -> None:
    web, slot = BackendKey("shop", "web", 80), Slot("roundrobin-0")
    servers = [
        (slot, "10.0.0.1:80_a", Server(1, Admin.READY, up=True)),
        (slot, "10.0.0.2:80_a", Server(2, Admin.READY, up=False)),
        (slot, "10.0.0.3:80_a", Server(3, Admin.DRAIN, up=True)),
        (slot, "10.0.0.5:80_a", Server(5, Admin.MAINT, up=False)),
        (Slot("roundrobin-7"), "10.0.0.4:80_a", Server(4, Admin.READY, up=False)),
    ]
    finds = found("edge-1", {web: slot}, servers, "")
    assert finds == BalancerFound(
        node="edge-1", unwell=(UnwellEndpoint(namespace="shop", service="web", port=80, endpoint="10.0.0.2:80"),)
    )
    many = [
        (slot, f"10.0.{number // 250}.{number % 250}:80_a", Server(number, Admin.READY, up=False)) for number in range(MOST + 5)
    ]
    finds = found("edge-1", {web: slot}, many, "busy")
    assert (len(finds.unwell), finds.more, finds.trouble) == (MOST, 5, "busy")
