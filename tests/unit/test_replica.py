"""The replica takes what is valid, keeps what was good, and finds out when something is missing."""

import sys
from collections.abc import Sequence

import pytest
from tests.messages import Stored

from common.codec import digest, encode
from common.contracts.objects import ConfigMap, Service
from common.contracts.refs import ObjectRef, ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted, SyncMarker, applied_event, deleted_event, fold, marker_event
from common.contracts.subjects import state_subject, sync_subject
from common.replica import Replica
from common.store import Store

TIME = "2026-01-02T03:04:05Z"


def config(name: str, value: str = "x") -> ObjectApplied:
    raw = {"metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}"}, "data": {"k": value}}
    projected = ConfigMap.project(raw)
    return ObjectApplied(projected, ResourceVersion("1"), digest(projected.to_data()))


def put(message: ObjectApplied, sequence: int, subject: str = "") -> Stored:
    encoded = encode(applied_event(message, source="/test", time=TIME))
    return Stored(subject or state_subject("prod", message.ref), encoded.headers, encoded.body, sequence)


def drop(message: ObjectApplied, sequence: int) -> Stored:
    encoded = encode(deleted_event(ObjectDeleted(message.ref, message.uid, message.version), source="/test", time=TIME))
    return Stored(state_subject("prod", message.ref), encoded.headers, b"", sequence, gone=True)


def marker(held: Sequence[ObjectApplied], through: int) -> Stored:
    hash_ = fold((message.ref, message.digest) for message in held)
    said = SyncMarker(watcher="w", version="1", count=len(held), hash=hash_, through=through, time=TIME)
    encoded = encode(marker_event(ConfigMap.resource, said, source="/test"))
    return Stored(sync_subject("prod", ConfigMap.resource), encoded.headers, encoded.body, through + 1)


def names(replica: Replica) -> list[str]:
    return [found.metadata.name for found in replica.store.all(ConfigMap)]


def test_messages_become_objects_and_tombstones_take_them_away() -> None:
    replica = Replica("prod", Store())
    taken = replica.replace([put(config("a"), 1), put(config("b"), 2)])
    assert len(taken.changes) == 2
    replica.change([put(config("c"), 3), drop(config("a"), 4)])
    assert names(replica) == ["b", "c"]
    replica.replace([put(config("c"), 3)])
    assert names(replica) == ["c"]


def test_another_cluster_on_the_same_bus_is_not_ours() -> None:
    replica = Replica("prod", Store())
    replica.change([put(config("a"), 1, subject=state_subject("test", config("a").ref))])
    assert names(replica) == []


def broken(sequence: int, **headers: str) -> Stored:
    good = put(config("a", "new"), sequence)
    return Stored(good.subject, {**good.headers, **headers}, good.body, sequence)


WRONG: list[tuple[Stored, str]] = [
    (Stored(state_subject("prod", config("a").ref), {}, b"", 9), "specversion"),
    (broken(9, **{"ce-type": "org.example.other"}), "no state message"),
    (broken(9, **{"ce-k8suid": "another"}), "speaks of"),
    (broken(9, **{"ce-k8srv": "x"}), "resourceVersion"),
    (put(config("b"), 9, subject=state_subject("prod", config("a").ref)), "speaks of"),
]


@pytest.mark.parametrize(("message", "reason"), WRONG)
def test_a_message_that_is_not_valid_leaves_the_last_good_version(message: Stored, reason: str) -> None:
    replica = Replica("prod", Store())
    replica.change([put(config("a", "good"), 1)])
    for taken in (replica.change([message]), replica.replace([message])):
        assert [reason in problem.message for problem in replica.unreadable.values()] == [True]
        assert taken.changes == ()
        held = replica.store.get(ConfigMap, "shop", "a")
        assert held is not None
        assert held.data == {"k": "good"}


def test_an_object_under_the_subject_of_another_resource_is_refused() -> None:
    replica = Replica("prod", Store())
    alien = put(config("a"), 1, subject=state_subject("prod", ObjectRef(Service.resource, "shop", "a")))
    replica.change([alien])
    (problem,) = replica.unreadable.values()
    assert "v1/ConfigMap" in problem.message
    assert len(replica.store) == 0


def test_a_marker_proves_that_nothing_is_missing() -> None:
    replica = Replica("prod", Store())
    replica.replace([put(config("a"), 1), put(config("b"), 2)])
    (comparison,) = replica.change([marker([config("a"), config("b")], through=2)]).comparisons
    assert comparison.equal
    assert replica.markers.keys() == {ConfigMap.resource}


@pytest.mark.parametrize("held", [[], [config("a")], [config("a"), config("b", "other")], [config("a"), config("c")]])
def test_a_marker_finds_what_is_missing_or_different(held: list[ObjectApplied]) -> None:
    replica = Replica("prod", Store())
    replica.replace([put(config("a"), 1), put(config("b"), 2)])
    (comparison,) = replica.change([marker(held, through=2)]).comparisons
    assert not comparison.equal


def test_a_marker_from_before_the_newest_message_proves_nothing() -> None:
    replica = Replica("prod", Store())
    replica.replace([put(config("a"), 1)])
    assert replica.change([put(config("b"), 3), marker([config("a")], through=2)]).comparisons == ()


def test_a_marker_from_before_the_end_of_the_snapshot_proves_nothing() -> None:
    replica = Replica("prod", Store())
    replica.replace([put(config("a"), 1)], [drop(config("b"), 7)])
    assert replica.change([marker([config("a"), config("b")], through=5)]).comparisons == ()


def test_no_text_of_a_message_is_kept_when_its_object_is() -> None:
    replica = Replica("prod", Store())
    message = put(config("a"), 1)
    version = str(42)
    headers = {**message.headers, "ce-k8srv": version}
    before = sys.getrefcount(version)
    (sighting,) = replica.replace([Stored(message.subject, headers, message.body, 1)]).sightings
    assert sighting.version == "42"
    assert sys.getrefcount(version) == before
