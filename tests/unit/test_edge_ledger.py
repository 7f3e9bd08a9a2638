"""Which version nginx holds, and how long it took."""

import datetime as dt

from common.contracts.objects import EndpointSlice, Ingress
from common.contracts.refs import ObjectRef
from common.replica import Sighting
from nginx_config_renderer.ledger import Ledger

SHOP = ObjectRef(Ingress.resource, "shop", "web")
SLICE = ObjectRef(EndpointSlice.resource, "shop", "web-1")
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC).timestamp()


def seen(version: str, second: float = 0, ref: ObjectRef = SHOP) -> Sighting:
    stamp = dt.datetime.fromtimestamp(NOON + second, dt.UTC).isoformat(timespec="milliseconds")
    return Sighting(ref, version, stamp.replace("+00:00", "Z"))


def pushed(ledger: Ledger, second: float) -> list[float]:
    ledger.begin()
    return [round(seconds, 3) for _, seconds in ledger.end(NOON + second)]


def test_a_version_is_held_from_the_end_of_the_push_that_took_it() -> None:
    ledger = Ledger()
    ledger.note([seen("1")], live=True)
    assert (ledger.held(SHOP), ledger.newest(SHOP), ledger.waiting) == ("", "1", True)
    ledger.begin()
    ledger.note([seen("2", 1)], live=True)
    assert [took for _, took in ledger.end(NOON + 0.25)] == [0.25]
    assert (ledger.held(SHOP), ledger.newest(SHOP), ledger.waiting) == ("1", "2", True)
    assert pushed(ledger, 1.5) == [0.5]
    assert (ledger.held(SHOP), ledger.waiting) == ("2", False)


def test_a_version_that_was_overtaken_is_not_counted() -> None:
    ledger = Ledger()
    ledger.note([seen("1"), seen("2", 1)], live=True)
    assert pushed(ledger, 2) == [1]


def test_a_push_that_failed_is_made_good_by_the_next() -> None:
    ledger = Ledger()
    ledger.note([seen("1")], live=True)
    ledger.begin()
    assert ledger.waiting
    ledger.note([seen("7", 1, SLICE)], live=True)
    assert sorted(pushed(ledger, 3)) == [2, 3]
    assert ledger.held(SHOP) == "1"


def test_what_stood_on_the_bus_before_is_held_and_not_counted() -> None:
    ledger = Ledger()
    ledger.note([seen("1")], live=False)
    assert pushed(ledger, 1000) == []
    assert ledger.held(SHOP) == "1"


def test_what_is_gone_is_forgotten_and_counted() -> None:
    ledger = Ledger()
    ledger.note([seen("1")], live=False)
    pushed(ledger, 0)
    ledger.note([seen("", 1)], live=True)
    assert ledger.held(SHOP) == "1"
    assert pushed(ledger, 2) == [1]
    assert (ledger.held(SHOP), ledger.newest(SHOP)) == ("", "")


def test_clocks_that_disagree_give_no_negative_times_and_bad_ones_none() -> None:
    ledger = Ledger()
    ledger.note([seen("1", 5)], live=True)
    assert pushed(ledger, 0) == [0]
    ledger.note([Sighting(SHOP, "2", "yesterday")], live=True)
    assert pushed(ledger, 0) == []
