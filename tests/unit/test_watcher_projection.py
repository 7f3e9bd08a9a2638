"""What the watcher makes of raw objects, and what it finds different from the replica."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from common.contracts.objects import BY_KIND, MODELS, ConfigMap, Ingress, Node, Projection, Secret, Service
from common.contracts.refs import ObjectRef, ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted
from watcher.diff import Held, diff
from watcher.model import Raw
from watcher.projection import Unreadable, applied, deleted


def raw(name: str = "web", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "7", **more.pop("metadata", {})}
    return {"metadata": metadata, **more}


def project(model: type[Projection], item: Raw) -> ObjectApplied:
    message = applied(model, item)
    assert isinstance(message, ObjectApplied)
    return message


def test_bookkeeping_is_left_out() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}
    noisy = raw(metadata={"managedFields": [{"manager": "x"}], "annotations": annotations})
    assert project(Service, noisy).object.to_data()["metadata"] == {
        "name": "web",
        "namespace": "shop",
        "uid": "uid-web",
        "annotations": {"a": "b"},
    }


def test_a_new_version_with_the_same_projection_has_the_same_digest() -> None:
    def node(heartbeat: str, version: str) -> Raw:
        condition = {
            "type": "Ready",
            "status": "True",
            "lastHeartbeatTime": heartbeat,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        return raw(metadata={"resourceVersion": version}, status={"conditions": [condition]})

    first, second = project(Node, node("2026-01-01T00:00:10Z", "8")), project(Node, node("2026-01-01T00:00:20Z", "9"))
    assert first.digest == second.digest
    assert first.version < second.version


def test_the_order_of_labels_does_not_matter() -> None:
    first = project(Service, raw(metadata={"labels": {"a": "1", "b": "2"}}))
    second = project(Service, raw(metadata={"labels": {"b": "2", "a": "1"}}))
    assert first.digest == second.digest


def test_a_secret_travels_without_its_data() -> None:
    item = raw(
        type="kubernetes.io/tls",
        data={"tls.key": "c2VjcmV0LWJ5dGVz", "tls.crt": "x"},
        stringData={"extra": "secret-text"},
        metadata={"annotations": {"copy": "secret-note"}},
    )
    notice = project(Secret, item)
    assert notice.object.to_data() == {
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-web"},
        "type": "kubernetes.io/tls",
        "keys": ["extra", "tls.crt", "tls.key"],
        "dataVersion": "7",
    }


def test_a_secret_with_new_data_under_the_same_keys_is_a_new_notice() -> None:
    first = project(Secret, raw(data={"a": "1"}))
    second = project(Secret, raw(data={"a": "2"}, metadata={"resourceVersion": "8"}))
    assert first.digest != second.digest


def test_null_is_the_same_as_absent() -> None:
    assert project(Service, raw(spec={"ports": None, "selector": None})).object == project(Service, raw(spec={})).object


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (raw(spec={"ports": [{"port": "eighty"}]}), ["spec.ports.0.port", "eighty", "valid integer"]),
        (raw(spec={"ports": [{"name": "http"}]}), ["spec.ports.0.port", "required"]),
        (raw(metadata={"annotations": {"a": 1}}), ["metadata.annotations.a", "1", "valid string"]),
        (raw(metadata={"resourceVersion": "abc"}), ["metadata.resourceVersion", "abc"]),
        ({"metadata": {}}, ["metadata.name", "required"]),
    ],
)
def test_an_unreadable_object_is_a_problem_that_names_the_field_and_the_value(item: Raw, words: list[str]) -> None:
    message = applied(Service, item)
    assert isinstance(message, Unreadable)
    assert all(word in message.problem.message for word in words), message.problem.message


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_every_projection_survives_the_wire(model: type[Projection]) -> None:
    message = project(model, raw())
    assert model.read(message.object.to_data()) == message.object
    assert message.ref == ObjectRef(model.resource, "shop", "web")


SAMPLES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "contract/objects.json").read_text())
BOOKKEEPING = {"apiVersion", "resourceVersion", "lastHeartbeatTime"}


def fields(data: Any, path: str = "") -> set[str]:
    """The path of every leaf, without what is left out on purpose."""
    if isinstance(data, dict):
        return {leaf for key, value in data.items() if key not in BOOKKEEPING for leaf in fields(value, f"{path}.{key}")}
    if isinstance(data, list):
        return {leaf for index, value in enumerate(data) for leaf in fields(value, f"{path}[{index}]")}
    return {f"{path}={data}"}


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if sample["kind"] != "Secret"], ids=lambda sample: sample["kind"])
def test_what_a_model_knows_has_the_name_that_kubernetes_gives_it(sample: Raw) -> None:
    model = BY_KIND[sample["apiVersion"], sample["kind"]]
    projected = TypeAdapter(model).dump_python(model.project(sample), mode="json", by_alias=True)
    known = {key: value for key, value in sample.items() if key not in {"apiVersion", "kind"}}
    missing = fields(known) - fields(projected)
    assert {leaf for leaf in missing if "ownerReferences" not in leaf} == set()


def test_a_deletion_carries_the_last_version() -> None:
    assert deleted(Service, raw()) == ObjectDeleted(ObjectRef(Service.resource, "shop", "web"), "uid-web", ResourceVersion("7"))


names = st.sampled_from(["a", "b", "c", "d"])
contents = st.dictionaries(names, st.tuples(st.sampled_from(["u1", "u2"]), st.sampled_from(["x", "y"])))


def config(name: str, uid: str, value: str) -> ObjectApplied:
    return project(ConfigMap, raw(name, data={"k": value}, metadata={"uid": uid}))


@given(contents, contents, st.booleans())
def test_publishing_the_difference_makes_the_replica_equal_the_listing(
    before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]], backwards: bool
) -> None:
    old = [config(name, *content) for name, content in before.items()]
    new = [config(name, *content) for name, content in after.items()]
    held = {message.ref: Held(message.uid, message.version, message.digest) for message in old}
    messages = diff(held, new[::-1] if backwards else new)
    replica = {message.ref: (message.uid, message.digest) for message in old}
    for message in messages:
        if isinstance(message, ObjectDeleted):
            del replica[message.ref]
        else:
            assert replica.get(message.ref) != (message.uid, message.digest), "nothing is published twice"
            replica[message.ref] = (message.uid, message.digest)
    assert replica == {message.ref: (message.uid, message.digest) for message in new}
    assert messages == diff(held, new)


def test_an_object_that_is_there_but_unreadable_is_not_deleted() -> None:
    ref = ObjectRef(Ingress.resource, "shop", "web")
    held = {ref: Held("u", ResourceVersion("1"), "x")}
    assert diff(held, [], keep=frozenset({ref})) == ()
    assert [type(message) for message in diff(held, [])] == [ObjectDeleted]
