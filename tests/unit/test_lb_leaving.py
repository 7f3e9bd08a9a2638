"""Leaving: a server is deleted when its connections are over, and they are cut off when their time is."""

from haproxy_lb.leaving import Leaving
from haproxy_lb.rules import DeleteServer, EndSessions
from haproxy_lb.slots import Slot

SLOT = Slot("roundrobin-0")
ONE, TWO = (SLOT, "one"), (SLOT, "two")


def commands(leaving: Leaving, now: float) -> list[EndSessions | DeleteServer]:
    return [command for asked in leaving.due(now) for command in asked.commands]


def test_who_is_gone_is_asked_for_after_a_while_and_less_and_less_often_until_it_is_deleted() -> None:
    leaving = Leaving(linger=5, deadline=100)
    leaving.note([SLOT], [ONE], [ONE], now=0)
    assert leaving.soonest == 5
    assert commands(leaving, 4.9) == []
    pauses, now = [], 5.0
    for _ in range(4):
        assert commands(leaving, now) == [DeleteServer(*ONE)]
        leaving.asked(ONE, now, 0.0, deleted=False)
        pauses.append(leaving.soonest - now)
        now = leaving.soonest
    assert pauses == sorted(pauses)
    leaving.asked(ONE, now, 0.0, deleted=True)
    assert not len(leaving)


def test_who_is_connected_after_the_deadline_is_cut_off_once() -> None:
    leaving = Leaving(linger=1, deadline=10)
    leaving.note([SLOT], [ONE], [ONE], now=0)
    leaving.asked(ONE, 9.9, 0.5, deleted=False)
    assert leaving.soonest == 10
    assert commands(leaving, 10) == [EndSessions(*ONE), DeleteServer(*ONE)]
    leaving.asked(ONE, 10, 0.0, deleted=False)
    assert commands(leaving, 30) == [DeleteServer(*ONE)]


def test_who_ends_and_is_still_there_is_cut_off_and_not_deleted_before_it_is_gone() -> None:
    leaving = Leaving(linger=1, deadline=10)
    leaving.note([SLOT], [ONE], [], now=0)
    assert commands(leaving, 9) == []
    assert commands(leaving, 10) == [EndSessions(*ONE)]
    leaving.asked(ONE, 10, 0.0, deleted=False)
    assert leaving.soonest == float("inf")
    leaving.note([SLOT], [ONE], [ONE], now=20)
    assert commands(leaving, 21) == [DeleteServer(*ONE)]


def test_who_comes_back_leaves_no_more_and_other_slots_are_nobody_s_business() -> None:
    leaving = Leaving(linger=1, deadline=10)
    other = (Slot("roundrobin-1"), "one")
    leaving.note([SLOT, other[0]], [ONE, TWO, other], [ONE, TWO, other], now=0)
    leaving.note([SLOT], [TWO], [TWO], now=0.5)
    assert commands(leaving, 1) == [DeleteServer(*TWO), DeleteServer(*other)]
