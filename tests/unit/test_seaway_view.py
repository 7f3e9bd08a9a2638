"""How the replica is shown."""

import json

import pytest
import yaml

from common.contracts.objects import MODELS, Ingress, Node
from common.contracts.refs import ResourceVersion
from common.contracts.state import ObjectApplied
from seaway.view import Format, age, document, dump, dump_change, dump_list, find, named, row, table


def applied(namespace: str = "shop", name: str = "web") -> ObjectApplied:
    return ObjectApplied(Ingress.project({"metadata": {"name": name, "namespace": namespace}}), ResourceVersion("41"), "d")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (754, "12m34s"),
        (3600, "1h"),
        (7325, "2h2m"),
        (86400 * 3 + 4 * 3600, "3d4h"),
    ],
)
def test_an_age_reads_as_in_kubectl(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [row(applied(), 100, 103), row(applied(name="a-longer-name"), 100, 103)]
    assert table(rows).splitlines() == [
        "RESOURCE                      NAMESPACE   NAME            VERSION   AGE",
        "ingresses.networking.k8s.io   shop        web             41        3s",
        "ingresses.networking.k8s.io   shop        a-longer-name   41        3s",
    ]


def test_an_object_is_shown_as_a_manifest() -> None:
    shown = document(applied())
    assert (shown["apiVersion"], shown["kind"]) == ("networking.k8s.io/v1", "Ingress")
    assert shown["metadata"] == {"name": "web", "namespace": "shop", "resourceVersion": "41"}
    assert json.loads(dump(shown, Format.JSON)) == yaml.safe_load(dump(shown, Format.YAML)) == shown
    for count in (0, 1, 2):
        assert list(yaml.safe_load_all(dump_list([shown] * count, Format.YAML))) == [shown] * count
        assert json.loads(dump_list([shown] * count, Format.JSON))["items"] == [shown] * count
    stream = [dump_change("APPLIED", shown, form) for form in (Format.JSON, Format.YAML)]
    assert json.loads(stream[0]) == yaml.safe_load(stream[1]) == {"type": "APPLIED", "object": shown}
    assert "\n" not in stream[0]


@pytest.mark.parametrize("name", ["ingresses", "ingress", "Ingress", "ingresses.networking.k8s.io"])
def test_a_resource_is_found_by_the_names_that_people_use(name: str) -> None:
    assert find(name, [model.resource for model in MODELS]) == Ingress.resource


def test_an_unknown_resource_is_not_guessed() -> None:
    assert find("ingres", [model.resource for model in MODELS]) is None


def test_an_object_of_the_cluster_is_named_with_a_dash() -> None:
    assert named(Node.resource, "-", "n1").namespace == ""
