"""Judge: when an Ingress in automatic mode is switched to its stand-by for reasons that have to do with time, and when it is switched back.

    a backend lost its last ready endpoint   it is tripped, and stays so until one has been ready for `hold` seconds
    too many requests failed                 all backends are tripped for `hold` seconds, then tried again; each time that they fail soon
                                             after that, the pause is twice as long

Pure: (state, what was seen, now) → state. Times are seconds of any steady clock.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from nginx_config_renderer.model import Emergency

FEWEST: Final = 20  # requests below which a share says nothing
_LONGEST_PAUSE: Final = 32  # times `hold`


@dataclass(frozen=True, slots=True)
class Count:
    """Requests and failures (5xx) until a moment, as a counter gives them."""

    at: float
    requests: int
    failures: int


@dataclass(frozen=True, slots=True)
class Pause:
    """All backends get no requests until then. `length` in seconds."""

    reason: str
    until: float
    length: float


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of one Ingress. `lost`: backend → since when it is ready again, None if it is not."""

    lost: Mapping[str, float | None] = field(default_factory=dict)
    counts: tuple[Count, ...] = ()
    pause: Pause | None = None
    last: Pause | None = None  # the pause before, after which it was tried again


def judge(state: State, emergency: Emergency, unready: Collection[str], count: Count | None, now: float) -> State:
    """The next state. `unready` are the backends without a ready endpoint; `count` is None where nobody counted."""
    return _judge_failures(replace(state, lost=_lost(state.lost, emergency, unready, now)), emergency, count, now)


def reasons(state: State, everything: str) -> dict[str, str]:
    """Which backends get no requests, and why; `everything` stands for all of them."""
    found = {backend: _recovering(backend, since) for backend, since in sorted(state.lost.items())}
    return found | ({everything: state.pause.reason} if state.pause is not None else {})


def _recovering(backend: str, since: float | None) -> str:
    service = backend.rpartition(":")[0]
    if since is None:
        return f"Service {service} has no ready endpoint"
    return f"Service {service} had no ready endpoint, and is watched for a while"


def _lost(
    lost: Mapping[str, float | None], emergency: Emergency, unready: Collection[str], now: float
) -> Mapping[str, float | None]:
    new: dict[str, float | None] = dict.fromkeys(unready)
    for backend, since in lost.items():
        if backend not in new:
            ready_since = since if since is not None else now
            if now - ready_since < emergency.hold:
                new[backend] = ready_since
    return new


def _judge_failures(state: State, emergency: Emergency, count: Count | None, now: float) -> State:
    if not emergency.threshold:
        return replace(state, counts=(), pause=None, last=None)
    if state.pause is not None:
        if now < state.pause.until:
            return state
        return replace(state, counts=(), pause=None, last=state.pause)
    if count is None:
        return state
    counts = _window((*state.counts, count), emergency.window)
    first = counts[0]
    requests, failures = count.requests - first.requests, count.failures - first.failures
    if requests < FEWEST or failures * 100 < emergency.threshold * requests:
        return replace(state, counts=counts)
    reason = f"{failures} of {requests} requests failed within {now - first.at:.0f} s"
    length = _length(state.last, emergency, now)
    return replace(state, counts=(), pause=Pause(reason, now + length, length), last=None)


def _window(counts: tuple[Count, ...], window: float) -> tuple[Count, ...]:
    """The counts of the last `window` seconds; one that is less than an earlier one began anew."""
    newest = counts[-1]
    return tuple(
        one
        for one in counts
        if newest.at - one.at <= window and one.requests <= newest.requests and one.failures <= newest.failures
    )


def _length(last: Pause | None, emergency: Emergency, now: float) -> float:
    soon = last is not None and now - last.until <= 2 * emergency.window
    return min(2 * last.length, _LONGEST_PAUSE * emergency.hold) if last is not None and soon else emergency.hold
