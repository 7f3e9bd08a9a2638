"""Alarms: each change is told once, and what a former process left firing ends when it is seen to be over, and not before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alarms import Alarm, Alarms
from common.contracts.facts import Alert

BAD = Alarm("warning", "it is bad")
WORSE = Alarm("critical", "it is worse")
THEN, NOW = "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"


def alarms() -> Alarms:
    return Alarms("edge", "one")


def left(*names: str, instance: str = "one") -> tuple[Alert, ...]:
    """What a former process left firing."""
    former = Alarms("edge", instance)
    for name in names:
        former.give(name, BAD, THEN)
    return former.firing


def told(alerts: tuple[Alert, ...]) -> list[tuple[str, str]]:
    return [(alert.name, alert.status) for alert in alerts]


def test_an_alert_is_told_when_it_begins_when_it_changes_and_when_it_is_over() -> None:
    ours = alarms()
    assert told(ours.give("Down", None, NOW)) == []
    assert told(ours.give("Down", BAD, THEN)) == [("Down", "firing")]
    assert ours.give("Down", BAD, NOW) == ()
    (worse,) = ours.give("Down", WORSE, NOW)
    assert (worse.severity, worse.since) == ("critical", THEN), "it began with the first one"
    assert told(ours.give("Down", None, NOW)) == [("Down", "resolved")]
    assert ours.firing == ()


def test_of_a_family_what_is_not_given_any_more_is_over_and_what_is_unknown_goes_on() -> None:
    ours = alarms()
    ours.give("Expiry", BAD, NOW)
    ours.give_all("Expired", {"a": BAD, "b": BAD, "c": BAD}, (), NOW)
    assert told(ours.give_all("Expired", {"b": BAD, "d": BAD}, {"c"}, NOW)) == [("Expired-a", "resolved"), ("Expired-d", "firing")]
    assert [alert.name for alert in ours.firing] == ["Expired-b", "Expired-c", "Expired-d", "Expiry"]


def test_what_was_left_firing_ends_with_the_first_look_that_finds_it_over() -> None:
    ours = alarms()
    assert ours.remember(left("Down", "Expiry-a", "Expiry-b")) == ()
    assert told(ours.give("Down", None, NOW)) == [("Down", "resolved")]
    assert told(ours.give_all("Expiry", {"b": BAD}, (), NOW)) == [("Expiry-a", "resolved")]


def test_what_goes_on_is_not_told_again_and_keeps_the_time_since_when() -> None:
    ours = alarms()
    ours.remember(left("Expiry-a"))
    assert ours.give_all("Expiry", {"a": BAD}, (), NOW) == ()
    assert [alert.since for alert in ours.firing] == [THEN]


def test_what_was_looked_at_before_it_was_remembered_ends_at_once() -> None:
    ours = alarms()
    ours.give("Down", None, NOW)
    ours.give("Slow", WORSE, NOW)
    ours.give_all("Expiry", {"a": BAD}, {"b"}, NOW)
    over = ours.remember(left("Down", "Slow", "Expiry-a", "Expiry-b", "Expiry-c", "Later"))
    assert told(over) == [("Down", "resolved"), ("Expiry-c", "resolved")]
    assert [alert.name for alert in ours.firing] == ["Expiry-a", "Expiry-b", "Later", "Slow"]
    assert [alert.severity for alert in ours.firing if alert.name == "Slow"] == ["critical"]


def test_what_is_of_another_instance_is_not_ours_to_end() -> None:
    ours = alarms()
    assert ours.remember(left("Down", instance="two")) == ()
    assert ours.give("Down", None, NOW) == ()


NAMES = ("Down", "Slow", "Expiry-a", "Expiry-b", "Expiry-c")


@given(
    before=st.sets(st.sampled_from(NAMES)),
    now=st.sets(st.sampled_from(NAMES)),
    looks=st.permutations(["remember", "Down", "Slow", "Expiry"]),
)
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_listener_ends_up_with_what_is_so_in_whatever_order_it_was_found_out(
    before: set[str], now: set[str], looks: list[str], rounds: int
) -> None:
    ours = alarms()
    heard = set(before)
    for look in [*looks, *(look for look in looks * (rounds - 1) if look != "remember")]:
        if look == "remember":
            said = ours.remember(left(*sorted(before)))
        elif look == "Expiry":
            family = {name.partition("-")[2]: BAD for name in now if name.startswith("Expiry-")}
            said = ours.give_all("Expiry", family, (), NOW)
        else:
            said = ours.give(look, BAD if look in now else None, NOW)
        for alert in said:
            (heard.add if alert.status == "firing" else heard.discard)(alert.name)
    assert heard == now == {alert.name for alert in ours.firing}
