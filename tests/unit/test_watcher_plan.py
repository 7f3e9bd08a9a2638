"""What must be published because a source observed something."""

from typing import Any

from common.contracts.objects import Service
from common.contracts.refs import ObjectRef, ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted
from watcher.diff import Held
from watcher.model import Gone, Listed, Put
from watcher.plan import Plan, plan


def service(name: str, port: Any = 80) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "5"},
        "spec": {"ports": [{"port": port}]},
    }


def ref(name: str) -> ObjectRef:
    return ObjectRef(Service.resource, "shop", name)


def held(*names: str) -> dict[ObjectRef, Held]:
    return {ref(name): Held(name, ResourceVersion("1"), "old") for name in names}


def said(result: Plan) -> list[tuple[str, str]]:
    return [(type(message).__name__, message.ref.name) for message in result.messages]


def test_a_listing_brings_tombstones_for_what_nobody_saw_go() -> None:
    result = plan(Listed(Service, [service("a"), service("b")], "9"), held("b", "c"))
    assert said(result) == [("ObjectDeleted", "c"), ("ObjectApplied", "a"), ("ObjectApplied", "b")]


def test_an_incomplete_listing_deletes_nothing() -> None:
    assert said(plan(Listed(Service, [service("a")], "9", complete=False), held("b"))) == [("ObjectApplied", "a")]


def test_an_object_that_cannot_be_read_stays_as_it_was_and_is_told() -> None:
    result = plan(Listed(Service, [service("a"), service("bad", "x")], "9"), held("bad", "c"))
    assert said(result) == [("ObjectDeleted", "c"), ("ObjectApplied", "a")]
    problem = result.problems[ref("bad")]
    assert problem is not None
    assert "spec.ports.0.port" in problem.message
    assert result.problems[ref("a")] is None


def test_a_change_is_published_as_it_is() -> None:
    (message,) = plan(Put(Service, service("a")), {}).messages
    assert isinstance(message, ObjectApplied)
    (gone,) = plan(Gone(Service, service("a")), {}).messages
    assert gone == ObjectDeleted(ref("a"), "a", ResourceVersion("5"))


def test_the_problem_of_an_object_ends_when_it_can_be_read_or_is_gone() -> None:
    assert plan(Put(Service, service("a", "x")), {}).problems[ref("a")] is not None
    assert plan(Put(Service, service("a")), {}).problems[ref("a")] is None
    assert plan(Gone(Service, service("a", "x")), {}).problems[ref("a")] is None
