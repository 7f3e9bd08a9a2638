"""The status of Ingresses shows where they are served, and is written only where it differs."""

from typing import Any

import pytest

from common.contracts.objects import Ingress, Service
from common.contracts.refs import ObjectRef
from common.testing.objects import ingress, rule, service
from nginx_config_renderer.status import MOST, Unshown, addresses_of, writes


def shop(*shown: dict[str, str]) -> Ingress:
    raw = ingress("shop", rule("shop.example", "/", "web:80"))
    return Ingress.project(raw | {"status": {"loadBalancer": {"ingress": list(shown)}}})


def test_addresses_and_names_are_written_sorted_and_once() -> None:
    (write,) = writes([shop()], ["10.0.0.2", "edge.example", "10.0.0.1", "10.0.0.2", "fd00::1"])
    assert write.ref == shop().ref
    assert write.status == {
        "loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"hostname": "edge.example"}, {"ip": "fd00::1"}]}
    }


def test_what_is_shown_already_is_not_written_again() -> None:
    assert writes([shop({"ip": "10.0.0.1"})], ["10.0.0.1"]) == ()
    assert len(writes([shop({"ip": "10.0.0.1"}, {"ip": "10.0.0.2"})], ["10.0.0.1"])) == 1


def test_while_no_address_is_known_what_is_shown_stays() -> None:
    assert writes([shop({"ip": "10.0.0.1"})], []) == ()


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"type": "LoadBalancer", "clusterIP": "10.96.0.1"}, ()),
        ({"type": "LoadBalancer", "given": [{"ip": "192.0.2.1"}, {"hostname": "edge.example"}]}, ("192.0.2.1", "edge.example")),
        ({"type": "LoadBalancer", "given": [{"ip": "192.0.2.1"}], "externalIPs": ["192.0.2.2"]}, ("192.0.2.1", "192.0.2.2")),
        ({"type": "ClusterIP", "clusterIP": "10.96.0.1"}, ("10.96.0.1",)),
        ({"type": "NodePort", "clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.2"]}, ("192.0.2.2",)),
        ({"type": "ClusterIP", "clusterIP": "None"}, ()),
        ({"type": "ExternalName", "externalName": "edge.example"}, ("edge.example",)),
    ],
)
def test_a_services_addresses_are_shown_as_ingress_nginx_shows_them(spec: dict[str, Any], addresses: tuple[str, ...]) -> None:
    raw = service("edge")
    given = spec.pop("given", [])
    raw["spec"] |= spec
    assert addresses_of(Service.project(raw | {"status": {"loadBalancer": {"ingress": given}}})) == addresses


def test_a_service_that_is_not_there_has_no_address() -> None:
    assert addresses_of(None) == ()


def refs(*names: str) -> set[ObjectRef]:
    return {ObjectRef(Ingress.resource, "default", name) for name in names}


def test_all_are_looked_at_once_and_then_those_that_changed() -> None:
    unshown, all_of_them = Unshown(), refs("a", "b", "c")
    assert set(unshown.take(lambda: all_of_them)) == all_of_them
    unshown.add(refs("a"))
    unshown.add(refs("b"))
    assert set(unshown.take(lambda: all_of_them)) == refs("a", "b")
    assert unshown.take(lambda: all_of_them) == ()


def test_what_changes_while_nobody_looks_takes_no_more_room_than_some() -> None:
    unshown, all_of_them = Unshown(), refs("a")
    unshown.take(lambda: all_of_them)
    unshown.add(refs(*(f"n{number}" for number in range(MOST + 1))))
    unshown.add(refs("b"))
    assert set(unshown.take(lambda: all_of_them)) == all_of_them
