"""What a node knows, and what it makes of it: which addresses it may hold, when it gives them up, and who tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.messages import NOW, Stored, message

from common.codec import encode
from common.contracts.addresses import AddressesWanted, WantedAddress, wanted_event
from common.contracts.objects import ConfigMap, Node
from common.contracts.refs import ObjectRef, Resource
from common.contracts.state import SyncMarker, marker_event
from common.contracts.subjects import sync_subject, wanted_subject
from common.contracts.vips import HeldAddress, PlannedAddress, PlannedNode, VipNode, VipPlan, node_what, vip_event
from common.testing.objects import config_map
from keepalived_vip.census import nowhere, twice
from keepalived_vip.known import Heard, Known, Scope
from keepalived_vip.model import Member, Standing
from keepalived_vip.wire import dumped, loaded
from keepalived_vip.yielding import GIVE_UP, KEEP, STEP_BACK, verdict

SCOPE = Scope(
    cluster="local",
    node="node-1",
    selector={},
    statics=ObjectRef(ConfigMap.resource, "seaway-edge", "vips"),
    pools=ObjectRef(ConfigMap.resource, "seaway-edge", "lb-pools"),
    groups=6,
)
THREE = tuple(Member(f"node-{number}", f"10.0.0.{number}") for number in (1, 2, 3))


@dataclass(frozen=True)
class Said:
    """A message of the wishes."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    time: float = 0.0
    gone: bool = False


def wish(*ips: str, service: str = "haproxy-lb", sequence: int = 1) -> Said:
    said = AddressesWanted(instance="lb", addresses=tuple(WantedAddress(ip=ip) for ip in ips))
    encoded = encode(wanted_event(said, service=service, id="1", time=NOW))
    return Said(wanted_subject("local", service, "addresses"), encoded.headers, encoded.body, sequence)


def planned(plan: VipPlan, sequence: int = 2) -> Said:
    encoded = encode(vip_event(plan, id="1", time=NOW))
    return Said(wanted_subject("local", "keepalived-vip", "plan"), encoded.headers, encoded.body, sequence)


def of_node(name: str, *held: str, held_back: str = "", at: float = 0.0, sequence: int = 3) -> Said:
    said = VipNode(node=name, revision=1, peers=("node-1",), held=tuple(HeldAddress(ip=ip, group=0, since=NOW) for ip in held))
    encoded = encode(vip_event(said.model_copy(update={"held_back": held_back}), id="1", time=NOW))
    return Said(wanted_subject("local", "keepalived-vip", node_what(name)), encoded.headers, encoded.body, sequence, at)


def marker(resource: Resource, sequence: int) -> Stored:
    said = SyncMarker(watcher="w", version="1", count=0, hash="", through=0, time=NOW)
    encoded = encode(marker_event(resource, said, source="/test"))
    return Stored(sync_subject("local", resource), encoded.headers, encoded.body, sequence)


def node(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "creationTimestamp": NOW},
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"10.0.0.{number}"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pools(*ranges: str) -> dict[str, Any]:
    return config_map("lb-pools", {"pools.yaml": f"pools: [{{name: a, addresses: {list(ranges)}}}]"}, "seaway-edge")


def known(*objects: dict[str, Any], markers: bool = True, **of: Any) -> Known:
    made = Known(SCOPE, **of)
    found = [message(raw, number) for number, raw in enumerate((node(1), node(2), *objects), start=1)]
    marks = [marker(Node.resource, 50), marker(ConfigMap.resource, 51)] if markers else []
    made.replace_state([*found, *marks], (), "stream")
    return made


def take(made: Known, *said: Said, whole: bool = True, now: float = 0.0) -> Known:
    made.take_wishes(said, whole=whole, now=now)
    return made


def test_an_address_in_no_pool_is_refused_with_the_mend() -> None:
    made = take(known(pools("192.0.2.0/28")), wish("192.0.2.1", "198.51.100.1"))
    assert list(made.wanted) == [ip_address("192.0.2.1")]
    (problem,) = made.problems
    assert "198.51.100.1 is in no pool; add it to one" in problem.message


@pytest.mark.parametrize("ip", ["10.0.0.2", "127.0.0.1", "224.0.0.5", "0.0.0.0", "169.254.1.1", "nonsense"])
def test_an_address_that_no_node_can_hold_is_refused_though_a_pool_has_it(ip: str) -> None:
    made = take(known(pools("0.0.0.1-9.255.255.255", "10.0.0.0/8")), wish(ip))
    assert not made.wanted
    assert any(ip in problem.message for problem in made.problems)


def test_an_address_of_a_plan_that_is_in_no_pool_is_not_held_though_the_plan_says_so() -> None:
    forged = VipPlan(instance="x", revision=9, addresses=(PlannedAddress(ip="10.0.0.254", group=0, owner="nobody-known"),))
    made = take(known(pools("192.0.2.0/28")), planned(forged))
    assert made.agreed.plan.groups
    assert not made.lawful.plan.groups
    assert any("10.0.0.254, wanted by nobody-known, is in no pool" in problem.message for problem in made.problems)
    assert made.proposal is not None
    assert not made.proposal.plan.groups


def test_an_address_stays_held_when_its_pool_is_taken_away_and_over_a_restart() -> None:
    made = take(known(pools("192.0.2.0/28")), wish("192.0.2.1"))
    assert made.proposal is not None
    take(made, wish("192.0.2.1"), planned(dumped(made.proposal, "node-1")))
    made.take_state([message(pools("203.0.113.0/28"), 60)], "stream")
    assert ip_address("192.0.2.1") in made.lawful.plan.groups
    kept = loaded(dumped(made.lawful, "node-1"))
    again = take(known(pools("203.0.113.0/28"), kept=kept), wish("192.0.2.1"), planned(dumped(made.agreed, "node-1")))
    assert ip_address("192.0.2.1") in again.lawful.plan.groups


def test_nothing_new_is_held_before_the_replica_is_complete() -> None:
    plan = VipPlan(instance="x", revision=9, addresses=(PlannedAddress(ip="192.0.2.1", group=0, owner="haproxy-lb"),))
    made = take(known(pools("192.0.2.0/28"), markers=False), planned(plan))
    assert not made.lawful.plan.groups
    made.take_state([marker(Node.resource, 60), marker(ConfigMap.resource, 61)], "stream")
    assert list(made.lawful.plan.groups) == [ip_address("192.0.2.1")]


def test_a_service_that_is_silent_wants_what_it_wanted() -> None:
    made = take(known(pools("192.0.2.0/28")), wish("192.0.2.1"))
    assert made.proposal is not None
    take(made, planned(dumped(made.proposal, "node-1")))  # and the bus has lost the wish
    assert list(made.wanted) == [ip_address("192.0.2.1")]


def test_a_plan_that_no_node_could_render_is_refused() -> None:
    made = take(known(), planned(VipPlan(instance="x", revision=9, addresses=(PlannedAddress(ip="10.0.0.1", group=999),))))
    assert not made.agreed.plan.groups
    assert [problem.reason for problem in made.problems] == ["BadMessage"]


def crowd(*numbers: int) -> list[dict[str, Any]]:
    """Nodes, of which a higher number is younger and first by name."""
    made = []
    for number in numbers:
        raw = node(number)
        raw["metadata"] = {
            "name": f"node-{9999 - number}",
            "creationTimestamp": f"2026-01-01T{number // 60:02}:{number % 60:02}:00Z",
        }
        raw["status"]["addresses"][0]["address"] = f"10.1.{number // 250}.{number % 250}"
        made.append(raw)
    return made


def test_of_more_nodes_than_there_are_priorities_the_oldest_agree_on_a_plan_and_the_others_are_told_the_mend() -> None:
    scope = replace(SCOPE, node="node-9998")
    made = Known(scope)
    found = [message(raw, number) for number, raw in enumerate([*crowd(*range(1, 206)), pools("192.0.2.0/28")], start=1)]
    made.replace_state([*found, marker(Node.resource, 500), marker(ConfigMap.resource, 501)], (), "stream")
    proposal = take(made, wish("192.0.2.1")).proposal
    assert proposal is not None
    assert {member.name for member in proposal.plan.members} == {f"node-{9999 - number}" for number in range(1, 201)}
    take(made, wish("192.0.2.1"), planned(dumped(proposal, "node-9998")))
    assert list(made.lawful.plan.groups) == [ip_address("192.0.2.1")]
    assert made.proposal is None, "what was proposed is in force, and nobody says it again"
    (problem,) = made.problems
    assert problem.ref.name == "node-9798"
    assert "it and 4 more take no part: priorities suffice for 200 nodes" in problem.message
    assert "--node-selector" in problem.message
    take(made, wish("10.1.0.205"), whole=False)  # of a node that takes no part
    assert any("10.1.0.205 is a node's own address" in problem.message for problem in made.problems)


def test_a_plan_of_too_many_nodes_is_refused_with_the_mend() -> None:
    many = VipPlan(instance="x", revision=9, nodes=tuple(PlannedNode(name=f"node-{number}") for number in range(201)))
    made = take(known(), planned(many))
    assert not made.agreed.plan.members
    (problem,) = made.problems
    assert "201 nodes, and priorities suffice for 200; name fewer with --node-selector" in problem.message


def test_a_node_that_comes_with_an_address_of_a_silent_service_does_not_stop_the_plan() -> None:
    made = take(known(pools("192.0.2.0/28")), wish("192.0.2.1", "192.0.2.2"))
    assert made.proposal is not None
    take(made, planned(dumped(made.proposal, "node-1")))  # and the bus has lost the wish
    thief = node(3)
    thief["status"]["addresses"][0]["address"] = "192.0.2.1"
    made.take_state([message(thief, 60)], "stream")
    assert made.proposal is not None
    take(made, planned(dumped(made.proposal, "node-1"), sequence=4))
    assert list(made.lawful.plan.groups) == [ip_address("192.0.2.2")]
    assert made.proposal is None


def heard(name: str, *, held_back: str = "", peers: tuple[str, ...] = ("node-1",), at: float = 0.0) -> Heard:
    return Heard(VipNode(node=name, revision=1, peers=peers, held_back=held_back), at, {}, arrived=0.0)


def judged(edges: Mapping[str, str], *held_back: str, policy: Any = "release") -> int:
    said = {name: heard(name, held_back="its edge" if name in held_back else "") for name in NAMES}
    return verdict("node-1", THREE, said, edges, policy).value


NAMES = ("node-2", "node-3")
DEAD = {"tcp:127.0.0.1:80": "nobody listens there"}


def test_a_node_whose_edge_is_dead_gives_up_while_another_can_take_over() -> None:
    assert judged({}) == KEEP
    assert judged(DEAD) == judged(DEAD, "node-2") == GIVE_UP
    assert judged(DEAD, policy="lower") == STEP_BACK


def test_a_node_whose_edge_is_dead_holds_on_where_nobody_can_take_over() -> None:
    assert judged(DEAD, "node-2", "node-3") == STEP_BACK
    alone = verdict("node-1", THREE[:1], {}, DEAD, "release")
    assert alone.value == STEP_BACK
    assert "no other node can take over, so node node-1 holds on" in alone.reason


def test_a_node_that_others_do_not_hear_yet_holds_nothing() -> None:
    deaf = {"node-2": heard("node-2", peers=("node-2", "node-3"))}
    assert verdict("node-1", THREE, deaf, {}, "release").value == GIVE_UP


def test_an_excluded_node_gives_up_and_a_cordoned_one_only_if_another_is_well() -> None:
    out, cordoned = (Member("node-1", "10.0.0.1", standing=standing) for standing in (Standing.OUT, Standing.CORDONED))
    assert verdict("node-1", (out,), {}, {}, "release").value == GIVE_UP
    assert verdict("node-1", (cordoned, *THREE[1:]), {}, {}, "release").value == GIVE_UP
    assert verdict("node-1", (cordoned,), {}, {}, "release").value == KEEP


def standing(**of: Standing) -> tuple[Member, ...]:
    """node-1 and node-2, as they stand."""
    return tuple(replace(member, standing=of.get(member.name.replace("-", "_"), Standing.WELL)) for member in THREE[:2])


@pytest.mark.parametrize("gone", [Standing.UNREADY, Standing.CORDONED])
def test_a_node_whose_edge_is_dead_holds_on_rather_than_give_way_to_one_that_died_days_ago(gone: Standing) -> None:
    members = standing(node_2=gone)
    died = {"node-2": heard("node-2", at=1000), "node-1": heard("node-1", at=300_000)}
    assert verdict("node-1", members, died, DEAD, "release").value == STEP_BACK
    never = {"node-1": heard("node-1", at=300_000)}
    assert verdict("node-1", members, never, DEAD, "release").value == STEP_BACK


def test_a_node_that_has_just_begun_to_listen_takes_no_old_word_for_a_new_one() -> None:
    made = take(known(), of_node("node-2", at=1000), of_node("node-1", at=300_000), now=7)  # both arrive at once
    assert verdict("node-1", standing(node_2=Standing.UNREADY), made.heard, DEAD, "release").value == STEP_BACK


def test_a_node_whose_edge_is_dead_gives_way_to_one_whose_kubelet_alone_is_silent() -> None:
    lives = {"node-2": heard("node-2", at=299_995), "node-1": heard("node-1", at=300_000)}
    assert verdict("node-1", standing(node_2=Standing.UNREADY), lives, DEAD, "release").value == GIVE_UP


@pytest.mark.parametrize("other", [Standing.WELL, Standing.UNREADY])
def test_a_node_whose_edge_is_dead_gives_up_while_the_bus_is_away_as_it_does_with_one(other: Standing) -> None:
    before = {name: heard(name, at=1000) for name in ("node-1", "node-2")}  # and since then there was no word of anybody
    assert verdict("node-1", standing(node_2=other), before, DEAD, "release").value == GIVE_UP
    assert verdict("node-1", standing(node_2=other), {}, DEAD, "release").value == GIVE_UP


def test_a_node_whose_edge_is_dead_gives_way_to_one_that_is_well_though_it_is_cut_off_from_the_bus() -> None:
    cut_off = {"node-2": heard("node-2", at=1000), "node-1": heard("node-1", at=2000)}
    assert verdict("node-1", standing(), cut_off, DEAD, "release").value == GIVE_UP


def test_a_cordoned_node_holds_on_where_no_other_has_its_edges() -> None:
    members = standing(node_1=Standing.CORDONED)
    assert verdict("node-1", members, {"node-2": heard("node-2", held_back="its edge")}, {}, "release").value == KEEP
    assert verdict("node-1", members, {"node-2": heard("node-2")}, {}, "release").value == GIVE_UP


def test_a_cordoned_node_holds_on_where_the_only_other_fell_silent_and_is_not_yet_known_to_be_gone() -> None:
    crashed = {"node-2": heard("node-2", at=1000), "node-1": heard("node-1", at=1025)}
    assert verdict("node-1", standing(node_1=Standing.CORDONED), crashed, {}, "release").value == KEEP


def heard_of(*said: Said, now: float) -> Mapping[str, Heard]:
    made = known()
    for one in said:
        take(made, one, whole=False, now=now)
    return made.heard


def test_an_address_that_two_nodes_go_on_claiming_is_held_twice_and_one_that_moves_is_not() -> None:
    address = ip_address("192.0.2.1")
    moving = heard_of(of_node("node-1", "192.0.2.1", at=1), of_node("node-2", "192.0.2.1", at=2), now=2)
    assert not twice(moving, [address], 2)
    both = heard_of(
        of_node("node-1", "192.0.2.1", at=1),
        of_node("node-2", "192.0.2.1", at=2),
        of_node("node-1", "192.0.2.1", at=6),
        of_node("node-2", "192.0.2.1", at=7),
        now=7,
    )
    assert twice(both, [address], 7) == {address: ("node-1", "node-2")}


def test_an_address_is_nowhere_when_its_last_holder_is_silent_for_long() -> None:
    address = ip_address("192.0.2.1")
    last = heard_of(of_node("node-1", "192.0.2.1"), now=0)
    assert nowhere(last, [address], 5) == ()
    assert nowhere(last, [address], 60) == (address,)
