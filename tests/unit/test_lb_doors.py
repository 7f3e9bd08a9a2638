"""Doors: each slot has its own, and nobody who came for one Service is let in to another."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_lb_plan import PORT, Proxy, wishes

from haproxy_lb.desire import Desires, owned
from haproxy_lb.doors import HALL, NETWORK, door, is_door
from haproxy_lb.frame import INSIDE
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, BackendKey, Endpoint, Frontend, FrontKey, Treatment, Wanted
from haproxy_lb.plan import plan
from haproxy_lb.rules import FRONTS, Drop, Held, Listen
from haproxy_lb.slots import Kind, Slot

KEY = BackendKey("shop", "web", 80)
FOUR, SIX = FrontKey("192.0.2.1", 80), FrontKey("2001:db8::1", 80)
SLOT = Kind().slot(7)


def leads(treatment: Treatment = DEFAULT_TREATMENT, sources: tuple[str, ...] = (), *, doors: bool = True) -> dict[FrontKey, str]:
    fronts = {one: Frontend(one, KEY, sources) for one in (FOUR, SIX)}
    wanted = Wanted(fronts, {KEY: Backend(KEY, (Endpoint("10.0.0.1", 80),), treatment)})
    return dict(Desires(INSIDE, PORT).of(wanted, {KEY: SLOT}, doors=doors).kernel)


def test_each_slot_of_the_usual_kinds_has_a_door_of_its_own() -> None:
    kinds = [Kind(), Kind(http=True), Kind("leastconn"), Kind("source")]
    doors = [door(kind.slot(number)) for kind in kinds for number in (*range(2048), 15_999)]
    assert len(set(doors)) == len(doors)
    assert all(is_door(one) and IPv4Address(one) in NETWORK for one in doors)
    assert not is_door(HALL)
    assert [door(slot) for slot in (Kind().slot(16_000), Kind(affinity=60).slot(0), Kind(idle=7).slot(0), Slot("services"))] == [
        ""
    ] * 4


def test_a_front_leads_to_the_door_if_nothing_is_asked_there() -> None:
    plain = leads()
    assert plain[FOUR] == door(SLOT)
    assert IPv6Address(plain[SIX]) in INSIDE
    assert leads(doors=False)[FOUR] == leads(Treatment(rate=1))[FOUR] == leads(sources=("10.0.0.0/8",))[FOUR] == HALL


@settings(max_examples=150)
@given(st.lists(wishes(), min_size=2, max_size=4))
def test_a_slot_that_is_given_up_is_cleared_before_anybody_else_can_have_it(history: list[Wanted]) -> None:
    proxy = Proxy()
    for wanted in history:
        before = set(map(owned, proxy.held.tables[FRONTS].values()))
        desired = proxy.desired(wanted)
        after = set(map(owned, desired.tables[FRONTS].values()))
        made = plan(proxy.held, desired)
        assert not {slot for slot, _ in before - after} & {slot for slot, _ in after - before}
        cleared = [command for command in made.last if isinstance(command, Listen)]
        assert cleared == [Listen(slot, on) for slot in sorted({slot for slot, _ in before - after}) for on in (False, True)]
        forgotten = [number for number, command in enumerate(made.last) if isinstance(command, Drop) and command.table == FRONTS]
        assert not forgotten or not cleared or min(forgotten) > made.last.index(cleared[-1])
        for command in (*made.first, *made.last):
            proxy.obey(command)
        proxy.slots = {}  # as after a restart of ours


def test_a_door_that_is_not_there_cannot_be_cleared() -> None:
    assert Held().obey(Listen(SLOT, on=True)) is not None
