"""What happens again and again is one Event that counts, and nothing floods the API server."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from common.contracts.refs import ObjectRef, Resource
from common.kube.aggregation import Aggregation, Limits, Occasion, Write

LIMITS = Limits(occasions=3, quiet=360, refresh=10, rate=2, burst=4)


def occasion(name: str = "web") -> Occasion:
    ref = ObjectRef(Resource("networking.k8s.io", "ingresses"), "shop", name)
    return Occasion(ref, "uid", "Warning", "BadHost", "Apply", "the host is bad")


def aggregation(limits: Limits = LIMITS) -> Aggregation:
    numbers = count()
    return Aggregation(limits, lambda: f"t{next(numbers)}")


def writes(events: Aggregation, now: float) -> list[Write]:
    """All that can be written at `now`."""
    done: list[Write] = []
    while isinstance(step := events.next(now), Write):
        events.wrote(step, now)
        done.append(step)
    return done


def test_the_first_occurrence_is_written_at_once_and_the_others_are_counted() -> None:
    events = aggregation()
    events.record(occasion(), 0, "first")
    assert writes(events, 0) == [Write(occasion(), "t0", new=True, count=1, first="first", last="first")]
    for second in range(1, 6):
        events.record(occasion(), second, f"at {second}")
    assert events.next(5) == 5
    assert writes(events, 10) == [Write(occasion(), "t0", new=False, count=6, first="first", last="at 5")]
    assert events.next(10) is None


def test_after_a_long_quiet_it_is_a_new_event() -> None:
    events = aggregation()
    events.record(occasion(), 0, "a")
    writes(events, 0)
    events.record(occasion(), 361, "b")
    assert writes(events, 361) == [Write(occasion(), "t1", new=True, count=1, first="b", last="b")]


def test_different_notes_are_different_events() -> None:
    events = aggregation()
    events.record(occasion("a"), 0, "a")
    events.record(occasion("b"), 0, "b")
    assert [write.occasion for write in writes(events, 0)] == [occasion("a"), occasion("b")]


def test_too_many_occasions_are_refused_until_old_ones_are_over() -> None:
    events = aggregation()
    assert [events.record(occasion(name), 0, "t") for name in "abcd"] == [True, True, True, False]
    assert events.record(occasion("a"), 1, "t")
    writes(events, 2)
    writes(events, 20)
    assert not events.record(occasion("d"), 100, "t")
    assert events.record(occasion("d"), 500, "t")
    assert len(events) == 1


def test_an_event_that_vanished_is_made_anew() -> None:
    events = aggregation()
    events.record(occasion(), 0, "a")
    writes(events, 0)
    events.record(occasion(), 1, "b")
    step = events.next(10)
    assert isinstance(step, Write)
    events.vanished(step, 10)
    assert writes(events, 10) == [Write(occasion(), "t1", new=True, count=2, first="a", last="b")]


def test_what_the_server_refuses_is_forgotten() -> None:
    events = aggregation()
    events.record(occasion(), 0, "a")
    step = events.next(0)
    assert isinstance(step, Write)
    events.refused(step, 0)
    assert (events.next(0), len(events)) == (None, 0)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.floats(0, 5)), max_size=60),
)
def test_no_occurrence_is_lost_and_no_second_sees_too_many_writes(happened: list[tuple[str, float]]) -> None:
    events = aggregation(Limits(occasions=10, quiet=10_000, refresh=10, rate=2, burst=4))
    now, written = 0.0, []
    for name, later in happened:
        now += later
        assert events.record(occasion(name), now, "t")
        written += [(now, write) for write in writes(events, now)]
    for _ in range(40):
        now += 1
        written += [(now, write) for write in writes(events, now)]
    last = {write.occasion: write.count for _, write in written}
    assert sum(last.values()) == len(happened)
    for start, _ in written:
        within = [at for at, _ in written if start <= at <= start + 10]
        assert len(within) <= LIMITS.burst + 10 * LIMITS.rate + 1
