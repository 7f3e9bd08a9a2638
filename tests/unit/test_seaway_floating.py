"""`seaway vip`: what an operator reads when an address does not answer."""

from common.contracts.vips import HeldAddress, Home, PlannedAddress, PlannedNode, VipNode, VipPlan
from seaway.floating import addresses, nodes
from seaway.wished import Heard, Wished

NOW = 1_800_000_000.0
PLAN = VipPlan(
    instance="node-1",
    revision=4,
    nodes=tuple(PlannedNode(name=f"node-{number}", v4=f"10.0.0.{number}") for number in (1, 2, 3)),
    addresses=(
        PlannedAddress(ip="192.0.2.10", group=0, owner="static/edge"),
        PlannedAddress(ip="192.0.2.9", group=1, owner="haproxy-lb"),
    ),
    homes=(Home(group=0, node="node-1"), Home(group=1, node="node-2")),
)


def heard(node: str, *held: tuple[str, int], ago: float = 1, revision: int = 4, held_back: str = "") -> Heard:
    since = "2027-01-15T07:58:00.000Z"  # two minutes before NOW
    said = VipNode(
        node=node,
        revision=revision,
        held=tuple(HeldAddress(ip=ip, group=group, since=since) for ip, group in held),
        held_back=held_back,
    )
    return Heard(said, NOW - ago)


def picture(*said: Heard) -> Wished:
    return Wished(plan=PLAN, nodes={one.said.node: one for one in said}, now=NOW)


def test_each_address_is_shown_with_holder_instance_and_since_when() -> None:
    rows = list(addresses(picture(heard("node-1", ("192.0.2.10", 0)), heard("node-2", ("192.0.2.9", 1)))))
    assert rows == [
        ("192.0.2.9", "haproxy-lb", "node-2", "seaway-4-1", "2m ago", "node-2", "-"),
        ("192.0.2.10", "static/edge", "node-1", "seaway-4-0", "2m ago", "node-1", "-"),
    ]


def test_an_address_that_nobody_holds_has_a_row_that_says_so() -> None:
    rows = list(addresses(picture(heard("node-2", ("192.0.2.9", 1)))))
    assert rows[1] == ("192.0.2.10", "static/edge", "-", "-", "-", "node-1", "nobody holds it")


def test_an_address_that_two_hold_has_a_row_for_each() -> None:
    rows = list(addresses(picture(heard("node-1", ("192.0.2.10", 0)), heard("node-3", ("192.0.2.10", 0)))))
    assert [(row[2], row[6]) for row in rows if row[0] == "192.0.2.10"] == [("node-1", "held twice"), ("node-3", "held twice")]


def test_a_silent_node_is_doubted_and_makes_nobody_the_second_holder() -> None:
    seen = picture(heard("node-1", ("192.0.2.10", 0), ago=300), heard("node-3", ("192.0.2.10", 0)))
    rows = [row for row in addresses(seen) if row[0] == "192.0.2.10"]
    assert [(row[2], row[6]) for row in rows] == [("node-1?", "the node is silent"), ("node-3", "-")]


def test_an_address_that_is_held_and_wanted_by_nobody_is_shown() -> None:
    rows = list(addresses(picture(heard("node-1", ("192.0.2.77", 3)))))
    assert rows[2][:3] == ("192.0.2.77", "-", "node-1")
    assert rows[2][6] == "nobody wants it"


def test_each_node_says_what_keeps_it_from_holding_addresses() -> None:
    seen = picture(heard("node-1", held_back="edge tcp:127.0.0.1:80 is not ready"), heard("node-2", revision=3), heard("node-9"))
    assert list(nodes(seen)) == [
        ("node-1", "1s ago", "well", "0", "1", "edge tcp:127.0.0.1:80 is not ready"),
        ("node-2", "1s ago", "well", "0", "1", "plan 4 is not in force there yet"),
        ("node-3", "never", "well", "-", "0", "it has never said anything: does keepalived-vip run there?"),
        ("node-9", "1s ago", "takes no part", "0", "0", "-"),
    ]
