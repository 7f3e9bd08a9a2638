"""Whatever happens between us and the API server, what we believe becomes what is there."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts.refs import Resource
from common.kube.errors import (
    Call,
    Forbidden,
    Garbled,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    ServerFault,
    Silent,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    VersionTooLarge,
)
from common.kube.reflection import Event, List, Listed, Phase, Reflection, Stream, Tuning, Wait, Watch

CALL = Call("watch", "/api/v1/services", Resource("", "services"))
PLAIN = Tuning(streaming=False)


def raw(name: str, version: int, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version), **metadata}}


def line(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode()


def end_of_initial(version: int) -> bytes:
    return line("BOOKMARK", raw("", version, annotations={"k8s.io/initial-events-end": "true"}))


def watching(tuning: Tuning = PLAIN, version: str = "7") -> Reflection:
    """A reflection that has listed version 7 at second 0."""
    reflection = Reflection(CALL, tuning, 0)
    reflection.step(0)
    if tuning.streaming:
        reflection.opened(0)
        reflection.receive(end_of_initial(int(version)), 0)
        reflection.ended(600)
    else:
        reflection.listed([], version, 0)
    return reflection


def fail(reflection: Reflection, error: KubeError, now: float = 1000, *, opened: bool = True) -> None:
    reflection.step(0)
    if opened:
        reflection.opened(now)
    reflection.failed(error, now, 0)


def test_it_lists_and_then_watches_from_the_version_of_the_list() -> None:
    reflection = Reflection(CALL, PLAIN, 0)
    assert reflection.step(0) == List()
    assert reflection.listed([raw("a", 3)], "7", 0) == Listed([raw("a", 3)], "7")
    assert reflection.step(0) == Watch("7", 300)
    assert reflection.step(0.5) == Watch("7", 450)


def test_the_initial_objects_of_a_stream_come_as_one_listing_and_do_not_move_the_version() -> None:
    reflection = Reflection(CALL, Tuning(), 0)
    assert reflection.step(0) == Stream(300)
    reflection.opened(0)
    assert reflection.receive(line("ADDED", raw("a", 900)), 0) is None
    assert reflection.receive(line("ADDED", raw("b", 3)), 0) is None
    assert reflection.receive(line("MODIFIED", raw("b", 901)), 0) is None
    assert reflection.receive(line("ADDED", raw("c", 4)), 0) is None
    assert reflection.receive(line("DELETED", raw("c", 902)), 0) is None
    assert reflection.health.resource_version is None
    assert reflection.receive(end_of_initial(902), 0) == Listed([raw("a", 900), raw("b", 901)], "902")
    assert reflection.receive(line("DELETED", raw("a", 903)), 0) == Event("DELETED", raw("a", 903))
    reflection.ended(600)
    assert reflection.step(0) == Watch("903", 300)


def test_a_bookmark_moves_the_version_and_is_no_event() -> None:
    reflection = watching()
    reflection.step(0)
    assert reflection.receive(line("BOOKMARK", raw("", 20)), 0) is None
    assert reflection.step(0) == Watch("20", 300)


@pytest.mark.parametrize(
    "error",
    [Invalid("no such parameter"), Forbidden("no"), NotFound("no"), Gone("no"), ServerFault("no"), Garbled("no"), Silent("no")],
)
def test_a_stream_that_fails_is_replaced_by_a_list_at_once(error: KubeError) -> None:
    reflection = Reflection(CALL, Tuning(), 0)
    reflection.step(0)
    reflection.failed(error, 1, 0)
    assert reflection.step(0) == List()


@pytest.mark.parametrize("error", [Unreachable("no"), TooManyRequests("no"), Unauthorized("no")])
def test_a_stream_that_cannot_begin_is_tried_again_after_a_wait(error: KubeError) -> None:
    reflection = Reflection(CALL, Tuning(), 0)
    reflection.step(0)
    reflection.failed(error, 1, 0)
    assert [reflection.step(0), reflection.step(0)] == [Wait(0.8), Stream(300)]


def test_a_stream_that_ends_before_its_initial_objects_do_is_replaced_by_a_list() -> None:
    reflection = Reflection(CALL, Tuning(), 0)
    reflection.step(0)
    reflection.opened(0)
    with pytest.raises(Garbled) as caught:
        reflection.ended(600)
    reflection.failed(caught.value, 600, 0)
    assert reflection.step(0) == List()


def test_a_server_that_takes_a_stream_for_a_plain_watch_is_listed() -> None:
    reflection = Reflection(CALL, Tuning(), 0)
    reflection.step(0)
    reflection.opened(0)
    with pytest.raises(Garbled) as caught:
        reflection.receive(line("BOOKMARK", raw("", 9)), 0)
    reflection.failed(caught.value, 600, 0)
    assert reflection.step(0) == List()


@pytest.mark.parametrize("error", [Unreachable("no"), TooManyRequests("no"), Unauthorized("no"), Forbidden("no")])
def test_an_error_that_leaves_history_in_place_keeps_the_version(error: KubeError) -> None:
    reflection = watching()
    fail(reflection, error)
    assert [reflection.step(0), reflection.step(0)] == [Wait(0.8), Watch("7", 300)]


@pytest.mark.parametrize("error", [ServerFault("no"), Invalid("no"), NotFound("no"), Garbled("no")])
def test_an_error_that_nobody_foresaw_leads_to_a_new_listing_after_a_wait(error: KubeError) -> None:
    reflection = watching()
    fail(reflection, error)
    assert [reflection.step(0), reflection.step(0)] == [Wait(0.8), List()]


@pytest.mark.parametrize("error", [Gone("no"), VersionTooLarge("no")])
def test_lost_history_leads_to_a_new_listing_at_once_but_not_again_and_again(error: KubeError) -> None:
    reflection = watching()
    fail(reflection, error)
    assert reflection.step(0) == List()
    reflection.listed([], "9", 1000)
    fail(reflection, error, 1001)
    assert [reflection.step(0), reflection.step(0)] == [Wait(1.6), List()]


@pytest.mark.parametrize("code", [410, 500])
def test_an_error_inside_a_watch_counts_as_one_by_http(code: int) -> None:
    reflection = watching()
    reflection.step(0)
    reflection.opened(0)
    with pytest.raises(KubeError) as caught:
        reflection.receive(line("ERROR", {"kind": "Status", "code": code, "reason": "Expired", "message": "too old"}), 1)
    assert isinstance(caught.value, Gone if code == 410 else ServerFault)


@pytest.mark.parametrize(
    "broken",
    [
        b"{",
        b"[]",
        b'{"type": "ADDED"}',
        line("ADDED", {"metadata": {}}),
        line("ADDED", {"metadata": None}),
        line("SUNK", raw("a", 9)),
        line("ERROR", {}).replace(b"{}", b"3"),
    ],
)
def test_what_makes_no_sense_is_never_passed_over(broken: bytes) -> None:
    reflection = watching()
    reflection.step(0)
    reflection.opened(0)
    with pytest.raises(Garbled, match=r"watch services"):
        reflection.receive(broken, 1)
    assert reflection.health.resource_version == "7"


def test_a_silent_watch_goes_on_at_once_from_where_it_was() -> None:
    reflection = watching()
    fail(reflection, Silent("nothing for 180 s"))
    assert reflection.step(0) == Watch("7", 300)
    assert reflection.health.phase is Phase.WATCHING


def test_a_watch_that_ends_as_soon_as_it_began_is_an_error() -> None:
    reflection = watching()
    reflection.step(0)
    reflection.opened(10)
    with pytest.raises(Unreachable) as caught:
        reflection.ended(10.5)
    reflection.failed(caught.value, 10.5, 0)
    assert [reflection.step(0), reflection.step(0)] == [Wait(0.8), Watch("7", 300)]


def test_waits_grow_to_a_limit_and_are_stretched_by_chance_and_start_small_after_calm() -> None:
    reflection = watching()
    waits = []
    for second in range(8):
        reflection.step(0)
        reflection.failed(Unreachable("no"), 1000 + second, 0.5)
        waits.append(reflection.step(0))
    assert waits == [Wait(seconds * 1.5) for seconds in (0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30)]
    fail(reflection, Unreachable("no"), 1007 + 121)
    assert reflection.step(0) == Wait(0.8)


@pytest.mark.parametrize(("asked", "waited"), [(None, 0.8), (0.1, 0.8), (40, 40)])
def test_a_wait_is_never_shorter_than_the_server_asks_for(asked: float | None, waited: float) -> None:
    reflection = watching()
    fail(reflection, TooManyRequests("busy", retry_after=asked))
    assert reflection.step(0) == Wait(waited)


def test_health_says_since_when_it_fails_and_why_until_it_is_over() -> None:
    reflection = watching()
    assert reflection.health.phase is Phase.WATCHING
    fail(reflection, Unreachable("refused"), 50, opened=False)
    reflection.step(0)
    fail(reflection, Unreachable("still refused"), 60, opened=False)
    assert (reflection.health.phase, reflection.health.since, reflection.health.last_error) == (Phase.FAILING, 50, "still refused")
    reflection.step(0)
    reflection.step(0)
    reflection.opened(70)
    assert (reflection.health.phase, reflection.health.since, reflection.health.last_error) == (Phase.WATCHING, 70, None)


def test_a_watch_that_opens_and_breaks_again_and_again_fails_since_the_first_time() -> None:
    reflection = watching()
    for second in range(50, 150, 10):
        fail(reflection, ServerFault("no"), second)
        reflection.step(0)
    assert (reflection.health.phase, reflection.health.since) == (Phase.FAILING, 50)


@dataclass
class Server:
    """An API server in a few lines: objects, history, and what of it was forgotten."""

    version: int = 5
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[tuple[int, bytes]] = field(default_factory=list)
    forgotten: int = 0

    def change(self, name: str) -> None:
        """Makes, changes or deletes an object: every third change of one that exists deletes it."""
        self.version += 1
        old = self.objects.get(name)
        if old is not None and self.version % 3 == 0:
            del self.objects[name]
            self._remember("DELETED", raw(name, self.version))
        else:
            self.objects[name] = raw(name, self.version)
            self._remember("ADDED" if old is None else "MODIFIED", self.objects[name])

    def _remember(self, kind: str, found: dict[str, Any]) -> None:
        self.history.append((self.version, line(kind, found)))

    def forget(self) -> None:
        self.forgotten = self.version

    def lines(self, version: int) -> Iterator[bytes]:
        if version < self.forgotten:
            yield line("ERROR", {"kind": "Status", "code": 410, "message": "too old"})
            return
        yield from (text for at, text in self.history if at > version)
        yield line("BOOKMARK", raw("", self.version))

    def stream(self) -> Iterator[bytes]:
        yield from (line("ADDED", found) for found in sorted(self.objects.values(), key=str, reverse=True))
        yield end_of_initial(self.version)


ERRORS = [
    kind("no") for kind in (Unreachable, Silent, Unauthorized, Forbidden, NotFound, Gone, VersionTooLarge, Invalid, ServerFault)
]
FATES = st.one_of(
    st.sampled_from("abcd").map(lambda name: ("change", name)),
    st.just(("forget", None)),
    st.tuples(st.just("step"), st.tuples(st.integers(0, 6), st.sampled_from([*ERRORS, None, "garbled"]))),
)


class Believer:
    """Drives a reflection against a server and believes what it says."""

    def __init__(self, server: Server, tuning: Tuning) -> None:
        self.server = server
        self.reflection = Reflection(CALL, tuning, 0)
        self.believed: dict[str, dict[str, Any]] | None = None
        self.now = 0.0

    def step(self, most: int, end: KubeError | str | None) -> Any:
        """One step, of which at most `most` lines arrive before `end`."""
        self.now += 10
        step = self.reflection.step(0.5)
        try:
            match step:
                case List():
                    if isinstance(end, KubeError):
                        raise end
                    self._believe(self.reflection.listed(list(self.server.objects.values()), str(self.server.version), self.now))
                case Watch(version):
                    self._read(self.server.lines(int(version)), most, end)
                case Stream():
                    self._read(self.server.stream(), most, end)
        except KubeError as error:
            self.reflection.failed(error, self.now, 0.5)
        return step

    def _read(self, lines: Iterator[bytes], most: int, end: KubeError | str | None) -> None:
        self.reflection.opened(self.now)
        for _, text in zip(range(most), lines, strict=False):
            self._believe(self.reflection.receive(text, self.now))
        self.now += 10
        if isinstance(end, KubeError):
            raise end
        if end == "garbled":
            self.reflection.receive(b'{"type": "ADDED", "obj', self.now)
        self.reflection.ended(self.now)

    def _believe(self, observation: Listed | Event | None) -> None:
        if isinstance(observation, Listed):
            self.believed = {found["metadata"]["name"]: dict(found) for found in observation.items}
        elif isinstance(observation, Event):
            assert self.believed is not None, "a change came before the listing"
            name = observation.object["metadata"]["name"]
            if observation.kind == "DELETED":
                assert name in self.believed, "an object was deleted that was not there: an event was lost"
                del self.believed[name]
            else:
                assert (observation.kind == "ADDED") == (name not in self.believed), "an event was lost or repeated"
                self.believed[name] = dict(observation.object)


@settings(max_examples=300)
@given(fates=st.lists(FATES, max_size=40), streaming=st.booleans())
def test_whatever_breaks_when_calm_returns_the_belief_is_the_truth(fates: list[tuple[str, Any]], *, streaming: bool) -> None:
    believer = Believer(Server(), replace(Tuning(), streaming=streaming))
    for what, how in fates:
        match what:
            case "change":
                believer.server.change(how)
            case "forget":
                believer.server.forget()
            case "step":
                believer.step(*how)
    for _ in range(6):
        step = believer.step(1000, None)
    assert isinstance(step, Watch)
    assert believer.believed == believer.server.objects
