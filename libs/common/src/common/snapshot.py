"""The follower's state machine: when a copy of a compacted log is complete, and when it must be taken anew.

    SNAPSHOT --(every expected subject was seen)--> FOLLOWING --(reader lost)--> RESUMING or SNAPSHOT

`Cursor` does no I/O. It is told what happened and answers what to do: where to open a reader, whether to list the subjects again, what
to hand to the consumer. Time comes in as an argument, in seconds of any clock that never goes back.

Three promises:

- Nothing is handed over before the copy is complete. Complete means that each subject which the stream listed *after* the reader was
  opened was read, or is listed no more. Neither "nothing pending" nor "the last sequence was reached" would do: the first can be true
  for a moment while messages are still to come, and with one message a subject an update moves an object behind any barrier.
- A reader that was lost is continued only within half the lifetime of a tombstone. Later, a deletion may have left no trace, so the copy
  is replaced, and what is not in the new one is gone.
- A stream that was made anew, or lost its end, is not the one we know: its sequences mean something else. It is read from the start.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """What a cursor must know of a message."""

    @property
    def subject(self) -> str:
        """Where it stands."""
        ...

    @property
    def sequence(self) -> int:
        """Its place in the stream."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it says that the subject holds nothing any more."""
        ...


E = TypeVar("E", bound=Entry)


class Phase(Enum):
    """What the reader's messages are for."""

    SNAPSHOT = "snapshot"  # collected until the copy is complete
    RESUMING = "resuming"  # a reader was opened after the last message; is it still the same stream?
    FOLLOWING = "following"  # handed over as they come


@dataclass(frozen=True, slots=True)
class Listing:
    """The stream at one moment. `subjects` need not be known to resume."""

    created: str
    last_sequence: int
    subjects: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Open:
    """Open a reader (again): from `sequence` on, or for the last message of each subject if it is None."""

    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class List:
    """List the stream's subjects again: some expected ones may be gone."""


@dataclass(frozen=True, slots=True)
class Replaced(Generic[E]):
    """The copy, complete, sorted by subject. What is not in `messages` does not exist; `tombstones` says what went lately."""

    messages: tuple[E, ...]
    tombstones: tuple[E, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed(Generic[E]):
    """New messages in the order of the stream, tombstones among them; never empty."""

    messages: tuple[E, ...]


class Cursor(Generic[E]):
    """Where a follower stands. Call `open`, then `listed`, then `received` and `idle` until `lost`, and so on."""

    def __init__(self, tombstone_ttl: float) -> None:
        self.phase = Phase.SNAPSHOT
        self.created = ""  # names the incarnation of the stream that the copy is of
        self._longest_gap = tombstone_ttl / 2
        self._sequence = 0
        self._opened = 0.0
        self._up_to_date = 0.0  # everything that the stream took after this moment is still to come
        self._barrier: int | None = None  # when it is passed, what is still expected may be gone
        self._expected: set[str] | None = None
        self._held: dict[str, E] = {}

    @property
    def synced(self) -> bool:
        """Whether the consumer holds a complete copy, be it an ageing one."""
        return self.phase is not Phase.SNAPSHOT

    @property
    def missing(self) -> int:
        """How many expected subjects were not seen yet."""
        return len(self._expected or ())

    def lost(self, now: float) -> Open:
        """The reader is lost, or there was none yet. Says where to open the next one."""
        self._opened = now
        if self.synced and now - self._up_to_date < self._longest_gap:
            self.phase = Phase.RESUMING
            return Open(self._sequence + 1)
        return self._restart()

    def listed(self, listing: Listing) -> Open | Replaced[E] | None:
        """The stream was listed: after the reader was opened, or because of a `List`."""
        if self.phase is Phase.RESUMING:
            if listing.created != self.created or listing.last_sequence < self._sequence:
                return self._restart()
            self.phase = Phase.FOLLOWING
        if self.phase is Phase.FOLLOWING:
            return None
        if self._expected is None:
            self.created = listing.created
            self._expected = set(listing.subjects) - self._held.keys()
        elif listing.created != self.created:
            return self._restart()
        else:
            self._expected.intersection_update(listing.subjects)
        self._barrier = listing.last_sequence
        return self._completed()

    def received(self, messages: Sequence[E], behind: int, now: float) -> Replaced[E] | Changed[E] | List | None:
        """The reader handed over `messages`, at least one, and knows of `behind` more."""
        self._sequence = messages[-1].sequence
        if behind == 0:
            self._up_to_date = now
        if self.phase is Phase.FOLLOWING:
            return Changed(tuple(messages))
        for message in messages:
            self._held[message.subject] = message
            if self._expected is not None:
                self._expected.discard(message.subject)
        return self._completed() or self._overdue()

    def idle(self, now: float) -> List | None:
        """The reader is alive and has nothing to deliver."""
        if self.phase is Phase.SNAPSHOT:
            return List()
        self._up_to_date = now
        return None

    def _completed(self) -> Replaced[E] | None:
        if self._expected is None or self._expected:
            return None
        self.phase = Phase.FOLLOWING
        self._up_to_date = max(self._up_to_date, self._opened)
        held = [message for _, message in sorted(self._held.items())]
        self._held, self._expected = {}, None
        return Replaced(tuple(m for m in held if not m.gone), tuple(m for m in held if m.gone))

    def _overdue(self) -> List | None:
        """A stream that is never quiet gives no `idle`, so passing the barrier asks for a new list too, once."""
        if self._barrier is None or self._sequence < self._barrier:
            return None
        self._barrier = None
        return List()

    def _restart(self) -> Open:
        self.phase = Phase.SNAPSHOT
        self.created = ""
        self._sequence = 0
        self._barrier = None
        self._expected = None
        self._held = {}
        return Open()
