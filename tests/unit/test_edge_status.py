"""The status of Ingresses shows where they are served, and is written only where it differs."""

from common.contracts.objects import Ingress
from common.testing.objects import ingress, rule
from nginx_config_renderer.status import writes


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
