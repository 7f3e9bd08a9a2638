"""The store answers what changed, and a table always equals a derivation from nothing."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.contracts.objects import ConfigMap, Ingress, Projection, Service
from common.contracts.problems import Problem
from common.store import Change, Derived, Index, Reads, Store, Table, View


def service(name: str, **labels: str) -> Service:
    return Service.project({"metadata": {"name": name, "namespace": "shop", "labels": labels}})


def ingress(name: str, *hosts: str, team: str = "") -> Ingress:
    rules = [{"host": host} for host in hosts]
    return Ingress.project({"metadata": {"name": name, "namespace": "shop", "labels": {"team": team}}, "spec": {"rules": rules}})


BY_TEAM = Index(Service, lambda found: found.metadata.labels.values())
BY_HOST = Index(Ingress, lambda found: (one.host for one in found.spec.rules))


def test_an_applied_object_is_found_by_name_and_by_index() -> None:
    store = Store(BY_TEAM)
    change = store.apply(service("web", team="a"))
    assert change == Change(service("web").ref, None, service("web", team="a"))
    assert store.get(Service, "shop", "web") == service("web", team="a")
    assert store.by(BY_TEAM, "a") == (service("web", team="a"),)


def test_a_repeated_message_changes_nothing() -> None:
    store = Store(BY_TEAM)
    store.apply(service("web", team="a"))
    assert store.apply(service("web", team="a")) is None
    assert store.delete(service("other").ref) is None


def test_an_object_leaves_the_keys_it_no_longer_has() -> None:
    store = Store(BY_TEAM)
    store.apply(service("web", team="a"))
    store.apply(service("web", team="b"))
    assert store.by(BY_TEAM, "a") == ()
    assert store.keys(BY_TEAM) == {"b"}
    store.delete(service("web").ref)
    assert store.keys(BY_TEAM) == frozenset()


def test_replace_deletes_what_is_not_named() -> None:
    store = Store()
    store.replace([service("a"), service("b")])
    changes = store.replace([service("b"), service("c")])
    assert {(change.ref.name, change.old is None, change.new is None) for change in changes} == {
        ("a", False, True),
        ("c", True, False),
    }
    assert [found.metadata.name for found in store.all(Service)] == ["b", "c"]
    assert len(store) == 2


def test_answers_are_sorted_by_name() -> None:
    store = Store(BY_TEAM)
    for name in ("c", "a", "b"):
        store.apply(service(name, team="x"))
    assert [found.metadata.name for found in store.by(BY_TEAM, "x")] == ["a", "b", "c"]


def test_a_view_notes_also_what_was_not_found() -> None:
    store = Store(BY_TEAM)
    view = View(store)
    view.get(Service, "shop", "missing")
    view.by(BY_TEAM, "nobody")
    assert view.reads == {service("missing").ref, (BY_TEAM, "nobody")}


def derive(view: Reads, host: str) -> Derived[tuple[str, ...]]:
    """Reads in every way that a derivation can: the index of its domain, objects by name that may be missing, a second index."""
    values: list[str] = []
    problems: list[Problem] = []
    for found in view.by(BY_HOST, host):
        backend = view.get(Service, "shop", found.metadata.name)
        if backend is None:
            problems.append(Problem(found.ref, "NoService", f"{host}: Service {found.metadata.name} is missing"))
            continue
        team = found.metadata.labels["team"]
        values.append(f"{found.metadata.name}@{'+'.join(peer.metadata.name for peer in view.by(BY_TEAM, team))}")
    return Derived(tuple(values) or None, tuple(problems))


NAMES = ("a", "b", "c", "d")
HOSTS = ("one", "two", "three")
TEAMS = ("red", "blue")
objects: st.SearchStrategy[Projection] = st.one_of(
    st.builds(lambda name, team: service(name, team=team), st.sampled_from(NAMES), st.sampled_from(TEAMS)),
    st.builds(
        lambda name, hosts, team: ingress(name, *hosts, team=team),
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(HOSTS), max_size=3, unique=True),
        st.sampled_from(TEAMS),
    ),
    st.builds(lambda name: ConfigMap.project({"metadata": {"name": name, "namespace": "shop"}}), st.sampled_from(NAMES)),
)


class TableFollowsStore(RuleBasedStateMachine):
    """Random histories: after each step the kept table must equal one that is derived from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(BY_HOST, BY_TEAM)
        self.table: Table[str, tuple[str, ...]] = Table(self.store, BY_HOST, derive)
        self.mirror: dict[str, Any] = {}

    def follow(self, changes: list[Change]) -> None:
        delta = self.table.update(changes)
        for host, value in delta.values.items():
            assert value != self.mirror.get(host), "a delta names only what is different"
            if value is None:
                del self.mirror[host]
            else:
                self.mirror[host] = value

    @rule(batch=st.lists(st.tuples(st.booleans(), objects), min_size=1, max_size=6))
    def change(self, batch: list[tuple[bool, Projection]]) -> None:
        answers = [self.store.apply(new) if put else self.store.delete(new.ref) for put, new in batch]
        self.follow([answer for answer in answers if answer is not None])

    @rule(held=st.lists(objects, max_size=8))
    def replace(self, held: list[Projection]) -> None:
        self.follow(list(self.store.replace(held)))

    @invariant()
    def the_table_equals_a_derivation_of_every_key_from_nothing(self) -> None:
        derived = {host: derive(View(self.store), host) for host in self.store.keys(BY_HOST)}
        expected = {host: result.value for host, result in derived.items() if result.value is not None}
        assert dict(self.table.values) == expected == self.mirror
        assert set(self.table.problems) == {problem for result in derived.values() for problem in result.problems}


TestTableFollowsStore = TableFollowsStore.TestCase


@given(st.lists(objects, max_size=10))
def test_the_order_of_messages_does_not_change_the_result(held: list[Projection]) -> None:
    last = list({found.ref: found for found in held}.values())
    results = []
    for order in (last, last[::-1]):
        store = Store(BY_HOST, BY_TEAM)
        table: Table[str, tuple[str, ...]] = Table(store, BY_HOST, derive)
        table.update(store.replace(order))
        results.append((dict(table.values), table.problems))
    assert results[0] == results[1]


def test_only_keys_that_read_the_change_are_derived_again() -> None:
    derived: list[str] = []

    def counting(view: Reads, host: str) -> Derived[tuple[str, ...]]:
        derived.append(host)
        return derive(view, host)

    store = Store(BY_HOST, BY_TEAM)
    table: Table[str, tuple[str, ...]] = Table(store, BY_HOST, counting)
    table.update(
        store.replace([service("a", team="red"), service("b", team="blue"), ingress("a", "one", team="red"), ingress("b", "two")])
    )
    derived.clear()
    change = store.apply(service("a", team="red", tier="front"))
    assert change is not None
    table.update([change])
    assert derived == ["one"]
