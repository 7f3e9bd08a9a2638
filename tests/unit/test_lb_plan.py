"""Plans: whatever HAProxy holds, and whatever it should hold, one round of commands leads there, and nobody is without an answer meanwhile.

The commands are obeyed by `Held`, which tests/lb/test_rules.py holds against the real HAProxy.
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haproxy_lb.desire import Desired, Desires, held_by, service_of
from haproxy_lb.frame import INSIDE
from haproxy_lb.model import Backend, BackendKey, Check, Endpoint, Frontend, FrontKey, Timeouts, Treatment, Wanted
from haproxy_lb.plan import Plan, plan
from haproxy_lb.rules import FRONTS, PLAIN, TABLES, AddServer, Admin, Command, DeleteServer, Held
from haproxy_lb.slots import Kind, Slot, allot, fitting, kind_of, layout_of, parse

PORT = 14480
LAYOUT = {Kind(): 4, Kind("leastconn"): 4}
HOSTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"]
KEYS = [BackendKey("shop", name, port) for name in ("web", "api") for port in (80, 443)]

ENDPOINTS = st.lists(
    st.builds(Endpoint, st.sampled_from(HOSTS), st.just(8080), draining=st.booleans(), backup=st.booleans()),
    max_size=4,
    unique_by=lambda one: one.address,
)
TREATMENTS = st.builds(
    Treatment,
    balance=st.sampled_from(["roundrobin", "leastconn"]),
    check=st.builds(Check, enabled=st.booleans(), rise=st.integers(1, 2)),
    send_proxy=st.sampled_from(["", "v1"]),
    rate=st.sampled_from([0, 5]),
    accept_proxy=st.sampled_from([(), ("10.0.0.0/8",)]),
)


@st.composite
def wishes(draw: st.DrawFn) -> Wanted:
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    backends = {key: Backend(key, tuple(sorted(draw(ENDPOINTS))), draw(TREATMENTS)) for key in keys}
    fronts = {}
    for address in ("192.0.2.1", "2001:db8::1"):
        for key in keys:
            if draw(st.booleans()):
                front = FrontKey(address, key.port)
                fronts[front] = Frontend(front, key, draw(st.sampled_from([(), ("10.0.0.0/7", "fd00::/8")])))
    return Wanted(fronts, backends)


class Proxy:
    """A HAProxy of the model, and who drives it."""

    def __init__(self) -> None:
        self.held = Held(slots={kind.slot(number): {} for kind, count in LAYOUT.items() for number in range(count)})
        self.desires = Desires(INSIDE, PORT)
        self.slots: dict[BackendKey, Slot] = {}

    def desired(self, wanted: Wanted) -> Desired:
        kinds = {key: kind_of(backend.treatment) for key, backend in wanted.backends.items()}
        taken = {slot for slot, servers in self.held.slots.items() if servers} | set(held_by(self.held.tables[FRONTS]).values())
        self.slots = dict(allot(kinds, self.slots, taken, LAYOUT).slots)
        return self.desires.of(wanted, self.slots)

    def obey(self, command: Command) -> None:
        assert self.held.obey(command) is None, command

    def answering(self, fronts: frozenset[str]) -> frozenset[str]:
        """Of these fronts, those that lead to a server that gets connections."""
        return frozenset(front for front in fronts if self._answers(front))

    def _answers(self, front: str) -> bool:
        slot = self.held.tables[PLAIN].get(front) or self.held.tables[FRONTS].get(front, "").split("|", 1)[0]
        servers = self.held.slots.get(Slot(slot), {})
        return any(one.admin is Admin.READY and one.up for one in servers.values())

    def happen(self, data: st.DataObject) -> None:
        """What HAProxy and the world do by themselves: checks pass and fail, connections end, so servers can be deleted."""
        for slot, servers in self.held.slots.items():
            for name, server in list(servers.items()):
                if server.admin is Admin.MAINT:
                    if data.draw(st.booleans()):
                        self.obey(DeleteServer(slot, name))
                elif server.checking:
                    well = data.draw(st.booleans())
                    servers[name] = replace(server, up=well, proven=well)


@settings(max_examples=150)
@given(st.data(), st.lists(wishes(), min_size=1, max_size=5))
def test_one_round_leads_from_anything_to_what_should_be(data: st.DataObject, history: list[Wanted]) -> None:
    proxy = Proxy()
    for wanted in history:
        desired = proxy.desired(wanted)
        made = plan(proxy.held, desired)
        could = frozenset(
            front
            for front in desired.tables[FRONTS]
            if _stays(proxy.held, desired, front) and _can_answer(proxy.held, desired, front)
        )
        answered = proxy.answering(could)
        for number, command in enumerate((*made.first, *made.last), 1):
            proxy.obey(command)
            assert answered <= proxy.answering(could), f"nobody answers after {command}"
            if number >= len(made.first):
                _rules_hold(proxy.held, desired)
        _holds(proxy.held, desired)
        again = plan(proxy.held, desired)
        assert (again.first, again.last) == ((), ())
        assert again.waiting <= made.waiting
        _is_deleted_later(proxy.held, desired, again)
        proxy.happen(data)


def _stays(held: Held, desired: Desired, front: str) -> bool:
    """Whether it leads to the same Service before and after: another one may be unwell."""
    before, after = (table.get(front, "").split("|")[1:2] for table in (held.tables[FRONTS], desired.tables[FRONTS]))
    return before == after


def _can_answer(held: Held, desired: Desired, front: str) -> bool:
    """Whether it has a server that shall get connections, and of which it is not known already that it is unwell."""
    slot = Slot(desired.tables[FRONTS][front].split("|", 1)[0])
    unwell = {name for name, server in held.slots.get(slot, {}).items() if server.checking and not server.up}
    return any(not spec.draining and name not in unwell for name, spec in desired.slots[slot].items())


def _rules_hold(held: Held, desired: Desired) -> None:
    """No front that has rules is plain, whatever becomes of the kernel next."""
    assert not held.tables[PLAIN].keys() & (desired.tables[FRONTS].keys() - desired.tables[PLAIN].keys())


def _holds(held: Held, desired: Desired) -> None:
    assert dict(held.tables) == dict(desired.tables)
    for slot, servers in held.slots.items():
        specs = desired.slots.get(slot, {})
        serving = {name for name, spec in specs.items() if not spec.draining}
        assert serving <= servers.keys()
        assert {name for name, one in servers.items() if one.admin is not Admin.MAINT} == serving
        assert len({one.number for one in servers.values()}) == len(servers)
        unchecked = {name for name in serving if not specs[name].checked}
        assert all(servers[name].admin is Admin.READY for name in unchecked)
        assert all(servers[name].checking for name in serving - unchecked)
        assert not serving or any(servers[name].admin is Admin.READY for name in serving), "one at least gets connections"


def _is_deleted_later(held: Held, desired: Desired, made: Plan) -> None:
    there = {(slot, name) for slot, servers in held.slots.items() for name in servers}
    should = {(slot, name) for slot, specs in desired.slots.items() for name in specs}
    assert made.gone == there - should
    assert made.gone <= made.leaving


def test_a_front_is_plain_if_nothing_is_asked_of_its_connections() -> None:
    key, four, six = KEYS[0], FrontKey("192.0.2.1", 80), FrontKey("2001:db8::1", 80)
    slot = Kind().slot(0)

    def plain(treatment: Treatment, sources: tuple[str, ...] = ()) -> int:
        wanted = Wanted({one: Frontend(one, key, sources) for one in (four, six)}, {key: Backend(key, (), treatment)})
        return len(Desires(INSIDE, PORT).of(wanted, {key: slot}).tables[PLAIN])

    assert plain(Treatment()) == plain(Treatment(balance="source", timeouts=Timeouts(connect=1))) == 2
    assert plain(Treatment(send_proxy="v2")) == 1, "an endpoint is told where an IPv6 client went"
    for asked in (Treatment(rate=1), Treatment(max_connections=1), Treatment(accept_proxy=("10.0.0.0/8",)), Treatment(affinity=60)):
        assert plain(asked) == 0
    assert plain(Treatment(), ("10.0.0.0/8",)) == 0


def test_a_haproxy_that_lacks_a_table_is_told_all_the_rest() -> None:
    key, front = KEYS[0], FrontKey("192.0.2.1", 80)
    wanted = Wanted({front: Frontend(front, key)}, {key: Backend(key, (Endpoint(HOSTS[0], 80),))})
    desired = Desires(INSIDE, PORT).of(wanted, {key: Kind().slot(0)})
    held = Held({name: {} for name in TABLES if name != PLAIN}, {Kind().slot(0): {}})
    made = plan(held, desired)
    assert [held.obey(command) for command in (*made.first, *made.last)] == [None] * len(made.first)
    assert held.tables[FRONTS] == desired.tables[FRONTS]
    assert PLAIN not in held.tables


@settings(max_examples=100)
@given(wishes(), wishes())
def test_a_change_of_one_backend_gives_no_command_to_another(before: Wanted, after: Wanted) -> None:
    same = Wanted(before.frontends, {**before.backends, **{k: after.backends[k] for k in before.backends if k in after.backends}})
    proxy = Proxy()
    for command in (made := plan(proxy.held, proxy.desired(before))).first + made.last:
        proxy.obey(command)
    changed = {key for key in before.backends if before.backends[key] != same.backends[key]}
    slots_before = dict(proxy.slots)
    made = plan(proxy.held, proxy.desired(same))
    touched = {command.slot for command in (*made.first, *made.last) if hasattr(command, "slot")}
    assert touched <= {proxy.slots[key] for key in changed} | {slots_before[key] for key in changed}


def test_a_new_server_is_looked_at_before_it_gets_connections_unless_it_is_the_only_one() -> None:
    proxy = Proxy()
    key = KEYS[0]
    one, two = Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)
    for command in plan(proxy.held, proxy.desired(Wanted({}, {key: Backend(key, (one,))}))).first:
        proxy.obey(command)
    assert [server.admin for server in proxy.held.slots[proxy.slots[key]].values()] == [Admin.READY]
    wanted = Wanted({}, {key: Backend(key, (one, two))})
    made = plan(proxy.held, proxy.desired(wanted))
    for command in made.first:
        proxy.obey(command)
    servers = proxy.held.slots[proxy.slots[key]]
    (new,) = [name for name in servers if "10.0.0.2" in name]
    assert servers[new].admin is Admin.DRAIN
    assert made.waiting == {proxy.slots[key]}
    servers[new] = replace(servers[new], proven=True)
    for command in (made := plan(proxy.held, proxy.desired(wanted))).first:
        proxy.obey(command)
    assert servers[new].admin is Admin.READY
    assert not plan(proxy.held, proxy.desired(wanted)).waiting


def test_a_server_has_the_same_number_on_every_node_and_no_other_has_it_there() -> None:
    key = KEYS[0]
    endpoints = tuple(Endpoint(f"10.0.{n // 250}.{n % 250}", 8080) for n in range(1500))
    proxies = (Proxy(), Proxy())
    commands = [plan(proxy.held, proxy.desired(Wanted({}, {key: Backend(key, endpoints)}))).first for proxy in proxies]
    assert commands[0] == commands[1]
    numbers = [command.number for command in commands[0] if isinstance(command, AddServer)]
    assert len(set(numbers)) == 1500


@given(st.lists(st.tuples(st.sampled_from(KEYS), TREATMENTS), unique_by=lambda one: one[0]), st.integers(0, 4))
def test_ports_never_share_a_slot_and_keep_theirs_after_a_restart(ports: list[tuple[BackendKey, Treatment]], room: int) -> None:
    kinds = {key: kind_of(treatment) for key, treatment in ports}
    layout = {Kind(): room, Kind("leastconn"): room}
    given_first = allot(kinds, {}, (), layout)
    assert len(set(given_first.slots.values())) == len(given_first.slots)
    slots = {key: parse(slot) for key, slot in given_first.slots.items()}
    assert {key: slot[0] for key, slot in slots.items() if slot is not None} == {key: kinds[key] for key in slots}
    fronts = {f"192.0.2.1:{n}": f"{slot}|{service_of(key)}|none|0|0|-" for n, (key, slot) in enumerate(given_first.slots.items())}
    told = held_by(fronts)
    known = {key: told[service_of(key)] for key in given_first.slots}
    assert allot(kinds, known, given_first.slots.values(), layout).slots == given_first.slots
    grown = fitting(layout, layout, given_first.needed)
    assert set(allot(kinds, given_first.slots, (), grown).slots) == set(kinds), "after it has grown everybody has one"


@given(
    st.builds(
        Treatment,
        balance=st.sampled_from(["roundrobin", "leastconn", "source", "\n"]),
        affinity=st.integers(-1, 10**6),
        check=st.builds(Check, http_path=st.sampled_from(["", "/well", "bad path"]), enabled=st.booleans()),
        timeouts=st.builds(Timeouts, *[st.sampled_from([0.0, 0.0001, 5.0, 10.0**9])] * 4),
    )
)
def test_the_name_of_a_slot_says_all_of_its_kind(treatment: Treatment) -> None:
    kind = kind_of(treatment)
    assert parse(kind.slot(7)) == (kind, 7)
    assert layout_of([kind.slot(7), "rates", "services"]) == {kind: 8}


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        (Timeouts(), 3600),
        (Timeouts(client=30), 30),
        (Timeouts(server=20, client=30), 20),
        (Timeouts(server=20, client=30, tunnel=7200), 7200),
    ],
)
def test_the_shorter_silence_ends_a_connection_unless_one_is_named_for_both(given: Timeouts, idle: float) -> None:
    assert given.idle == idle
