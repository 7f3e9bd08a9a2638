"""Doors: each slot has its own, and nobody who came for one Service is let in to another."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from tests.unit.test_lb_plan import PORT, Proxy, wishes

from haproxy_lb.desire import Desires, owned
from haproxy_lb.doors import HALL, NETWORK, door, is_door
from haproxy_lb.frame import INSIDE
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, BackendKey, Endpoint, Frontend, FrontKey, Treatment, Wanted
from haproxy_lb.plan import plan
from haproxy_lb.rules import FRONTS, Held, Listen
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
@given(wishes(), wishes())
def test_a_slot_that_becomes_anothers_is_cleared_first(before: Wanted, after: Wanted) -> None:
    proxy = Proxy()
    for wanted in (before, after):
        desired = proxy.desired(wanted)
        made = plan(proxy.held, desired)
        owners = set(map(owned, proxy.held.tables[FRONTS].values()))
        new = {slot for slot, service in map(owned, desired.tables[FRONTS].values()) if (slot, service) not in owners}
        assert made.clear == tuple(Listen(slot, on) for slot in sorted(new) for on in (False, True))
        for command in (*made.clear, *made.first, *made.last):
            proxy.obey(command)
        assert plan(proxy.held, desired).clear == ()


def test_a_door_that_is_not_there_cannot_be_cleared() -> None:
    assert Held().obey(Listen(SLOT, on=True)) is not None
