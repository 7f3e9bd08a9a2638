"""Services that lead to a name, the Service that answers what nobody claims, and where requests are never sent."""

from typing import Any

import pytest
from tests.messages import message

from common.contracts.objects import Service
from common.contracts.refs import ObjectRef
from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.derive.fallback import FALLBACK
from nginx_config_renderer.derive.reach import Reach
from nginx_config_renderer.plan import BACKENDS, HOSTS
from nginx_config_renderer.resolved import resolved
from nginx_config_renderer.wanted import Around, Wanted

Raw = dict[str, Any]
NAME = "db.example.org"
SHOP = ingress("shop", rule("shop.example", "/", "web:80"))


def leads_to(name: str, *ports: int | str) -> Raw:
    made = service("web", *ports)
    made["spec"] |= {"type": "ExternalName", "externalName": name}
    return made


def wanted_of(*objects: Raw, around: Around | None = None) -> Wanted:
    wanted = Wanted("local", Class(), around=around or Around())
    wanted.change([message(raw, at) for at, raw in enumerate((ingress_class(), *objects), 1)])
    return wanted


def endpoints(wanted: Wanted, key: str = "default/web:80") -> str:
    return wanted.entries[BACKENDS, key]


def told(wanted: Wanted) -> dict[str, str]:
    return {problem.reason: problem.message for problem in wanted.problems}


def test_a_service_that_leads_to_a_name_has_the_addresses_of_the_name_at_its_target_port() -> None:
    web = leads_to("DB.Example.org.", 80)
    web["spec"]["ports"][0]["targetPort"] = 8443
    wanted = wanted_of(SHOP, web)
    assert (wanted.names, endpoints(wanted)) == (frozenset({NAME}), "[]"), "nobody has looked it up yet"
    assert not wanted.problems
    assert wanted.unknown == {(BACKENDS, "default/web:80")}, "so nginx keeps what it has"
    news = wanted.resolve(resolved(NAME, ("10.0.0.7", "fd00::7")))
    assert news.entries == {(BACKENDS, "default/web:80")}
    assert endpoints(wanted) == '[["10.0.0.7",8443],["[fd00::7]",8443]]'
    assert not wanted.unknown


def test_a_service_without_ports_that_leads_to_a_name_has_the_port_that_the_ingress_names() -> None:
    web = leads_to(NAME)
    del web["spec"]["ports"]
    wanted = wanted_of(SHOP, web)
    wanted.resolve(resolved(NAME, ("10.0.0.7",)))
    assert endpoints(wanted) == '[["10.0.0.7",80]]'


def test_only_names_that_our_ingresses_use_are_looked_up_and_they_are_dropped_with_their_use() -> None:
    other = leads_to("other.example.org", 80)
    other["metadata"]["name"] = "other"
    wanted = wanted_of(SHOP, leads_to(NAME, 80), other)
    assert wanted.names == {NAME}
    assert wanted.change([message(SHOP, 9, gone=True)]).names
    assert wanted.names == frozenset()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "is loopback"),
        ("127.9.9.9", "is loopback"),
        ("::1", "is loopback"),
        ("::ffff:127.0.0.1", "is loopback"),
        ("169.254.169.254", "is link-local"),
        ("fe80::1", "is link-local"),
        ("100.100.100.200", "is a cloud's metadata"),
        ("fd00:ec2::254", "is a cloud's metadata"),
        ("0.0.0.0", "is nobody's address"),
        ("224.0.0.1", "is nobody's address"),
        ("255.255.255.255", "is nobody's address"),
        ("nonsense", "is no address"),
    ],
)
def test_a_name_that_leads_where_nothing_may_be_sent_has_no_endpoint_there_and_its_ingress_is_told(address: str, why: str) -> None:
    wanted = wanted_of(SHOP, leads_to(NAME, 80))
    wanted.resolve(resolved(NAME, ("10.0.0.7",)))
    assert endpoints(wanted) == '[["10.0.0.7",80]]'
    wanted.resolve(resolved(NAME, ("10.0.0.7", address)))
    assert endpoints(wanted) == '[["10.0.0.7",80]]', "also when it leads there later"
    assert told(wanted)["AddressRefused"].startswith(
        f"Service default/web: {NAME} leads to {address} ({why}), where nothing is sent"
    )


def test_a_name_that_leads_to_the_edges_own_ports_is_refused_and_to_another_port_of_its_machine_is_not() -> None:
    around = Around(reach=Reach(reserved=frozenset({80, 9090})))
    for port, refused in ((9090, True), (80, True), (8080, False)):
        shop = ingress("shop", rule("shop.example", "/", f"web:{port}"))
        wanted = wanted_of(shop, leads_to(NAME, port), around=around)
        wanted.resolve(resolved(NAME, ("10.0.0.1",), own=("10.0.0.1",)))
        assert ("AddressRefused" in told(wanted)) is refused
        assert (endpoints(wanted, f"default/web:{port}") == "[]") is refused


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "localhost.localdomain", "bad name", "x;y", "-a.example", "a" * 300])
def test_what_is_no_name_of_another_host_is_never_asked_for(name: str) -> None:
    wanted = wanted_of(SHOP, leads_to(name, 80))
    assert wanted.names == frozenset()
    assert "is no name of another host" in told(wanted)["BadExternalName"]


def test_names_can_be_refused_altogether() -> None:
    wanted = wanted_of(SHOP, leads_to(NAME, 80), around=Around(reach=Reach(external=False)))
    assert (wanted.names, endpoints(wanted)) == (frozenset(), "[]")
    assert "the edge follows no names" in told(wanted)["ExternalNameOff"]


def test_a_failed_lookup_is_told_and_the_last_addresses_stay() -> None:
    wanted = wanted_of(SHOP, leads_to(NAME, 80))
    wanted.resolve(resolved(NAME, ("10.0.0.7",), problem=f"{NAME} cannot be looked up now"))
    assert endpoints(wanted) == '[["10.0.0.7",80]]'
    assert told(wanted) == {"NameUnresolved": f"Service default/web: {NAME} cannot be looked up now"}


def test_while_nobody_ever_said_what_a_name_means_that_is_told_and_nginx_keeps_what_it_has() -> None:
    wanted = wanted_of(SHOP, leads_to(NAME, 80))
    news = wanted.resolve(resolved(NAME, problem=f"{NAME} cannot be looked up now", known=False))
    assert news.entries == frozenset()
    assert wanted.unknown == {(BACKENDS, "default/web:80")}
    assert told(wanted) == {"NameUnresolved": f"Service default/web: {NAME} cannot be looked up now"}
    assert wanted.resolve(resolved(NAME)).entries == {(BACKENDS, "default/web:80")}, "it is known to have no address"
    assert not wanted.unknown


def test_a_new_snapshot_keeps_what_names_mean() -> None:
    wanted = wanted_of(SHOP, leads_to(NAME, 80))
    wanted.resolve(resolved(NAME, ("10.0.0.7",)))
    wanted.replace([message(raw, at) for at, raw in enumerate((ingress_class(), SHOP, leads_to(NAME, 80)), 20)], [])
    assert endpoints(wanted) == '[["10.0.0.7",80]]'


def test_endpoints_on_the_loopback_address_are_for_a_folder_of_manifests_alone() -> None:
    objects = SHOP, service("web"), endpoint_slice("web", "127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1")
    assert endpoints(wanted_of(*objects)) == '[["10.0.0.1",8080],["127.0.0.1",8080]]'
    assert endpoints(wanted_of(*objects, around=Around(reach=Reach(loopback=False)))) == '[["10.0.0.1",8080]]'


def test_a_slice_of_names_has_no_addresses() -> None:
    found = endpoint_slice("web", "localhost", "metadata.google.internal") | {"addressType": "FQDN"}
    assert endpoints(wanted_of(SHOP, service("web"), found)) == "[]"


def test_a_service_that_wants_so_is_asked_before_it_is_ready_and_what_ends_comes_last() -> None:
    web = service("web")
    web["spec"] |= {"publishNotReadyAddresses": True, "clusterIP": "None"}
    found = endpoint_slice("web", not_ready=["10.0.0.1", "10.0.0.2"])
    found["endpoints"][0]["conditions"]["terminating"] = True
    assert endpoints(wanted_of(SHOP, web, found)) == '[["10.0.0.2",8080]]'
    del found["endpoints"][1]
    assert endpoints(wanted_of(SHOP, web, found)) == '[["10.0.0.1",8080]]'


def test_what_nobody_claims_goes_to_the_first_port_of_the_service_that_the_operator_names() -> None:
    around = Around(fallback=ObjectRef(Service.resource, "infra", "sorry"))
    wanted = wanted_of(around=around)
    assert wanted.entries[HOSTS, FALLBACK] == '{"e":{},"p":{"":["infra/sorry:","-"]}}'
    assert "--default-backend-service names it" in told(wanted)["ServiceNotFound"]
    sorry = service("sorry", "http:80", "other:81", namespace="infra")
    slices = endpoint_slice("sorry", "10.0.0.9", port_name="http", namespace="infra")
    wanted.change([message(sorry, 8), message(slices, 9)])
    assert (endpoints(wanted, "infra/sorry:"), told(wanted)) == ('[["10.0.0.9",8080]]', {})
    wanted.replace([message(raw, at) for at, raw in enumerate((ingress_class(), sorry, slices), 20)], [])
    assert endpoints(wanted, "infra/sorry:") == '[["10.0.0.9",8080]]'
