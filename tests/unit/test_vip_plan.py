"""The plan of floating addresses: who is home to what, and how a node gets from one configuration to the next."""

import itertools
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepalived_vip.model import Address, Instance, Layout, Member, Plan, Standing
from keepalived_vip.plan import TooManyError, layout, ranking, revise
from keepalived_vip.steps import reloaded, steps

THREE = tuple(Member(f"node-{number}", f"10.0.0.{number}", f"fd00::{number}") for number in (1, 2, 3))
ADDRESSES = st.frozensets(st.integers(1, 40).map(lambda number: ip_address(f"10.1.0.{number}")), max_size=25)
MEMBERS = st.frozensets(
    st.builds(
        lambda number, standing: Member(f"node-{number}", f"10.0.0.{number}", "", standing),
        st.integers(1, 6),
        st.sampled_from(Standing),
    ),
    max_size=6,
).map(lambda found: tuple({member.name: member for member in sorted(found)}.values()))


def pool(count: int) -> list[Address]:
    return [ip_address(f"10.1.{number // 250}.{number % 250 + 1}") for number in range(count)]


def test_addresses_spread_over_the_nodes() -> None:
    plan = revise(Plan(), pool(300), THREE, 12)
    homes = [plan.homes[group] for group in plan.groups.values()]
    assert [homes.count(member.name) for member in THREE] == [100, 100, 100]


def test_three_addresses_have_three_homes() -> None:
    plan = revise(Plan(), pool(3), THREE, 12)
    assert {plan.homes[group] for group in plan.groups.values()} == {member.name for member in THREE}


def test_a_node_that_comes_is_given_its_share_and_takes_no_more() -> None:
    before = revise(Plan(), pool(24), THREE[:2], 12)
    after = revise(before, pool(24), THREE, 12)
    moved = [group for group in after.homes if after.homes[group] != before.homes[group]]
    assert len(moved) == 4
    assert {after.homes[group] for group in moved} == {"node-3"}


def test_a_cordoned_node_is_home_only_where_nobody_else_is_there() -> None:
    cordoned = replace(THREE[0], standing=Standing.CORDONED)
    assert "node-1" not in revise(Plan(), pool(9), (cordoned, *THREE[1:]), 12).homes.values()
    assert set(revise(Plan(), pool(9), (cordoned,), 12).homes.values()) == {"node-1"}


def test_an_excluded_node_is_never_a_home_and_still_a_peer() -> None:
    excluded = replace(THREE[0], standing=Standing.OUT)
    plan = revise(Plan(), pool(9), (excluded, *THREE[1:]), 3)
    assert "node-1" not in plan.homes.values()
    assert all("node-1" in {peer.name for peer in instance.peers} for instance in layout(plan, "node-2", 50, 3).instances)


def test_groups_that_are_too_many_stay_until_they_are_empty() -> None:
    before = revise(Plan(), pool(12), THREE, 6)
    fewer = revise(before, pool(12), THREE, 3)
    assert fewer.groups == before.groups
    emptied = revise(fewer, [address for address, group in fewer.groups.items() if group < 3], THREE, 3)
    assert set(emptied.homes) == {0, 1, 2}


def test_vrids_beyond_the_last_are_refused_with_the_knob() -> None:
    plan = revise(Plan(), [], THREE, 12)
    with pytest.raises(TooManyError, match=r"group 11 would be VRID 256.*--first-vrid"):
        layout(plan, "node-1", 245, 12)


def test_vrids_differ_within_a_family() -> None:
    made = layout(revise(Plan(), pool(40), THREE, 12), "node-2", 50, 12)
    assert len({(instance.family, instance.vrid) for instance in made.instances}) == len(made.instances) == 24


@given(st.lists(st.tuples(ADDRESSES, MEMBERS, st.integers(1, 8)), min_size=1, max_size=8))
def test_nothing_moves_without_a_cause(history: list[tuple[frozenset[Address], tuple[Member, ...], int]]) -> None:
    plan = Plan()
    for wanted, members, count in history:
        new = revise(plan, wanted, members, count)
        assert set(new.groups) == wanted
        assert all(new.groups[address] == group for address, group in plan.groups.items() if address in wanted)
        assert revise(new, wanted, members, count) == new
        assert revise(plan, reversed_of(wanted), tuple(reversed(members)), count) == new
        plan = new


def reversed_of(wanted: frozenset[Address]) -> list[Address]:
    return sorted(wanted, key=int, reverse=True)


@given(ADDRESSES, MEMBERS, st.integers(1, 8))
def test_homes_are_even_and_priorities_of_a_group_all_differ(
    wanted: frozenset[Address], members: tuple[Member, ...], count: int
) -> None:
    plan = revise(Plan(), wanted, members, count)
    best = min((member.standing for member in members), default=Standing.OUT)
    able = [member.name for member in members if member.standing is best is not Standing.OUT]
    loads = [list(plan.homes.values()).count(name) for name in able]
    assert max(loads, default=0) - min(loads, default=0) <= 1
    layouts = {member.name: layout(plan, member.name, 1, count) for member in members}
    for group in plan.homes:
        priorities = {
            name: instance.priority for name, made in layouts.items() for instance in made.instances if instance.group == group
        }
        assert len(set(priorities.values())) == len(priorities)
        assert max(priorities, key=priorities.__getitem__) == plan.homes[group] == ranking(plan, group)[0]


def layouts_of(numbers: st.SearchStrategy[frozenset[int]]) -> st.SearchStrategy[Layout]:
    """Any layout: addresses in any of some instances, which stand in any order."""

    @st.composite
    def draw(draw: st.DrawFn) -> Layout:
        there = sorted(draw(numbers))
        shuffled = draw(st.permutations(there))
        places = draw(st.lists(st.sampled_from(there), min_size=12, max_size=12)) if there else []
        wanted = draw(st.lists(st.booleans(), min_size=12, max_size=12))
        return Layout(
            tuple(
                instance(
                    number,
                    *(address for address, place, want in zip(pool(12), places, wanted, strict=False) if want and place == number),
                )
                for number in shuffled
            )
        )

    return draw()


def instance(number: int, *addresses: Address) -> Instance:
    return Instance(number, 4, 50 + number, 100, "10.0.0.1", (), tuple(sorted(addresses, key=int)))


FEW = st.frozensets(st.sampled_from(pool(5)))


@settings(max_examples=300)
@given(st.lists(FEW, min_size=3, max_size=10), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_nodes_that_are_at_different_plans_never_hold_an_address_twice_nor_lose_one_that_stays(
    history: list[frozenset[Address]], behind: list[int]
) -> None:
    """Whoever is master of a group: so it is during each change, and while some nodes are cut off from the bus."""
    plans = [Plan()]
    for wanted in history:
        plans.append(revise(plans[-1], wanted, THREE, 3))
    running = [max(0, len(plans) - 1 - lag) for lag in behind]
    layouts = [layout(plans[at], member.name, 1, 3) for at, member in zip(running, THREE, strict=True)]
    stays = frozenset.intersection(*(frozenset(plan.groups) for plan in plans[min(running) : max(running) + 1]))
    for masters in itertools.product(range(3), repeat=3):
        holders: dict[Address, list[int]] = {}
        for node, made in enumerate(layouts):
            for one in made.instances:
                for address in one.addresses if masters[one.group] == node else ():
                    holders.setdefault(address, []).append(node)
        assert all(len(nodes) == 1 for nodes in holders.values())
        assert stays <= holders.keys()


def test_an_address_that_comes_back_has_its_old_group() -> None:
    first, second, third = pool(3)
    before = revise(Plan(), [first, second], THREE, 12)
    without = revise(before, [second], THREE, 12)
    other = revise(without, [second, third], THREE, 12)
    assert revise(other, [first, second, third], THREE, 12).groups[first] == before.groups[first]
    assert first not in revise(other, [first, second, third], THREE, 12).former


def test_what_is_remembered_of_addresses_that_are_gone_is_bounded() -> None:
    plan = revise(Plan(), pool(1500), THREE, 12)
    emptied = revise(plan, [], THREE, 12)
    assert len(emptied.former) == 1000
    assert set(pool(1500)[500:]) == set(emptied.former)


FIXED = st.just(frozenset(range(4)))


@given(layouts_of(FIXED), st.lists(layouts_of(FIXED), max_size=5))
def test_an_address_that_stays_wanted_is_held_by_exactly_one_instance_at_every_step(first: Layout, later: list[Layout]) -> None:
    running, held = first, dict(first.holders)
    for wanted in later:
        stays = running.holders.keys() & wanted.holders.keys()
        for step in steps(running, wanted):
            listed = [address for one in step.instances for address in one.addresses]
            assert len(listed) == len(set(listed))
            held = dict(reloaded(held, running, step))
            assert stays <= held.keys()
            assert all(held[address] == step.holders[address] for address in step.holders)
            assert held.keys() == step.holders.keys()
            running = step
        assert running == wanted


@given(layouts_of(st.frozensets(st.integers(0, 4), min_size=1)), layouts_of(st.frozensets(st.integers(0, 4), min_size=1)))
def test_instances_that_come_and_go_take_nothing_from_those_that_stay(running: Layout, wanted: Layout) -> None:
    names = {one.name for one in running.instances}
    held = dict(running.holders)
    for step in steps(running, wanted):
        held = dict(reloaded(held, running, step))
        running = step
    assert running == wanted
    assert {address: name for address, name in wanted.holders.items() if name in names}.items() <= held.items()


def test_a_move_to_an_instance_further_up_takes_two_reloads() -> None:
    first, second = pool(2)
    running = Layout((instance(1, first), instance(2, second)))
    wanted = Layout((instance(1, first, second), instance(2)))
    assert len(steps(running, wanted)) == 2
    assert second not in reloaded(running.holders, running, wanted)
    assert len(steps(wanted, running)) == 1
    assert steps(wanted, wanted) == ()
