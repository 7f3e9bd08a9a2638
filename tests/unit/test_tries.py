"""Tries: the wait grows with each failure in a row, and begins anew with what worked."""

from common.backoff import Backoff
from common.tries import Tries


def test_the_wait_grows_until_it_worked() -> None:
    tries = Tries(Backoff(first=1, most=4, factor=2, jitter=0))
    assert [tries.delay() for _ in range(4)] == [1, 2, 4, 4]
    assert tries.failed == 4
    tries.done()
    assert (tries.failed, tries.delay()) == (0, 1)


def test_waits_are_spread_so_that_many_do_not_come_back_together() -> None:
    backoff = Backoff(first=1, most=1, jitter=1)
    waits = {Tries(backoff).delay() for _ in range(20)}
    assert len(waits) > 1
    assert all(1 <= wait < 2 for wait in waits)
