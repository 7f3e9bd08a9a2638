"""The bytes of a released version still decode, and mean what they meant."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from common.codec import decode
from common.contracts.addresses import read_wanted
from common.contracts.balancers import read_found
from common.contracts.facts import AddressGiven, Alert, Applied, Fact, Rejected, read_firing
from common.contracts.objects import BY_KIND, MODELS
from common.contracts.refs import ObjectRef, Resource
from common.contracts.state import ObjectApplied, ObjectDeleted, read_marker, read_state
from tests.contract.record import RELEASED, messages

FILES = sorted(RELEASED.glob("*.json"))
OBJECTS = {model.kind.lower(): model for model in MODELS}


def recorded(file: Path) -> tuple[dict[str, str], bytes, Any]:
    content = json.loads(file.read_text())
    return content["headers"], base64.b64decode(content["body"]), content["data"]


def covers(data: Any, meaning: Any) -> bool:
    """Whether `meaning` still says everything that `data` said; newer releases may say more."""
    if isinstance(data, dict):
        return isinstance(meaning, dict) and all(key in meaning and covers(value, meaning[key]) for key, value in data.items())
    if isinstance(data, list):
        return isinstance(meaning, list) and len(data) == len(meaning) and all(map(covers, data, meaning))
    return bool(data == meaning)


def test_every_kind_of_message_is_recorded() -> None:
    assert {file.stem for file in FILES} == set(messages())
    others = {
        "tombstone",
        "sync",
        "applied-fact",
        "rejected-fact",
        "alert",
        "address-fact",
        "wanted-addresses",
        "balancer-found",
        "firing",
    }
    assert {*OBJECTS, *others} == {file.stem for file in FILES}


@pytest.mark.parametrize("file", [file for file in FILES if file.stem in OBJECTS], ids=lambda file: file.stem)
def test_a_recorded_object_keeps_its_meaning(file: Path) -> None:
    headers, body, data = recorded(file)
    event = decode(headers, body)
    api_version, _, kind = event.extensions["k8sgvk"].rpartition("/")
    model = BY_KIND[api_version, kind]
    metadata = data["metadata"]
    message = read_state(ObjectRef(model.resource, metadata.get("namespace", ""), metadata["name"]), event)
    assert isinstance(message, ObjectApplied)
    assert covers(data, json.loads(json.dumps(message.object.to_data())))
    assert (message.uid, str(message.version), message.digest) == tuple(
        headers[f"ce-{name}"] for name in ("k8suid", "k8srv", "hash")
    )


def test_a_recorded_tombstone_keeps_its_meaning() -> None:
    headers, body, _ = recorded(RELEASED / "tombstone.json")
    ref = ObjectRef(Resource("storage.k8s.io", "storageclasses"), "", "rbd")
    message = read_state(ref, decode(headers, body))
    assert isinstance(message, ObjectDeleted)
    assert (message.uid, str(message.version)) == ("7c0f", "99")


def test_a_recorded_marker_keeps_its_meaning() -> None:
    headers, body, data = recorded(RELEASED / "sync.json")
    assert covers(data, read_marker(decode(headers, body)).model_dump())


def test_a_recorded_wish_keeps_its_meaning() -> None:
    headers, body, data = recorded(RELEASED / "wanted-addresses.json")
    assert covers(data, read_wanted(decode(headers, body)).model_dump(mode="json"))


def test_what_a_balancer_found_keeps_its_meaning() -> None:
    headers, body, data = recorded(RELEASED / "balancer-found.json")
    assert covers(data, read_found(decode(headers, body)).model_dump(mode="json"))


def test_what_fired_keeps_its_meaning() -> None:
    headers, body, data = recorded(RELEASED / "firing.json")
    assert covers(data, read_firing(decode(headers, body)).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("name", "model"),
    [("applied-fact", Applied), ("rejected-fact", Rejected), ("alert", Alert), ("address-fact", AddressGiven)],
)
def test_a_recorded_fact_keeps_its_meaning(name: str, model: type[Fact]) -> None:
    headers, body, data = recorded(RELEASED / f"{name}.json")
    assert covers(data, model.model_validate(decode(headers, body).data).model_dump())
