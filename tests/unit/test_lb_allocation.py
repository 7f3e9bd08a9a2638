"""Allocation: who gets which address, who keeps it, and what is said to those who get none."""

import ipaddress
import time
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts.ip import Address
from common.pools import Pool, Pools, Range
from haproxy_lb.allocation import Allocation, allocate
from haproxy_lb.book import Granted, Reservation
from haproxy_lb.claims import Claim, Port, ServiceName, Shown

NOW = 1_000_000
HTTP = Port("TCP", 80)
HTTPS = Port("TCP", 443)
DNS = Port("UDP", 53)


def ip(text: str) -> Address:
    return ipaddress.ip_address(text)


def span(first: str, last: str) -> Range:
    low, high = ip(first), ip(last)
    return Range(low.version, int(low), int(high))


def pool(name: str, *ranges: Range, priority: int = 100, quarantine: float = 300.0, **more: Any) -> Pool:
    return replace(Pool(name, tuple(sorted(ranges)), priority=priority, quarantine=quarantine), **more)


def pools(*given: Pool) -> Pools:
    return Pools(tuple(sorted(given, key=lambda one: (one.priority, one.name))))


def claim(name: str, *ports: Port, created: str = "2026-01-01T00:00:00Z", families: tuple[int, ...] = (4,), **more: Any) -> Claim:
    namespace, _, last = name.rpartition("/")
    return replace(Claim(ServiceName(namespace or "shop", last), created, families, frozenset(ports or {HTTP})), **more)


def told(allocation: Allocation) -> dict[str, str]:
    return {problem.ref.name: problem.reason for problem in allocation.problems}


def addresses(allocation: Allocation) -> dict[str, list[str]]:
    return {name.name: [str(one.address) for one in has] for name, has in allocation.assignments.items()}


def after(claims: Iterable[Claim], allocation: Allocation) -> list[Claim]:
    """The claims as they are when the status of each Service shows what it was given."""
    return [replace(one, shown=_shown(one, allocation.assignments.get(one.service, ()))) for one in claims]


def _shown(one: Claim, has: tuple[Granted, ...]) -> tuple[Shown, ...]:
    return tuple(Shown(granted.address, one.ports - {port for port, _ in granted.refused}) for granted in has)


SMALL = pools(pool("a", span("10.0.0.1", "10.0.0.2")))
BOTH = pools(pool("a", span("10.0.0.1", "10.0.0.9"), span("fd00::1", "fd00::9")))


def test_the_older_service_gets_the_first_address() -> None:
    young, old = claim("young", created="2026-02-01T00:00:00Z"), claim("old")
    assert addresses(allocate([young, old], SMALL, (), NOW)) == {"old": ["10.0.0.1"], "young": ["10.0.0.2"]}


def test_a_pool_that_is_exhausted_is_told_and_the_others_keep_theirs() -> None:
    first = allocate([claim("a"), claim("b")], SMALL, (), NOW)
    claims = [*after([claim("a"), claim("b")], first), claim("c", created="2025-01-01T00:00:00Z")]
    second = allocate(claims, SMALL, first.reservations, NOW)
    assert addresses(second) == {**addresses(first), "c": []}
    assert told(second) == {"c": "PoolExhausted"}


def test_pools_are_asked_by_priority_and_only_where_they_permit() -> None:
    three = pools(
        pool("last", span("10.3.0.1", "10.3.0.9"), priority=200),
        pool("hand", span("10.2.0.1", "10.2.0.9"), priority=1, auto_assign=False),
        pool("team", span("10.1.0.1", "10.1.0.9"), priority=2, namespaces=frozenset({"team"})),
    )
    given = allocate([claim("team/a"), claim("shop/b"), claim("shop/c", pool="hand"), claim("shop/d", pool="team")], three, (), NOW)
    assert addresses(given) == {"a": ["10.1.0.1"], "b": ["10.3.0.1"], "c": ["10.2.0.1"], "d": []}
    assert told(given) == {"d": "NoPool"}


def test_a_requested_address_is_given_and_never_taken_from_another() -> None:
    holder = claim("holder")
    first = allocate([holder], SMALL, (), NOW)
    asks = claim("asks", created="2020-01-01T00:00:00Z", requested=(ip("10.0.0.1"),))
    other = claim("other", requested=(ip("10.0.0.2"),))
    lost = claim("lost", requested=(ip("192.0.2.1"),))
    second = allocate([*after([holder], first), asks, other, lost], SMALL, first.reservations, NOW)
    assert addresses(second) == {"holder": ["10.0.0.1"], "asks": [], "other": ["10.0.0.2"], "lost": []}
    assert told(second) == {"asks": "AddressConflict", "lost": "AddressNotInPools"}


def test_a_service_that_asks_for_another_address_keeps_its_own_until_it_can_have_that() -> None:
    both = [claim("a"), claim("b", created="2027")]
    first = allocate(both, pools(pool("p", span("10.0.0.1", "10.0.0.5"))), (), NOW)
    a, b = after(both, first)
    wants_taken = replace(a, requested=(ip("10.0.0.2"),))
    wants_free = replace(b, requested=(ip("10.0.0.5"),))
    second = allocate([wants_taken, wants_free], pools(pool("p", span("10.0.0.1", "10.0.0.5"))), first.reservations, NOW)
    assert addresses(second) == {"a": ["10.0.0.1"], "b": ["10.0.0.5"]}
    assert told(second) == {"a": "AddressConflict"}


def test_services_share_an_address_by_key_with_disjoint_ports_in_one_namespace() -> None:
    web = claim("web", HTTP, sharing="k")
    tls = claim("tls", HTTPS, sharing="k", created="2027")
    dns = claim("dns", DNS, Port("TCP", 53), sharing="k", created="2028")
    clash = claim("clash", HTTP, sharing="k", created="2029")
    stranger = claim("else/stranger", Port("TCP", 22), sharing="k", created="2030")
    wide = pools(pool("p", span("10.0.0.1", "10.0.0.9")))
    given = allocate([web, tls, dns, clash, stranger], wide, (), NOW)
    assert addresses(given) == {
        "web": ["10.0.0.1"],
        "tls": ["10.0.0.1"],
        "dns": ["10.0.0.1"],
        "clash": ["10.0.0.2"],
        "stranger": ["10.0.0.3"],
    }
    cluster = pools(pool("p", span("10.0.0.1", "10.0.0.9"), sharing="cluster"))
    assert addresses(allocate([web, stranger], cluster, (), NOW))["stranger"] == ["10.0.0.1"]


def test_a_port_that_is_added_to_a_shared_address_is_refused_if_another_has_it() -> None:
    web = claim("web", HTTP, sharing="k")
    tls = claim("tls", HTTPS, sharing="k", created="2027")
    first = allocate([web, tls], SMALL, (), NOW)
    web, tls = after([web, tls], first)
    second = allocate([replace(web, ports=frozenset({HTTP, HTTPS})), tls], SMALL, first.reservations, NOW)
    assert addresses(second) == {"web": ["10.0.0.1"], "tls": ["10.0.0.1"]}
    assert second.assignments[web.service][0].refused == ((HTTPS, tls.service),)
    assert second.assignments[tls.service][0].refused == ()
    assert told(second) == {"web": "AddressConflict"}


def test_who_stops_sharing_moves_and_the_others_stay() -> None:
    web = claim("web", HTTP, sharing="k")
    tls = claim("tls", HTTPS, sharing="k", created="2027")
    first = allocate([web, tls], SMALL, (), NOW)
    web, tls = after([web, tls], first)
    second = allocate([replace(web, sharing=""), tls], SMALL, first.reservations, NOW)
    assert addresses(second) == {"web": ["10.0.0.2"], "tls": ["10.0.0.1"]}


@pytest.mark.parametrize(
    ("families", "strict", "ranges", "expected", "reason"),
    [
        ((4, 6), False, "both", ["10.0.0.1", "fd00::1"], None),
        ((6, 4), False, "both", ["fd00::1", "10.0.0.1"], None),
        ((6,), False, "both", ["fd00::1"], None),
        ((4, 6), False, "four", ["10.0.0.1"], None),
        ((4, 6), True, "four", [], "NoPool"),
        ((6, 4), False, "four", ["10.0.0.1"], "NoPool"),
    ],
)
def test_both_families_are_given_as_the_policy_asks(
    families: tuple[int, ...], strict: bool, ranges: str, expected: list[str], reason: str | None
) -> None:
    there = BOTH if ranges == "both" else SMALL
    given = allocate([claim("a", families=families, all_or_none=strict)], there, (), NOW)
    assert addresses(given) == {"a": expected}
    assert told(given) == ({"a": reason} if reason else {})


def test_an_address_waits_for_its_service_during_the_quarantine_and_for_nobody_after_it() -> None:
    one = pools(pool("p", span("10.0.0.1", "10.0.0.1"), quarantine=300))
    first = allocate([claim("web")], one, (), NOW)
    gone = allocate([], one, first.reservations, NOW + 10)
    assert gone.again == NOW + 310
    other = allocate([claim("other")], one, gone.reservations, NOW + 100)
    assert addresses(other) == {"other": []}
    asks = allocate([claim("other", requested=(ip("10.0.0.1"),))], one, gone.reservations, NOW + 100)
    assert "kept for shop/web" in asks.problems[0].message
    back = allocate([claim("other"), claim("web", created="2027")], one, other.reservations, NOW + 200)
    assert addresses(back) == {"other": [], "web": ["10.0.0.1"]}
    late = allocate([claim("other")], one, other.reservations, NOW + 310)
    assert addresses(late) == {"other": ["10.0.0.1"]}
    assert late.again is None


def test_a_status_that_was_lost_costs_nobody_his_address() -> None:
    both = [claim("a"), claim("b", created="2027")]
    first = allocate(both, SMALL, (), NOW)
    again = allocate([replace(both[0], created="2028"), both[1]], SMALL, first.reservations, NOW)
    assert addresses(again) == addresses(first)


def test_reservations_that_were_lost_are_learnt_from_what_is_shown() -> None:
    both = [claim("a"), claim("b", created="2027")]
    wide = pools(pool("p", span("10.0.0.1", "10.0.0.9")))
    shown = [replace(both[0], shown=(Shown(ip("10.0.0.7"), both[0].ports),)), both[1]]
    given = allocate(shown, wide, (), NOW)
    assert addresses(given) == {"a": ["10.0.0.7"], "b": ["10.0.0.1"]}
    assert {(str(one.address), one.service.name) for one in given.reservations} == {("10.0.0.7", "a"), ("10.0.0.1", "b")}


def test_of_two_that_show_one_address_who_is_recorded_has_it() -> None:
    thief = claim("thief", created="2020", shown=(Shown(ip("10.0.0.1"), frozenset({HTTP})),))
    owner = claim("owner", shown=(Shown(ip("10.0.0.1"), frozenset({HTTP})),))
    given = allocate([thief, owner], SMALL, [Reservation(ip("10.0.0.1"), owner.service)], NOW)
    assert addresses(given) == {"thief": ["10.0.0.2"], "owner": ["10.0.0.1"]}


def test_without_pools_everybody_keeps_what_he_has_and_nobody_gets_more() -> None:
    first = allocate([claim("a")], SMALL, (), NOW)
    given = allocate([*after([claim("a")], first), claim("b")], None, first.reservations, NOW)
    assert addresses(given) == {"a": ["10.0.0.1"], "b": []}
    assert told(given) == {"b": "NoPools"}
    assert given.again is None


def test_an_address_that_no_pool_holds_any_more_is_replaced() -> None:
    first = allocate([claim("a")], SMALL, (), NOW)
    moved = pools(pool("new", span("10.9.0.1", "10.9.0.9")))
    assert addresses(allocate(after([claim("a")], first), moved, first.reservations, NOW)) == {"a": ["10.9.0.1"]}


def test_addresses_of_nodes_are_given_to_nobody() -> None:
    given = allocate([claim("a"), claim("b", requested=(ip("10.0.0.1"),))], SMALL, (), NOW, {ip("10.0.0.1")})
    assert addresses(given) == {"a": ["10.0.0.2"], "b": []}


def test_a_large_pool_costs_what_is_used_of_it() -> None:
    """A thousand Services in a /8 whose first sixty thousand addresses are used; each search alone would take a second."""
    huge = pools(pool("v4", span("10.0.0.0", "10.255.255.255")), pool("v6", span("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff")))
    start = int(ip("10.0.0.0"))
    recorded = [Reservation(ipaddress.IPv4Address(start + n), ServiceName("old", f"s{n}")) for n in range(60_000)]
    claims = [claim(f"new/s{n:04}", families=(4, 6)) for n in range(1000)]
    began = time.process_time()
    given = allocate(claims, huge, recorded, NOW)
    taken = time.process_time() - began
    assert str(given.assignments[ServiceName("new", "s0000")][0].address) == "10.0.234.96"
    assert str(given.assignments[ServiceName("new", "s0000")][1].address) == "2001:db8::1", "routers answer to the first one"
    small = pools(pool("v4", span("10.0.0.0", "10.1.255.255")), pool("v6", span("2001:db8::", "2001:db8::ffff")))
    began = time.process_time()
    allocate(claims, small, recorded, NOW)
    assert taken < 5 * (time.process_time() - began), "the size of the pool does not matter"


NAMES = [ServiceName("n", f"s{n}") for n in range(6)]
WORLD = pools(
    pool("a", span("10.0.0.1", "10.0.0.3"), span("fd00::1", "fd00::2"), quarantine=50),
    pool("b", span("10.1.0.1", "10.1.0.2"), priority=200, quarantine=20, sharing="cluster"),
)
SOME_ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1", "192.0.2.1"]


@st.composite
def some_claim(draw: st.DrawFn, service: ServiceName) -> Claim:
    families = draw(st.sampled_from([(4,), (6,), (4, 6), (6, 4)]))
    requested = draw(st.lists(st.sampled_from(SOME_ADDRESSES), max_size=2, unique_by=lambda text: ip(text).version))
    return Claim(
        service,
        draw(st.sampled_from(["2025", "2026", "2027"])),
        families,
        draw(st.frozensets(st.sampled_from([HTTP, HTTPS, DNS]), min_size=1)),
        all_or_none=len(families) == 2 and draw(st.booleans()),
        requested=tuple(one for one in map(ip, requested) if one.version in families) if draw(st.booleans()) else (),
        pool=draw(st.sampled_from(["", "", "", "a", "b"])),
        sharing=draw(st.sampled_from(["", "k", "k", "l"])),
    )


@st.composite
def history(draw: st.DrawFn) -> list[tuple[int, dict[ServiceName, Claim | None], bool]]:
    """Steps: how many seconds pass, which claims are new or gone, and whether the status of all Services is seen."""
    steps = []
    for _ in range(draw(st.integers(1, 7))):
        names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
        changes = {name: draw(st.none() | some_claim(name)) for name in names}
        steps.append((draw(st.integers(0, 40)), changes, draw(st.booleans())))
    return steps


def check(claims: dict[ServiceName, Claim], given: Allocation) -> None:
    users: dict[Address, list[Claim]] = {}
    for name, has in given.assignments.items():
        assert len({granted.address.version for granted in has}) == len(has)
        for granted in has:
            assert WORLD.of(granted.address) is not None
            assert granted.address.version in claims[name].families
            users.setdefault(granted.address, []).append(claims[name])
    for address, sharers in users.items():
        served = [
            port
            for one in sharers
            for granted in given.assignments[one.service]
            if granted.address == address
            for port in one.ports - {port for port, _ in granted.refused}
        ]
        assert len(served) == len(set(served)), "a port has two owners"
        assert len(sharers) == 1 or (len({one.sharing for one in sharers}) == 1 and sharers[0].sharing)
    reserved = [(one.address, one.service) for one in given.reservations]
    assert len(reserved) == len(set(reserved))
    for name, has in given.assignments.items():
        assert all((granted.address, name) in reserved for granted in has)


@settings(max_examples=300)
@given(history(), st.randoms(use_true_random=False))
def test_nothing_is_used_twice_nothing_moves_without_cause_and_order_does_not_matter(
    steps: list[tuple[int, dict[ServiceName, Claim | None], bool]], random: Random
) -> None:
    claims: dict[ServiceName, Claim] = {}
    now, last = NOW, Allocation()
    for passed, changes, seen in steps:
        now += passed
        before, unchanged = last, set(claims) - set(changes)
        if seen:
            claims = {one.service: one for one in after(claims.values(), last)}
        for name, new in changes.items():
            if new is None:
                claims.pop(name, None)
            else:
                claims[name] = replace(new, shown=claims[name].shown if name in claims else ())
        given = allocate(claims.values(), WORLD, last.reservations, now)
        shuffled, records = list(claims.values()), list(last.reservations)
        random.shuffle(shuffled)
        random.shuffle(records)
        assert allocate(shuffled, WORLD, records, now) == given
        check(claims, given)
        for name in unchanged:
            _keeps(claims[name], before, given)
        _quarantined(before, given, now)
        settled = allocate(after(claims.values(), given), WORLD, given.reservations, now)
        assert addresses(settled) == addresses(given), "what is in force stays so"
        assert settled.reservations == given.reservations
        last = given


def _keeps(one: Claim, before: Allocation, given: Allocation) -> None:
    had = {granted.address: granted for granted in before.assignments[one.service]}
    has = {granted.address: granted for granted in given.assignments[one.service]}
    for address, granted in had.items():
        wish = one.request(address.version)
        free_to_move = (wish is not None and wish != address) or (one.pool and one.pool != granted.pool)
        if free_to_move and address not in has:
            continue  # it asks for something else, and that became possible
        assert address in has, "a Service that did not change has lost its address"
        if one.showed(address) is not None:
            lost = {port for port, _ in has[address].refused} - {port for port, _ in granted.refused}
            assert not lost, "a Service that did not change has lost a port"


def _quarantined(before: Allocation, given: Allocation, now: int) -> None:
    users = {granted.address: name for name, has in given.assignments.items() for granted in has}
    for one in before.reservations:
        pool_ = WORLD.of(one.address)
        assert pool_ is not None
        first_user = all(other.address != one.address or other.released for other in before.reservations)
        if one.released and now < one.released + pool_.quarantine and first_user and one.address in users:
            waiting = {other.service for other in before.reservations if other.address == one.address}
            assert any(granted.address == one.address for name in waiting for granted in given.assignments.get(name, ())), (
                "an address in quarantine was given to somebody else"
            )
