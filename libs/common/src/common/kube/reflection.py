"""Reflection: how a resource is kept in view, as decisions without I/O.

It says what to ask the API server next, takes what came of it, and gives what its reader shall know: first all objects (`Listed`), then
every change (`Event`), and all objects again when changes may have been missed. `common.kube.reflector` does the asking.

The rules are those of client-go's Reflector (`tools/cache/reflector.go`) and of KEP-3157 (streaming lists):
- A listing is a consistent read, of which absence is proof. It comes as a stream where the server can do that, else as a LIST.
- The objects at the beginning of a stream are in no order of versions; its version counts only from the bookmark that ends them.
- A watch that ends, breaks or falls silent goes on from the last version. Only a version that the server does not keep any more (410)
  or has not seen, an answer without sense, or an error that nobody foresaw lead to a new listing.
- After an error there is a wait that grows, is never shorter than the server asks for, and starts small again after two calm minutes.

Nothing is dropped: what cannot be understood makes the listing be done again, and is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias, cast

import orjson

from common.backoff import Backoff
from common.kube import Raw
from common.kube.errors import (
    Call,
    Forbidden,
    Garbled,
    Gone,
    KubeError,
    Silent,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    VersionTooLarge,
    from_status,
)

INITIAL_END: Final = "k8s.io/initial-events-end"
KINDS: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})

# The history is still there when the server is back, or lets us in again.
_KEEPS_VERSION: Final = (Unreachable, TooManyRequests, Unauthorized, Forbidden)
# A LIST would fare no better than the stream did.
_HITS_LIST_TOO: Final = (Unreachable, TooManyRequests, Unauthorized)

Kind: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects that there are."""

    items: Sequence[Raw]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """A change: the object as it is now, or, if deleted, as it was last."""

    kind: Kind
    object: Raw


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class List:
    """Read everything, consistently, by LIST."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Watch, beginning with everything."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch what comes after `version`."""

    version: str
    seconds: int


Step: TypeAlias = Wait | List | Stream | Watch


class Phase(StrEnum):
    """How it stands."""

    LISTING = "listing"
    WATCHING = "watching"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Health:
    """How it stands, since when (on the clock that was given), and what the last error was, if it is not over."""

    phase: Phase
    since: float
    last_error: str | None = None
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """The knobs, in seconds. `watch` is stretched by up to itself, so that watches do not all end together."""

    streaming: bool = True  # try streaming lists; servers that have none cost one refused request a listing
    watch: float = 300
    short: float = 1  # a watch that ends sooner is an error
    calm: float = 120  # after this long without an error, the next one is the first again
    backoff: Backoff = field(default=Backoff())


class Reflection:
    """The state of one reflector. Call `step`, do what it says, report what came of it; times come from one monotonic clock."""

    def __init__(self, call: Call, tuning: Tuning, now: float) -> None:
        self._call = call
        self._tuning = tuning
        self._version: str | None = None
        self._initial: dict[tuple[str, str], Raw] | None = None
        self._by_list = not tuning.streaming
        self._wait = 0.0
        self._attempt = 0
        self._last_failure = now
        self._trouble = now
        self._opened: float | None = None
        self._phase = Phase.LISTING
        self._since = now
        self._last_error: str | None = None

    @property
    def health(self) -> Health:
        """How it stands now."""
        return Health(self._phase, self._since, self._last_error, self._version)

    def step(self, chance: float) -> Step:
        """What to do next; `chance` in [0, 1)."""
        self._opened = None
        if self._wait:
            wait, self._wait = self._wait, 0.0
            return Wait(wait)
        seconds = int(self._tuning.watch * (1 + chance))
        if self._version is not None:
            return Watch(self._version, seconds)
        if self._by_list:
            return List()
        self._initial = {}
        return Stream(seconds)

    def opened(self, now: float) -> None:
        """The server has begun to answer a stream or a watch."""
        self._opened = now
        if self._initial is None:
            self._recover(now)

    def listed(self, items: Sequence[Raw], version: str, now: float) -> Listed:
        """A LIST gave everything."""
        self._version = version
        self._by_list = not self._tuning.streaming
        self._recover(now)
        return Listed(items, version)

    def receive(self, line: bytes, now: float) -> Listed | Event | None:
        """A line of a stream or a watch came. Raises KubeError for what `failed` must be told."""
        try:
            event = orjson.loads(line)
            kind, found = event["type"], event["object"]
            if kind == "ERROR":
                raise from_status(self._call, found)
            version = found["metadata"]["resourceVersion"]
            if kind not in KINDS and kind != "BOOKMARK":
                raise Garbled(f"{self._call}: an event of the unknown type {kind!r}")
            if self._initial is not None:
                return self._collect(kind, found, version, now)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
            raise Garbled(f"{self._call}: an event that makes no sense ({error!r}): {line[:200]!r}") from error
        self._version = version
        return None if kind == "BOOKMARK" else Event(cast("Kind", kind), found)

    def ended(self, now: float) -> None:
        """The server ended a stream or a watch in good order. Raises KubeError, for `failed`, if that was too soon."""
        if self._initial is not None:
            raise Garbled(f"{self._call}: the stream ended before all objects had come")
        if self._opened is None or now - self._opened < self._tuning.short:
            raise Unreachable(f"{self._call}: the API server ended the watch as soon as it had begun")

    def failed(self, error: KubeError, now: float, chance: float) -> None:
        """A step came to nothing, or to an end before its time."""
        streaming, self._initial = self._initial is not None, None
        if streaming and (isinstance(error, Silent) or not isinstance(error, _HITS_LIST_TOO)):
            self._by_list = True
            self._last_error = str(error)
            return
        if isinstance(error, Silent) and self._opened is not None:
            return
        if self._attempt and now - self._last_failure > self._tuning.calm:
            self._attempt = 0
        if not self._attempt:
            self._trouble = now
        delay = self._tuning.backoff.delay(self._attempt, chance)
        if not isinstance(error, _KEEPS_VERSION):
            self._version = None
        expired = isinstance(error, Gone | VersionTooLarge) and self._attempt == 0
        self._wait = 0.0 if expired else max(delay, (error.retry_after or 0.0) * (1 + chance / 4))
        self._attempt += 1
        self._last_failure = now
        self._enter(Phase.LISTING if expired else Phase.FAILING, now, str(error))

    def _collect(self, kind: str, found: dict[str, Any], version: str, now: float) -> Listed | None:
        """Before the end of the initial objects. Real changes may come among them, if the server's own view was behind."""
        initial = self._initial
        assert initial is not None  # noqa: S101 only called so
        metadata = found["metadata"]
        if kind != "BOOKMARK":
            key = (metadata.get("namespace", ""), metadata["name"])
            if kind == "DELETED":
                initial.pop(key, None)
            else:
                initial[key] = found
            return None
        if (metadata.get("annotations") or {}).get(INITIAL_END) != "true":
            raise Garbled(f"{self._call}: a plain bookmark among the initial objects, so the API server has no streaming lists")
        self._initial = None
        self._version = version
        self._recover(now)
        return Listed(list(initial.values()), version)

    def _recover(self, now: float) -> None:
        self._enter(Phase.WATCHING, now, None)

    def _enter(self, phase: Phase, now: float, error: str | None) -> None:
        self._last_error = error
        if phase is not self._phase:
            self._phase = phase
            # A watch that opens and breaks again and again does not make a failure look young.
            self._since = self._trouble if phase is Phase.FAILING else now
