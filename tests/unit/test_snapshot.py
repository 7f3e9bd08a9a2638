"""Whatever happens to the stream and to its readers, the copy of it ends as the stream does, and is not shown before it is whole."""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.snapshot import Changed, Cursor, List, Listing, Open, Phase, Replaced

TTL = 100.0  # how long a tombstone lives; a lost reader is continued within half of it
NAMES = ("a", "b", "c", "d")


@dataclass(frozen=True, slots=True)
class Note:
    """A message, as far as a cursor looks at it."""

    subject: str
    sequence: int
    gone: bool = False


def note(subject: str, sequence: int) -> Note:
    return Note(subject, sequence)


def grave(subject: str, sequence: int) -> Note:
    return Note(subject, sequence, gone=True)


def listing(last: int, *subjects: str, created: str = "first") -> Listing:
    return Listing(created, last, subjects)


class Stream:
    """The last message of each subject; a tombstone leaves after its time."""

    def __init__(self, incarnation: int = 1) -> None:
        self.incarnation = incarnation
        self.last = 0
        self.held: dict[str, Note] = {}
        self._written: dict[str, float] = {}

    def write(self, subject: str, now: float, *, gone: bool = False) -> None:
        self.last += 1
        self.held[subject] = Note(subject, self.last, gone)
        self._written[subject] = now

    def expire(self, now: float) -> None:
        self.held = {name: one for name, one in self.held.items() if not one.gone or now - self._written[name] < TTL}

    def after(self, sequence: int) -> list[Note]:
        return sorted((one for one in self.held.values() if one.sequence > sequence), key=lambda one: one.sequence)

    @property
    def objects(self) -> dict[str, Note]:
        return {name: one for name, one in self.held.items() if not one.gone}


class Consumer:
    """What is made of the updates."""

    def __init__(self) -> None:
        self.objects: dict[str, Note] = {}
        self.updates = 0

    def take(self, update: Replaced[Note] | Changed[Note]) -> None:
        self.updates += 1
        if isinstance(update, Replaced):
            self.objects = {}
            subjects = [one.subject for one in update.messages]
            assert subjects == sorted(set(subjects)), "a snapshot is sorted and names each subject once"
            assert not any(one.gone for one in update.messages)
            assert all(one.gone for one in update.tombstones)
        self.apply(update.messages)

    def apply(self, messages: Iterable[Note]) -> None:
        for one in messages:
            if one.gone:
                self.objects.pop(one.subject, None)
            else:
                self.objects[one.subject] = one


class Following(RuleBasedStateMachine):
    """A stream that others write, a reader that may be lost at any moment, and a cursor that is told of both.

    A reader that lives is assumed to be read to its end within half of a tombstone's lifetime: who is slower than that can miss one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.stream = Stream()
        self.cursor: Cursor[Note] = Cursor(TTL)
        self.consumer = Consumer()
        self.at: int | None = None  # what the reader delivered last, None without a reader
        self.drained = 0.0
        self.asked = False  # a listing is under way, and nothing is read meanwhile
        self.subjects: frozenset[str] | None = None  # its first half
        self.stale = False  # the reader belongs to a stream that is no more
        self.collected: set[str] = set()

    def act(self, output: Open | List | Replaced[Note] | Changed[Note] | None) -> None:
        self.asked = isinstance(output, Open | List)
        self.subjects = None
        if isinstance(output, Open):
            self.at = 0 if output.sequence is None else output.sequence - 1
            self.drained, self.stale = self.now, False
            self.collected.clear()
        elif isinstance(output, Replaced | Changed):
            self.consumer.take(output)
            assert self.cursor.synced, "nothing is handed over before the copy is complete"

    @initialize(names=st.lists(st.sampled_from(NAMES)))
    def begin(self, names: list[str]) -> None:
        for name in names:
            self.stream.write(name, self.now)

    @rule(name=st.sampled_from(NAMES), gone=st.booleans())
    def write(self, name: str, gone: bool) -> None:
        self.stream.write(name, self.now, gone=gone)

    @precondition(lambda self: self.cursor.phase is Phase.SNAPSHOT and self.at is not None)
    @rule(name=st.sampled_from(NAMES))
    def purge_what_was_not_read(self, name: str) -> None:
        """An administrator removes a subject and leaves no trace of it."""
        assume(name not in self.collected)
        self.stream.held.pop(name, None)

    @rule(seconds=st.sampled_from((1.0, TTL / 4, TTL / 2 - 1, TTL / 2, TTL)))
    def wait(self, seconds: float) -> None:
        assume(self.at is None or self.stale or self.now + seconds - self.drained <= TTL / 2)
        self.now += seconds
        self.stream.expire(self.now)

    @rule()
    def make_the_stream_anew(self) -> None:
        self.stream, self.stale = Stream(self.stream.incarnation + 1), self.at is not None

    @rule()
    def lose_the_reader(self) -> None:
        self.at, self.asked, self.stale = None, False, False

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1), seconds=st.sampled_from((1.0, TTL / 2 - 1, TTL)))
    def miss_deletions(self, names: list[str], seconds: float) -> None:
        """Nobody reads while objects are deleted, and maybe not before their tombstones are gone as well."""
        self.lose_the_reader()
        for name in names:
            self.write(name, gone=True)
        self.wait(seconds)

    @rule(steps=st.integers(1, 8), most=st.integers(1, 3))
    def follow(self, steps: int, most: int) -> None:
        for _ in range(steps):
            self.step(most)

    def step(self, most: int) -> None:
        """The one thing that a follower does next. A listing takes two steps: the subjects, then the state."""
        if self.at is None:
            self.act(self.cursor.lost(self.now))
        elif self.asked and self.subjects is None:
            self.subjects = frozenset(self.stream.held)
        elif self.asked:
            self.act(self.cursor.listed(Listing(str(self.stream.incarnation), self.stream.last, self.subjects or ())))
        elif self.stale:
            self.lose_the_reader()
        else:
            self.read(self.at, most)

    def read(self, at: int, most: int) -> None:
        unread = self.stream.after(at)
        if batch := unread[:most]:
            self.at = batch[-1].sequence
            self.collected.update(one.subject for one in batch)
        if len(unread) <= most:
            self.drained = self.now
        self.act(self.cursor.received(batch, len(unread) - len(batch), self.now) if batch else self.cursor.idle(self.now))

    @invariant()
    def a_copy_that_is_followed_lacks_only_what_the_reader_will_still_deliver(self) -> None:
        if self.at is None or self.stale or self.cursor.phase is not Phase.FOLLOWING:
            return
        unread = {one.subject for one in self.stream.after(self.at)}
        known = {name: one for name, one in self.consumer.objects.items() if name not in unread}
        assert known == {name: one for name, one in self.stream.objects.items() if name not in unread}

    @invariant()
    def who_is_told_to_be_in_sync_was_given_a_copy(self) -> None:
        assert self.consumer.updates > 0 or not self.cursor.synced

    def teardown(self) -> None:
        """When all is quiet the copy equals the stream, after a few steps of the follower."""
        for _ in range(40):
            self.step(2)
        assert self.cursor.phase is Phase.FOLLOWING
        assert self.consumer.objects == self.stream.objects


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=300, stateful_step_count=40)


def following(*held: Note, last: int = 10, now: float = 0.0) -> Cursor[Note]:
    """A cursor that was given all of a stream, whose last message it read at `now`."""
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(now)
    cursor.listed(listing(last, *(one.subject for one in held)))
    if held:
        cursor.received(held, 0, now)
    assert cursor.phase is Phase.FOLLOWING
    return cursor


def test_the_first_reader_is_for_the_last_message_of_each_subject() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    assert cursor.lost(0) == Open(None)
    assert (cursor.phase, cursor.synced) == (Phase.SNAPSHOT, False)


def test_nothing_is_handed_over_before_each_listed_subject_was_read() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    assert cursor.listed(listing(9, "a", "b", "c")) is None
    assert cursor.missing == 3
    assert cursor.received([note("c", 5), note("a", 7)], 0, 1) is None
    assert (cursor.missing, cursor.synced) == (1, False)
    assert cursor.received([note("b", 8)], 0, 2) == Replaced((note("a", 7), note("b", 8), note("c", 5)))
    assert (cursor.missing, cursor.synced, cursor.phase) == (0, True, Phase.FOLLOWING)


def test_an_empty_stream_is_a_complete_copy_at_once() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    assert cursor.listed(listing(0)) == Replaced(())
    assert cursor.phase is Phase.FOLLOWING


def test_a_snapshot_tells_tombstones_apart_from_objects() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    assert cursor.received([note("a", 3), grave("b", 4)], 0, 0) == Replaced((note("a", 3),), (grave("b", 4),))


def test_an_object_that_is_changed_while_the_copy_is_taken_is_told_as_it_is_last() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    cursor.received([note("a", 3)], 2, 0)
    assert cursor.received([note("a", 5), note("b", 6)], 0, 0) == Replaced((note("a", 5), note("b", 6)))


def test_a_subject_that_vanished_while_the_copy_is_taken_is_not_waited_for() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    assert cursor.received([note("a", 3)], 0, 0) is None
    assert cursor.idle(1) == List()
    assert cursor.listed(listing(4, "a")) == Replaced((note("a", 3),))


def test_a_subject_that_is_still_listed_is_waited_for_however_often_the_reader_is_idle() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a"))
    for second in range(5):
        assert cursor.idle(second) == List()
        assert cursor.listed(listing(4, "a")) is None
    assert cursor.received([note("a", 4)], 0, 9) == Replaced((note("a", 4),))


def test_a_stream_that_is_never_quiet_is_listed_again_once_its_end_was_passed() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    assert cursor.received([note("a", 3)], 7, 0) is None
    assert cursor.received([note("c", 5)], 7, 0) == List()
    assert cursor.received([note("c", 6)], 7, 0) is None, "asked once, not with each message"
    assert cursor.listed(listing(6, "a", "c")) == Replaced((note("a", 3), note("c", 6)))


def test_subjects_that_are_new_do_not_delay_a_copy() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    cursor.received([note("a", 3)], 9, 0)
    assert cursor.idle(1) == List()
    assert cursor.listed(listing(9, "a", "new", "newer")) == Replaced((note("a", 3),))


def test_what_comes_after_the_copy_is_handed_over_in_its_order() -> None:
    cursor = following(note("b", 3))
    assert cursor.received([note("b", 11), grave("a", 12)], 0, 1) == Changed((note("b", 11), grave("a", 12)))
    assert cursor.idle(2) is None


def test_a_reader_lost_for_a_short_time_is_continued_where_it_was() -> None:
    cursor = following(note("a", 3))
    assert cursor.lost(TTL / 2 - 1) == Open(4)
    assert (cursor.phase, cursor.synced) == (Phase.RESUMING, True)
    assert cursor.listed(listing(10)) is None
    assert cursor.phase is Phase.FOLLOWING
    assert cursor.received([note("a", 11)], 0, 50) == Changed((note("a", 11),))


def test_a_reader_lost_for_longer_than_a_tombstone_is_safe_is_begun_anew() -> None:
    cursor = following(note("a", 3), note("b", 4))
    assert cursor.lost(TTL / 2) == Open(None)
    assert (cursor.phase, cursor.synced) == (Phase.SNAPSHOT, False)
    cursor.listed(listing(12, "b"))
    assert cursor.received([note("b", 4)], 0, 60) == Replaced((note("b", 4),)), "what is not in the copy is gone"


def test_the_gap_is_counted_from_when_the_reader_had_nothing_left() -> None:
    quiet, busy = following(note("a", 3)), following(note("a", 3))
    quiet.idle(40)
    busy.received([note("b", 11)], 5, 40)
    assert quiet.lost(60) == Open(4)
    assert busy.lost(60) == Open(None), "five messages were still to come, and one may have been a tombstone"


def test_a_copy_of_nothing_is_continued_too() -> None:
    assert following(now=40).lost(60) == Open(1)


def test_several_losses_in_a_row_do_not_make_the_gap_shorter() -> None:
    cursor = following(note("a", 3))
    for now in (20, 40):
        assert cursor.lost(now) == Open(4)
    assert cursor.lost(60) == Open(None)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(listing(10, created="second"), id="made anew"),
        pytest.param(listing(2), id="lost its end"),
    ],
)
def test_another_stream_than_the_one_that_was_known_is_read_from_the_start(found: Listing) -> None:
    cursor = following(note("a", 3))
    cursor.lost(1)
    assert cursor.listed(found) == Open(None)
    assert (cursor.phase, cursor.created) == (Phase.SNAPSHOT, "")


def test_a_stream_that_is_made_anew_while_the_copy_is_taken_gives_a_copy_of_the_new_one_only() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    cursor.received([note("a", 3)], 0, 0)
    cursor.idle(1)
    assert cursor.listed(listing(1, "c", created="second")) == Open(None)
    cursor.listed(listing(1, "c", created="second"))
    assert cursor.received([note("c", 1)], 0, 2) == Replaced((note("c", 1),))
    assert cursor.created == "second"


def test_a_copy_that_was_begun_is_thrown_away_with_its_reader() -> None:
    cursor: Cursor[Note] = Cursor(TTL)
    cursor.lost(0)
    cursor.listed(listing(4, "a", "b"))
    cursor.received([note("a", 3)], 1, 0)
    assert cursor.lost(1) == Open(None)
    cursor.listed(listing(5, "b"))
    assert cursor.received([note("b", 4)], 0, 2) == Replaced((note("b", 4),))
