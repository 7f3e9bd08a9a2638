"""From objects to nginx's tables: who is served, by which path, at which endpoints, and what is said to those who are not."""

from typing import Any

import pytest

from common.contracts.objects import BY_KIND
from common.knobs import Knob
from common.store import Store, Table
from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer.annotations import ON, PREFIX, TABLE
from nginx_config_renderer.derive.backends import endpoints
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.derive.hosts import routes
from nginx_config_renderer.derive.indexes import BY_BACKEND, BY_HOST, BY_NAME, INDEXES
from nginx_config_renderer.derive.paths import normalise
from nginx_config_renderer.derive.policies import policies
from nginx_config_renderer.model import Backend, BackendKey, Canary, ClientAuth, Emergency, Endpoint, HostRoutes, IngressKey, Route
from nginx_config_renderer.policy import Affinity, BackendTLS, Policy, Special
from nginx_config_renderer.wanted import NO_CONFIGMAP

Raw = dict[str, Any]
NGINX = ingress_class()
WEB = BackendKey("default", "web", "80")
API = BackendKey("default", "api", "80")
SHOP = IngressKey("default", "shop")


class Derived:
    """The tables of some objects."""

    def __init__(self, *objects: Raw, ours: Class | None = None) -> None:
        store = Store(*INDEXES)
        hosts: Table[str, HostRoutes] = Table(store, BY_HOST, routes(ours or Class(), NO_CONFIGMAP))
        backends: Table[BackendKey, Backend] = Table(store, BY_BACKEND, endpoints(ours or Class()))
        changes = store.replace(BY_KIND[raw["apiVersion"], raw["kind"]].project(raw) for raw in objects)
        treated: Table[IngressKey, Special] = Table(store, BY_NAME, policies(ours or Class()))
        for table in (hosts, backends, treated):
            table.update(changes)
        self.hosts = dict(hosts.values)
        self.backends = dict(backends.values)
        self.policies = {key: special.policy for key, special in treated.values.items()}
        problems = (*hosts.problems, *backends.problems, *treated.problems)
        self.problems = {(problem.ref.name, problem.reason): problem.message for problem in problems}


def prefixes(derived: Derived, host: str) -> dict[str, BackendKey]:
    return {path: route.backend for path, route in derived.hosts[host].prefixes}


def to(*claims: tuple[str, BackendKey]) -> tuple[tuple[str, Route], ...]:
    return tuple((path, Route(backend, SHOP)) for path, backend in claims)


def test_each_path_type_lands_where_it_is_looked_up() -> None:
    derived = Derived(
        NGINX,
        ingress(
            "shop",
            rule("Shop.Example", "/cart/", "web:80"),
            rule("shop.example", "/exact/", "api:80", "Exact"),
            rule("shop.example", "/own", "api:80", "ImplementationSpecific"),
            rule("shop.example", None, "web:80"),
        ),
    )
    assert derived.hosts == {
        "shop.example": HostRoutes(exact=to(("/exact/", API)), prefixes=to(("", WEB), ("/cart", WEB), ("/own", API)))
    }


def test_a_default_backend_takes_what_no_rule_takes_and_gives_way_to_every_rule() -> None:
    alone = Derived(NGINX, ingress("shop", default="web:80"))
    assert alone.hosts == {"": HostRoutes(prefixes=to(("", WEB)))}

    beside = Derived(NGINX, ingress("shop", rule("shop.example", "/cart", "api:80"), default="web:80"))
    assert prefixes(beside, "shop.example") == {"": WEB, "/cart": API}

    other = ingress("newer", rule("shop.example", "/", "api:80"), created="2026-02-01T00:00:00Z")
    against = Derived(NGINX, ingress("shop", rule("shop.example", "/cart", "web:80"), default="web:80"), other)
    assert prefixes(against, "shop.example") == {"": API, "/cart": WEB}
    assert against.problems.keys() == {("shop", "ServiceNotFound"), ("newer", "ServiceNotFound")}


@pytest.mark.parametrize(
    ("annotation", "class_name", "classes", "served"),
    [
        (None, "nginx", [NGINX], True),
        (None, "nginx", [ingress_class("nginx", "other.io/controller")], False),
        (None, "edge", [ingress_class("edge")], True),
        (None, "traefik", [NGINX], False),
        (None, None, [ingress_class(default=True)], True),
        (None, None, [NGINX], False),
        (None, None, [ingress_class(default=True, controller="other.io/controller"), NGINX], False),
        ("nginx", None, [], True),
        ("nginx", "traefik", [], True),
        ("traefik", "nginx", [NGINX], False),
    ],
)
def test_the_class_decides_whether_an_ingress_is_ours(
    annotation: str | None, class_name: str | None, classes: list[Raw], served: bool
) -> None:
    annotations = {"kubernetes.io/ingress.class": annotation} if annotation else None
    shop = ingress("shop", rule("shop.example", "/", "web:80"), class_name=class_name, annotations=annotations)
    derived = Derived(*classes, shop)
    assert ("shop.example" in derived.hosts) is served
    assert (WEB in derived.backends) is served


def test_our_own_class_that_does_not_exist_is_a_problem_and_another_ones_is_not() -> None:
    assert Derived(ingress("shop", rule("shop.example", "/", "web:80"))).problems == {
        ("shop", "ClassNotFound"): "spec.ingressClassName 'nginx' does not exist; "
        "create an IngressClass nginx with spec.controller k8s.io/ingress-nginx"
    }
    assert Derived(ingress("shop", rule("shop.example", "/", "web:80"), class_name="traefik")).problems == {}


def test_two_editions_with_different_classes_serve_different_ingresses() -> None:
    objects = (
        ingress_class("internal", "seaway.dev/internal"),
        NGINX,
        ingress("inside", rule("in.example", "/", "web:80"), class_name="internal"),
        ingress("outside", rule("out.example", "/", "web:80")),
    )
    assert set(Derived(*objects).hosts) == {"out.example"}
    assert set(Derived(*objects, ours=Class("internal", "seaway.dev/internal")).hosts) == {"in.example"}


def test_of_two_claims_the_older_wins_and_the_younger_is_told_by_whom() -> None:
    older = ingress("b", rule("shop.example", "/", "web:80"), created="2026-01-01T00:00:00Z")
    younger = ingress("a", rule("shop.example", "/", "api:80"), created="2026-01-02T00:00:00Z")
    same_age = ingress("c", rule("shop.example", "/", "api:80"), created="2026-01-01T00:00:00Z", namespace="aaa")
    derived = Derived(NGINX, service("web"), service("api"), service("api", namespace="aaa"), older, younger)
    assert prefixes(derived, "shop.example") == {"": WEB}
    assert derived.problems == {
        ("a", "RouteTaken"): "shop.example/ is already served by the older Ingress default/b; "
        "change the host or the path of one of them"
    }
    assert prefixes(Derived(NGINX, older, same_age), "shop.example")[""].namespace == "aaa", "of the same age, the first by name"


def test_exact_and_prefix_of_one_path_are_no_clash() -> None:
    derived = Derived(
        NGINX,
        service("web"),
        service("api"),
        ingress("one", rule("shop.example", "/foo", "web:80")),
        ingress("two", rule("shop.example", "/foo", "api:80", "Exact")),
    )
    assert derived.problems == {}
    assert prefixes(derived, "shop.example") == {"/foo": WEB}
    assert [(path, route.backend) for path, route in derived.hosts["shop.example"].exact] == [("/foo", API)]


@pytest.mark.parametrize(
    ("bad", "reason", "message"),
    [
        (rule("shop.example", "cart", "web:80"), "BadPath", "spec.rules[1].http.paths[0].path 'cart' does not begin with \"/\""),
        (rule("shop.example", "/a\nb", "web:80"), "BadPath", "holds a control character; remove it"),
        (rule("shop.example", "/" + "x" * 5000, "web:80"), "BadPath", "has more than 4096 bytes; shorten it"),
        (rule("shop.example", "/cart", "web:80", "Regex"), "BadPathType", "pathType is 'Regex'; write Exact, Prefix or"),
        (rule("shop.example", "/cart", "web:80", ""), "BadPathType", "pathType is missing"),
        (rule("sh op.example", "/cart", "web:80"), "BadHost", "host 'sh op.example' is no name of a host"),
        (rule("*.*.example", "/cart", "web:80"), "BadHost", "is no name of a host"),
        (
            {"host": "shop.example", "http": {"paths": [{"path": "/cart", "pathType": "Prefix", "backend": {}}]}},
            "NoBackend",
            "spec.rules[1].http.paths[0].backend.service.name is missing; name the Service and its port",
        ),
        (rule("shop.example", "/cart", "We_b:80"), "NoBackend", "service.name 'We_b' is no name of a Service; name the Service"),
        (rule("shop.example", "/cart", "web:" + "p" * 64), "NoBackend", "is no name of a port; name the Service and its port"),
        (
            {
                "host": "shop.example",
                "http": {
                    "paths": [
                        {"path": "/c", "pathType": "Prefix", "backend": {"resource": {"kind": "StorageBucket", "name": "static"}}}
                    ]
                },
            },
            "ResourceBackend",
            "backend.resource StorageBucket is not supported; name a Service in",
        ),
    ],
)
def test_a_bad_rule_is_told_with_its_field_and_takes_nothing_else_away(bad: Raw, reason: str, message: str) -> None:
    shop = ingress("shop", rule("shop.example", "/", "web:80"), bad)
    derived = Derived(NGINX, service("web"), shop)
    assert message in derived.problems["shop", reason]
    assert prefixes(derived, "shop.example") == {"": WEB}


def test_an_ingress_that_is_all_bad_still_keeps_its_host() -> None:
    """Its requests are answered with 404, not handed to whoever takes any host."""
    derived = Derived(NGINX, ingress("shop", rule("shop.example", "cart", "web:80")), ingress("all", default="web:80"))
    assert derived.hosts["shop.example"] == HostRoutes()


def test_endpoints_are_those_of_the_services_port_that_are_ready() -> None:
    derived = Derived(
        NGINX,
        ingress("shop", rule("shop.example", "/", "web:http"), rule("shop.example", "/m", "web:9090")),
        service("web", "http:80", "metrics:9090"),
        endpoint_slice("web", "10.0.0.2", "10.0.0.1", port=8080, port_name="http", not_ready=["10.0.0.3"]),
        endpoint_slice("web", "10.0.0.1", "fd00::1", port=8080, port_name="http", suffix="2"),
        endpoint_slice("web", "10.0.0.1", port=9191, port_name="metrics", suffix="3"),
        endpoint_slice("other", "10.0.0.9", port_name="http"),
    )
    assert derived.backends == {
        BackendKey("default", "web", "http"): Backend(
            (Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080), Endpoint("fd00::1", 8080))
        ),
        BackendKey("default", "web", "9090"): Backend((Endpoint("10.0.0.1", 9191),)),
    }


def test_readiness_that_is_unknown_counts_as_ready() -> None:
    found = endpoint_slice("web", "10.0.0.1")
    del found["endpoints"][0]["conditions"]
    derived = Derived(NGINX, ingress("shop", rule("", "/", "web:80")), service("web"), found)
    assert derived.backends[WEB] == Backend((Endpoint("10.0.0.1", 8080),))


def conditions(name: str, *states: tuple[bool | None, bool | None, bool | None]) -> Raw:
    """A slice with an endpoint 10.0.0.N for each (ready, serving, terminating)."""
    found = endpoint_slice(name, *(f"10.0.0.{number}" for number in range(1, len(states) + 1)))
    for endpoint, (ready, serving, terminating) in zip(found["endpoints"], states, strict=True):
        endpoint["conditions"] = {"ready": ready, "serving": serving, "terminating": terminating}
    return found


READY, STARTING, ENDING, ENDED = (True, True, False), (False, False, False), (False, True, True), (False, False, True)


@pytest.mark.parametrize(
    ("states", "used"),
    [
        ((READY, STARTING, ENDING, ENDED), (1,)),
        ((STARTING, ENDING, ENDED), (2,)),
        ((STARTING, ENDED), ()),
        ((ENDING, ENDING), (1, 2)),
        (((None, None, None), ENDING), (1,)),
        (((None, None, True),), (1,)),
        (((True, False, True),), (1,)),
    ],
)
def test_those_that_are_ready_are_asked_and_those_that_end_only_when_nobody_is(
    states: tuple[tuple[bool | None, bool | None, bool | None], ...], used: tuple[int, ...]
) -> None:
    derived = Derived(NGINX, ingress("shop", rule("", "/", "web:80")), service("web"), conditions("web", *states))
    assert derived.backends[WEB] == Backend(tuple(Endpoint(f"10.0.0.{number}", 8080) for number in used))


def test_several_slices_with_several_ports_and_both_families_are_one_backend() -> None:
    slices = [
        endpoint_slice("web", "10.0.0.1", "10.0.0.2", port=8080, port_name="http", suffix="a"),
        endpoint_slice("web", "10.0.0.2", "10.0.0.3", port=9090, port_name="admin", suffix="b"),
        endpoint_slice("web", "fd00::1", port=8081, port_name="http", suffix="c"),
        endpoint_slice("other", "10.0.0.9", port=8080, port_name="http"),
    ]
    slices[0]["ports"].append({"name": "admin", "port": 9091, "protocol": "TCP"})
    slices[0]["ports"].append({"name": "http", "port": 5353, "protocol": "UDP"})
    web = service("web", "http:80", "admin:81")
    derived = Derived(NGINX, ingress("shop", rule("", "/", "web:http"), rule("", "/admin", "web:81")), web, *slices)
    assert {str(key): [(one.address, one.port) for one in backend.endpoints] for key, backend in derived.backends.items()} == {
        "default/web:http": [("10.0.0.1", 8080), ("10.0.0.2", 8080), ("fd00::1", 8081)],
        "default/web:81": [("10.0.0.1", 9091), ("10.0.0.2", 9090), ("10.0.0.2", 9091), ("10.0.0.3", 9090)],
    }


@pytest.mark.parametrize("address", ["224.0.0.1", "not an address", "10.0.0.1;evil"])
def test_what_is_no_address_of_an_endpoint_is_left_out(address: str) -> None:
    shop, web = ingress("shop", rule("", "/", "web:80")), service("web")
    assert Derived(NGINX, shop, web, endpoint_slice("web", address)).backends[WEB] == Backend()


def test_a_bad_annotation_is_told_and_stands_for_nothing() -> None:
    annotations = {"nginx.ingress.kubernetes.io/ssl-redirect": "perhaps", "nginx.ingress.kubernetes.io/force-ssl-redirect": "true"}
    shop = ingress("shop", rule("shop.example", "/", "web:80"), annotations=annotations | {"example.com/ssl-redirect": "x"})
    derived = Derived(NGINX, service("web"), shop)
    assert derived.problems == {
        ("shop", "BadAnnotation"): "annotation nginx.ingress.kubernetes.io/ssl-redirect is 'perhaps'; write true or false"
    }
    assert derived.hosts["shop.example"].prefixes == (("", Route(WEB, SHOP, special=True)),)
    assert derived.policies == {SHOP: Policy(force_ssl_redirect=True)}


@pytest.mark.parametrize(
    ("name", "reason", "closed"),
    [
        ("mirror-target", "UnknownAnnotation", False),
        ("server-alias", "UnknownAnnotation", False),
        ("configuration-snippet", "SnippetRefused", False),
        ("server-snippet", "SnippetRefused", False),
        ("stream-snippet", "SnippetRefused", False),
        ("auth-snippet", "SnippetRefused", False),
        ("modsecurity-snippet", "SnippetRefused", False),
        ("whitelist-source-range", "UnsupportedRestriction", True),
        ("allowlist-source-range", "UnsupportedRestriction", True),
        ("denylist-source-range", "UnsupportedRestriction", True),
        ("auth-url", "UnsupportedRestriction", True),
        ("auth-type", "UnsupportedRestriction", True),
    ],
)
def test_an_annotation_that_is_not_known_is_told_and_one_that_keeps_clients_out_keeps_all_out(
    name: str, reason: str, closed: bool
) -> None:
    shop = ingress("shop", rule("shop.example", "/", "web:80"), annotations={PREFIX + name: "0.0.0.0/0; allow all"})
    derived = Derived(NGINX, service("web"), shop)
    assert list(derived.problems) == [("shop", reason)]
    assert prefixes(derived, "shop.example") == {"": WEB}
    assert (derived.policies.get(SHOP) is not None and derived.policies[SHOP].closed) is closed


def test_annotations_become_a_policy_and_what_is_not_said_is_as_usual() -> None:
    asked = {
        "backend-protocol": "https",
        "proxy-body-size": "8M",
        "proxy-request-buffering": "off",
        "proxy-read-timeout": "3600s",
        "proxy-next-upstream": "error http_503",
        "upstream-hash-by": "$http_x_user-${request_uri}",
        "affinity": "cookie",
        "session-cookie-name": "route",
        "session-cookie-max-age": "600",
    }
    shop = ingress("shop", rule("", "/", "web:80"), annotations={PREFIX + name: value for name, value in asked.items()})
    derived = Derived(NGINX, service("web"), shop)
    assert derived.problems == {}
    assert derived.policies[SHOP] == Policy(
        scheme="https",
        body_size=8 * 1024**2,
        request_buffering=False,
        read_timeout=3600,
        retry_on=frozenset({"error", "status"}),
        hash_by=("$http_x_user", "-", "$request_uri"),
        affinity=Affinity(name="route", max_age=600),
    )


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("proxy-body-size", "10 lemons", "write a size such as 512k, 8m or 1g; 0 is no limit"),
        ("proxy-read-timeout", "-1", "write seconds as a whole number from 1 to 2592000"),
        ("proxy-buffering", "yes", "write on or off"),
        ("backend-protocol", "SMTP", "write GRPC, GRPCS, HTTP or HTTPS"),
        ("proxy-next-upstream", "error http_418", "write off, or some of error, timeout"),
        ("upstream-hash-by", "$request_uri; x", "write variables of a request"),
        ("upstream-hash-by", "$ssl_server_raw", "$ssl_server_raw is no variable of a request"),
        ("load-balance", "random", "write ewma, least_conn or round_robin"),
        ("affinity", "ip", "write cookie"),
        ("session-cookie-path", "/; Domain=evil", "write printable ASCII without spaces and semicolons"),
        ("session-cookie-name", "a=b", "write letters, digits and dashes"),
        ("canary-weight", "many", "write a whole number from 0 to 1000000"),
        ("canary-weight", "\u0663", "write a whole number from 0 to 1000000"),
        ("canary-weight", "1_0", "write a whole number from 0 to 1000000"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_to_write(name: str, value: str, mend: str) -> None:
    shop = ingress("shop", rule("", "/", "web:80"), annotations={PREFIX + name: value})
    derived = Derived(NGINX, service("web"), shop)
    assert mend in derived.problems["shop", "BadAnnotation"]
    assert derived.policies == {}
    assert derived.hosts[""].prefixes == (("", Route(WEB, SHOP)),)


@pytest.mark.parametrize("annotation", [one for one in TABLE if one.default and one.field != ON], ids=lambda one: one.name)
def test_what_is_said_to_hold_unless_given_does(annotation: Knob) -> None:
    defaults = {
        "policy": Policy(),
        "tls": BackendTLS(),
        "client": ClientAuth(None),
        "affinity": Affinity(),
        "canary": Canary(WEB),
        "emergency": Emergency("standby"),
    }
    assert annotation.read(annotation.default) == getattr(defaults[annotation.of], annotation.field)


def test_a_canary_adds_a_backend_to_the_route_of_another_ingress_and_has_none_of_its_own() -> None:
    asked = {"canary": "true", "canary-by-header": "X-Canary", "canary-weight": "30", "canary-weight-total": "60"}
    new = ingress("new", rule("shop.example", "/", "api:80"), annotations={PREFIX + name: value for name, value in asked.items()})
    derived = Derived(NGINX, service("web"), service("api"), new, ingress("shop", rule("shop.example", "/", "web:80")))
    canary = Canary(API, header="X-Canary", weight=30)
    assert derived.hosts["shop.example"].prefixes == (("", Route(WEB, SHOP, (canary,))),)
    assert derived.problems == {}


def test_a_canary_of_nothing_is_told_so_and_serves_nothing() -> None:
    new = ingress(
        "new", rule("shop.example", "/", "api:80"), annotations={PREFIX + "canary": "true", PREFIX + "canary-weight": "5"}
    )
    derived = Derived(NGINX, service("api"), new)
    assert derived.hosts["shop.example"] == HostRoutes()
    mend = "create the Ingress that it is the canary of, with the same host, path and pathType"
    assert derived.problems == {("new", "CanaryAlone"): f"nobody serves shop.example/; {mend}"}


def test_a_missing_service_or_port_is_told_and_answered_with_503() -> None:
    shop = ingress("shop", rule("shop.example", "/", "web:80"))
    assert Derived(NGINX, shop).problems == {("shop", "ServiceNotFound"): "Service default/web does not exist; create it"}
    without = Derived(NGINX, shop, service("web", "http:8080", 9090))
    assert without.problems == {("shop", "PortNotFound"): "Service default/web has no port 80; it has http (8080), 9090"}
    assert without.backends == {WEB: Backend()}


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("//a///b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/../..", "/"),
        ("/a/", "/a/"),
        ("/%61%2e%2e/b", "/a../b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb/../c", "/c"),
        ("/a%252Fb", "/a%252Fb"),
        ("/a%25b", "/a%b"),
        ("/%2f", "/%2F"),
        ("/a/%2e%2e/b", "/b"),
        ("/ä", "/ä"),
        ("/%C3%A4", "/ä"),
    ],
)
def test_a_path_is_normalised_as_nginx_does_it(path: str, normal: str) -> None:
    assert normalise(path) == normal
