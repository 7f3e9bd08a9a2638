"""Aggregation: what happens again and again is one Event that counts, as decisions without I/O.

An *occasion* is an object, a reason and a note. Its first occurrence is written at once, the others are counted and written now and then;
when it was quiet for long, the next occurrence begins a new Event (events.k8s.io/v1 `series`, KEP-383). Everything has a bound: how many
occasions are known, and how many writes a second there are. What is above the first is refused, what is above the second waits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from common.contracts.refs import ObjectRef

Type: TypeAlias = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Occasion:
    """What happened to which object. `reason` and `action` are CamelCase words, `note` is a sentence."""

    ref: ObjectRef
    uid: str
    type: Type
    reason: str
    action: str
    note: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds. Times in seconds."""

    occasions: int = 2048
    quiet: float = 360  # without a new occurrence for so long, a series is over
    refresh: float = 10  # between two writes of one series
    rate: float = 10  # writes a second, in the long run
    burst: int = 50  # writes at once


@dataclass(frozen=True, slots=True)
class Write:
    """An Event as it is to be written. `new`: it does not exist yet. Stamps are those of the wall clock."""

    occasion: Occasion
    token: str
    new: bool
    count: int
    first: str
    last: str


@dataclass(slots=True)
class _Series:
    token: str
    first: str
    last: str
    seen: float
    due: float
    count: int = 1
    written: int = 0


class Aggregation:
    """All that is to be written. Times come from one monotonic clock; `token` gives a name that no Event has."""

    def __init__(self, limits: Limits, token: Callable[[], str]) -> None:
        self._limits = limits
        self._token = token
        self._series: dict[Occasion, _Series] = {}
        self._tokens = float(limits.burst)
        self._counted = 0.0

    def __len__(self) -> int:
        return len(self._series)

    def record(self, occasion: Occasion, now: float, stamp: str) -> bool:
        """Counts an occurrence. False if there are too many occasions, and this one is forgotten."""
        known = self._series.get(occasion)
        if known is not None and not self._over(known, now):
            known.count += 1
            known.last = stamp
            known.seen = now
            return True
        self._forget(now)
        if known is None and len(self._series) >= self._limits.occasions:
            return False
        self._series[occasion] = _Series(self._token(), stamp, stamp, now, now)
        return True

    def next(self, now: float) -> Write | float | None:
        """What to write now, or for how many seconds there is nothing, or None if there is nothing at all."""
        waiting = [(series.due, occasion) for occasion, series in self._series.items() if series.count > series.written]
        if not waiting:
            return None
        due, occasion = min(waiting, key=lambda entry: entry[0])
        self._refill(now)
        wait = max(due - now, (1 - self._tokens) / self._limits.rate)
        if wait > 0:
            return wait
        series = self._series[occasion]
        return Write(occasion, series.token, series.written == 0, series.count, series.first, series.last)

    def wrote(self, write: Write, now: float) -> None:
        """`write` is done."""
        self._spend(now)
        series = self._series.get(write.occasion)
        if series is not None and series.token == write.token:
            series.written = write.count
            series.due = now + self._limits.refresh

    def vanished(self, write: Write, now: float) -> None:
        """The Event to be changed is gone, as Events go after an hour: it is made anew."""
        self._spend(now)
        series = self._series.get(write.occasion)
        if series is not None:
            series.token = self._token()
            series.written = 0
            series.due = now

    def refused(self, write: Write, now: float) -> None:
        """`write` can never be done: the occasion is forgotten."""
        self._spend(now)
        self._series.pop(write.occasion, None)

    def _over(self, series: _Series, now: float) -> bool:
        return series.count == series.written and now - series.seen > self._limits.quiet

    def _forget(self, now: float) -> None:
        if len(self._series) >= self._limits.occasions:
            self._series = {occasion: series for occasion, series in self._series.items() if not self._over(series, now)}

    def _refill(self, now: float) -> None:
        self._tokens = min(self._limits.burst, self._tokens + (now - self._counted) * self._limits.rate)
        self._counted = now

    def _spend(self, now: float) -> None:
        self._refill(now)
        self._tokens -= 1
