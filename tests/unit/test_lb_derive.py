"""From Services to what HAProxy shall do: whose they are, where they answer, with which endpoints, treated how, and what is told."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts.objects import BY_KIND, Projection, Service
from common.pools import Pool, Pools, Range
from common.store import Change, Store, Table
from common.testing.objects import endpoint_slice, service
from haproxy_lb.annotations import PREFIX, TABLE, wishes
from haproxy_lb.book import Granted
from haproxy_lb.claims import Claim, Port, ServiceName
from haproxy_lb.derive.backends import backends
from haproxy_lb.derive.claims import claims
from haproxy_lb.derive.classes import Class
from haproxy_lb.derive.frontends import frontends
from haproxy_lb.derive.in_force import accepted
from haproxy_lb.derive.indexes import BY_BACKEND, BY_FRONT, BY_NAME, INDEXES
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, BackendKey, Check, Endpoint, Frontend, FrontKey, Timeouts
from haproxy_lb.status import status_write

Raw = dict[str, Any]
OURS = Class()
HERE = "node-1"
ADDRESS = "192.0.2.1"
POOLS = Pools((Pool("p", (Range(4, 0xC0000200, 0xC00002FF), Range(6, 0x20010DB8 << 96, (0x20010DB8 << 96) + 0xFFFF))),))
WEB = BackendKey("default", "web", 80)


def balanced(
    name: str = "web", *ports: int | str, annotations: dict[str, str] | None = None, created: str = "", **spec: Any
) -> Raw:
    """A Service of our class."""
    made = service(name, *ports)
    made["spec"] |= {"type": "LoadBalancer", "loadBalancerClass": OURS.name, **spec}
    made["metadata"] |= {"creationTimestamp": created or "2026-01-01T00:00:00Z"}
    made["metadata"]["annotations"] = {f"{PREFIX}{key}": value for key, value in (annotations or {}).items()}
    return made


def showing(made: Raw, *addresses: str, mode: str = "Proxy", errors: dict[int, str] | None = None) -> Raw:
    """The Service with addresses in its status."""
    errors = errors or {}
    ports = [
        {
            "port": port["port"],
            "protocol": port["protocol"],
            **({"error": errors[port["port"]]} if port["port"] in errors else {}),
        }
        for port in made["spec"]["ports"]
    ]
    ingress = [{"ip": address, "ipMode": mode, "ports": ports} for address in addresses or (ADDRESS,)]
    return made | {"status": {"loadBalancer": {"ingress": ingress}}}


def project(raw: Raw) -> Projection:
    return BY_KIND[raw["apiVersion"], raw["kind"]].project(raw)


class Derived:
    """The tables of some objects."""

    def __init__(self, *objects: Raw, ours: Class = OURS, pools: Pools | None = POOLS) -> None:
        self.store = Store(*INDEXES)
        self._claims = Table(self.store, BY_NAME, claims(ours))
        self._frontends = Table(self.store, BY_FRONT, frontends(ours))
        self._backends = Table(self.store, BY_BACKEND, backends(ours, HERE))
        self.take(self.store.replace([*map(project, objects), *([accepted(pools)] if pools else [])]))

    def take(self, changes: tuple[Change, ...]) -> None:
        for table in (self._claims, self._frontends, self._backends):
            table.update(changes)

    @property
    def claims(self) -> dict[str, Claim]:
        return {name.name: claim for name, claim in self._claims.values.items()}

    @property
    def frontends(self) -> dict[FrontKey, Frontend]:
        return dict(self._frontends.values)

    @property
    def backends(self) -> dict[BackendKey, Backend]:
        return dict(self._backends.values)

    @property
    def problems(self) -> dict[tuple[str, str], str]:
        problems = (*self._claims.problems, *self._frontends.problems, *self._backends.problems)
        return {(problem.ref.name, problem.reason): problem.message for problem in problems}


def endpoints(derived: Derived, key: BackendKey = WEB) -> list[str]:
    """Endpoints as texts: draining ones with -, those that stand by with +."""
    return [f"{one.address}{'-' if one.draining else ''}{'+' if one.backup else ''}" for one in derived.backends[key].endpoints]


def slice_of(*states: tuple[str, str, bool | None, bool | None, bool | None], name: str = "web") -> Raw:
    """A slice of endpoints: address, node, ready, serving, terminating."""
    made = endpoint_slice(name, *(address for address, *_ in states))
    for entry, (_, node, ready, serving, terminating) in zip(made["endpoints"], states, strict=True):
        known = {"ready": ready, "serving": serving, "terminating": terminating}
        entry["conditions"] = {key: value for key, value in known.items() if value is not None}
        entry["nodeName"] = node
    return made


def test_a_service_of_our_class_claims_what_its_spec_says() -> None:
    made = balanced(
        "web",
        "http:80",
        "tls:443",
        annotations={"allow-shared-ip": "k", "address-pool": "p", "load-balancer-ips": "192.0.2.7,2001:db8::7"},
        ipFamilies=["IPv6", "IPv4"],
        ipFamilyPolicy="RequireDualStack",
    )
    claim = Derived(showing(made)).claims["web"]
    assert claim.families == (6, 4)
    assert claim.all_or_none
    assert claim.ports == {Port("TCP", 80), Port("TCP", 443)}
    assert [str(address) for address in claim.requested] == ["192.0.2.7", "2001:db8::7"]
    assert (claim.sharing, claim.pool) == ("k", "p")
    assert [str(shown.address) for shown in claim.shown] == [ADDRESS]


@pytest.mark.parametrize(
    ("spec", "default", "ours"),
    [
        ({}, False, True),
        ({"loadBalancerClass": "example.com/other"}, True, False),
        ({"loadBalancerClass": None}, False, False),
        ({"loadBalancerClass": None}, True, True),
        ({"type": "NodePort"}, True, False),
    ],
)
def test_a_class_decides_whose_a_service_is(spec: Raw, default: bool, ours: bool) -> None:
    derived = Derived(showing(balanced(**spec)), ours=Class(default=default))
    assert (bool(derived.claims), bool(derived.frontends), bool(derived.backends)) == (ours, ours, ours)


def test_a_service_that_is_being_deleted_is_nobodys() -> None:
    made = showing(balanced())
    made["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    derived = Derived(made)
    assert (derived.claims, derived.frontends, derived.backends) == ({}, {}, {})


def test_frontends_stand_where_the_status_shows_ports_without_an_error() -> None:
    derived = Derived(showing(balanced("web", "a:80", "b:443"), ADDRESS, "2001:DB8::1", errors={443: "seaway.dev/PortTaken"}))
    assert derived.frontends == {
        FrontKey(ADDRESS, 80): Frontend(FrontKey(ADDRESS, 80), WEB),
        FrontKey("2001:db8::1", 80): Frontend(FrontKey("2001:db8::1", 80), WEB),
    }


def test_an_address_of_no_pool_is_never_served() -> None:
    assert Derived(showing(balanced(), "10.0.0.1")).frontends == {}
    assert Derived(showing(balanced()), pools=None).frontends == {}, "while none are known"


def test_of_two_that_show_the_same_port_the_older_has_it() -> None:
    young, old = showing(balanced("a", created="2027")), showing(balanced("web", created="2026"))
    assert Derived(young, old).frontends[FrontKey(ADDRESS, 80)].backend == WEB


def test_source_ranges_are_canonical_and_a_bad_one_lets_nobody_in() -> None:
    spec: Raw = {"loadBalancerSourceRanges": ["2001:db8::/32", "10.1.2.3/8", " 10.0.0.0/8"]}
    derived = Derived(showing(balanced(**spec)))
    assert derived.frontends[FrontKey(ADDRESS, 80)].sources == ("10.0.0.0/8", "2001:db8::/32")
    bad = Derived(showing(balanced(loadBalancerSourceRanges=["10.0.0.0/8", "all"])))
    assert bad.frontends == {}
    assert bad.problems["web", "BadSourceRanges"].startswith("spec.loadBalancerSourceRanges is '10.0.0.0/8,all'; write networks")
    old = showing(balanced())
    old["metadata"]["annotations"]["service.beta.kubernetes.io/load-balancer-source-ranges"] = "10.0.0.0/8, 192.168.0.0/16"
    assert Derived(old).frontends[FrontKey(ADDRESS, 80)].sources == ("10.0.0.0/8", "192.168.0.0/16")


def test_bad_source_ranges_of_the_annotation_are_told_as_such() -> None:
    made = showing(balanced())
    made["metadata"]["annotations"]["service.beta.kubernetes.io/load-balancer-source-ranges"] = "10.0.0.0/8,all"
    assert Derived(made).frontends == {}
    told = "annotation service.beta.kubernetes.io/load-balancer-source-ranges is '10.0.0.0/8,all'; write networks"
    assert Derived(made).problems["web", "BadSourceRanges"].startswith(told)


def test_endpoints_that_end_are_drained_while_others_are_ready_and_used_when_none_is() -> None:
    ready = ("10.0.0.1", HERE, True, True, False)
    unknown = ("10.0.0.2", HERE, None, None, None)
    ending = ("10.0.0.3", HERE, False, True, True)
    dead = ("10.0.0.4", HERE, False, False, True)
    starting = ("10.0.0.5", HERE, False, False, False)
    assert endpoints(Derived(balanced(), slice_of(ready, unknown, ending, dead, starting))) == ["10.0.0.1", "10.0.0.2", "10.0.0.3-"]
    assert endpoints(Derived(balanced(), slice_of(ending, dead, starting))) == ["10.0.0.3"]
    assert endpoints(Derived(balanced(), slice_of(dead, starting))) == []
    assert endpoints(Derived(balanced(publishNotReadyAddresses=True), slice_of(dead, starting))) == ["10.0.0.4", "10.0.0.5"]


def test_a_local_service_uses_the_endpoints_of_the_own_node_and_others_only_if_told() -> None:
    both = slice_of(("10.0.0.1", HERE, True, None, None), ("10.0.0.2", "node-2", True, None, None))
    local: Raw = {"externalTrafficPolicy": "Local"}
    assert endpoints(Derived(balanced(**local), both)) == ["10.0.0.1"]
    assert endpoints(Derived(balanced(annotations={"local-fallback": "true"}, **local), both)) == ["10.0.0.1", "10.0.0.2+"]
    assert endpoints(Derived(balanced(), both)) == ["10.0.0.1", "10.0.0.2"]


def test_pods_of_two_families_are_used_once_by_the_first_family_of_the_service() -> None:
    four = endpoint_slice("web", "10.0.0.1")
    six = endpoint_slice("web", "fd00::1", suffix="2")
    assert endpoints(Derived(balanced(ipFamilies=["IPv6", "IPv4"]), four, six)) == ["fd00::1"]
    assert endpoints(Derived(balanced(ipFamilies=["IPv4"]), four, six)) == ["10.0.0.1"]
    assert endpoints(Derived(balanced(ipFamilies=["IPv4"]), six)) == ["fd00::1"]


def test_ports_of_a_slice_are_found_by_name() -> None:
    derived = Derived(
        balanced("web", "http:80", "tls:443"),
        endpoint_slice("web", "10.0.0.1", port=8080, port_name="http"),
        endpoint_slice("web", "10.0.0.1", port=8443, port_name="tls", suffix="2"),
    )
    assert derived.backends[WEB].endpoints == (Endpoint("10.0.0.1", 8080),)
    assert derived.backends[BackendKey("default", "web", 443)].endpoints == (Endpoint("10.0.0.1", 8443),)


def test_annotations_and_affinity_become_a_treatment() -> None:
    given = {
        "balance": "leastconn",
        "proxy-protocol": "v2",
        "accept-proxy-protocol": "10.0.0.0/8",
        "max-connections": "100",
        "connection-rate": "50",
        "health-check-interval": "500ms",
        "health-check-rise": "1",
        "health-check-fall": "5",
        "health-check-path": "/healthz",
        "timeout-connect": "1s",
        "timeout-client": "2m",
        "timeout-server": "90",
        "timeout-tunnel": "2h",
    }
    affinity: Raw = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}
    treatment = Derived(balanced(annotations=given, **affinity)).backends[WEB].treatment
    assert treatment.check == Check(0.5, 1, 5, "/healthz")
    assert treatment.timeouts == Timeouts(1, 120, 90, 7200)
    assert (treatment.balance, treatment.send_proxy, treatment.accept_proxy) == ("leastconn", "v2", ("10.0.0.0/8",))
    assert (treatment.max_connections, treatment.rate, treatment.affinity) == (100, 50, 60)
    assert Derived(balanced(sessionAffinity="ClientIP")).backends[WEB].treatment.affinity == 10800
    assert Derived(balanced()).backends[WEB].treatment == DEFAULT_TREATMENT


@pytest.mark.parametrize("annotation", TABLE, ids=lambda one: one.short)
def test_a_bad_annotation_is_told_with_its_mend_and_stands_for_nothing(annotation: Any) -> None:
    made = Service.project(balanced(annotations={annotation.short: "\n{{ nonsense }}"}))
    wished = wishes(made)
    assert [problem.reason for problem in wished.problems] == ["BadAnnotation"]
    assert annotation.name in wished.problems[0].message
    assert "; write" in wished.problems[0].message or "; a Service" in wished.problems[0].message
    assert wished == wishes(Service.project(balanced())).__class__(problems=wished.problems)


@pytest.mark.parametrize("annotation", [one for one in TABLE if one.default], ids=lambda one: one.short)
def test_the_default_that_is_written_down_is_what_holds(annotation: Any) -> None:
    given, bare = (wishes(Service.project(balanced(annotations=one))) for one in ({annotation.short: annotation.default}, {}))
    assert given == bare


@pytest.mark.parametrize(
    ("annotations", "spec", "reason", "text"),
    [
        ({"load-balancer-ips": "192.0.2.1"}, {"loadBalancerIP": "192.0.2.2"}, "BadRequest", "keep one of them"),
        ({"load-balancer-ips": "2001:db8::1"}, {"ipFamilies": ["IPv4"]}, "BadRequest", "IPv6 is not among spec.ipFamilies"),
        ({}, {"loadBalancerIP": "first"}, "BadRequest", "spec.loadBalancerIP is 'first'"),
        ({"load-balancer-ips": "192.0.2.1,192.0.2.2"}, {}, "BadAnnotation", "one address of each family at most"),
    ],
)
def test_requests_that_contradict_are_told(annotations: dict[str, str], spec: Raw, reason: str, text: str) -> None:
    derived = Derived(balanced(annotations=annotations, **spec))
    assert text in derived.problems["web", reason]
    assert derived.claims["web"].requested == ()


def test_the_field_and_the_annotation_may_say_the_same() -> None:
    derived = Derived(balanced(annotations={"load-balancer-ips": ADDRESS}, loadBalancerIP=ADDRESS))
    assert [str(one) for one in derived.claims["web"].requested] == [ADDRESS]
    assert [str(one) for one in Derived(balanced(loadBalancerIP=ADDRESS)).claims["web"].requested] == [ADDRESS]


def test_udp_is_refused_alone_and_a_service_that_is_left_to_the_kernel_is_left_whole() -> None:
    mixed = Derived(showing(balanced("web", "a:53", "b:53/UDP")))
    assert mixed.claims["web"].ports == {Port("TCP", 53)}
    assert "kernel" in mixed.problems["web", "ProtocolNotSupported"]
    kernel = Derived(showing(balanced("web", "a:53", "b:53/UDP", annotations={"udp": "kernel"})))
    assert kernel.claims["web"].ports == {Port("TCP", 53), Port("UDP", 53)}
    assert (kernel.frontends, kernel.backends, kernel.problems) == ({}, {}, {})
    assert Derived(balanced("web", "53/UDP")).claims == {}


def test_a_status_is_written_only_where_it_differs() -> None:
    made = Service.project(showing(balanced("web", "a:80", "b:443")))
    granted = Derived(showing(balanced())).claims["web"].shown[0].address
    assert status_write(made, (Granted(granted, "p"),)) is None
    other = status_write(made, (Granted(granted, "p", ((Port("TCP", 443), ServiceName("default", "tls")),)),))
    assert other is not None
    assert other.status["loadBalancer"]["ingress"][0]["ports"][1] == {
        "port": 443,
        "protocol": "TCP",
        "error": "seaway.dev/PortTaken",
    }
    nothing = status_write(made, ())
    assert nothing is not None
    assert nothing.status == {"loadBalancer": {"ingress": []}}
    assert status_write(Service.project(balanced()), ()) is None
    vip = Service.project(showing(balanced(), mode="VIP"))
    assert status_write(vip, (Granted(granted, "p"),)) is not None, "the mode counts too"


@st.composite
def some_object(draw: st.DrawFn) -> Raw:
    name = draw(st.sampled_from(["web", "api"]))
    if draw(st.booleans()):
        made = balanced(
            name,
            *draw(st.lists(st.sampled_from(["a:80", "b:443", "c:53/UDP"]), min_size=1, unique=True)),
            annotations=draw(
                st.dictionaries(
                    st.sampled_from(["udp", "local-fallback", "balance"]), st.sampled_from(["kernel", "true", "source"])
                )
            ),
            externalTrafficPolicy=draw(st.sampled_from(["Local", "Cluster"])),
            type=draw(st.sampled_from(["LoadBalancer", "LoadBalancer", "ClusterIP"])),
        )
        return showing(made, *draw(st.lists(st.sampled_from([ADDRESS, "192.0.2.2", "10.0.0.1"]), unique=True)))
    states = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["10.1.0.1", "10.1.0.2"]),
                st.sampled_from([HERE, "n2"]),
                *[st.sampled_from([True, False, None])] * 3,
            )
        )
    )
    made = slice_of(*states, name=name)
    made["ports"][0]["name"] = draw(st.sampled_from(["a", "b"]))
    return made


@settings(max_examples=100)
@given(st.lists(st.tuples(some_object(), st.booleans()), max_size=12))
def test_whatever_happens_the_tables_equal_those_made_from_nothing(history: list[tuple[Raw, bool]]) -> None:
    derived, there = Derived(), {}
    for raw, stays in history:
        new = project(raw)
        if stays:
            there[new.ref] = raw
            change = derived.store.apply(new)
        else:
            there.pop(new.ref, None)
            change = derived.store.delete(new.ref)
        derived.take((change,) if change is not None else ())
    anew = Derived(*there.values())
    assert (derived.claims, derived.frontends, derived.backends, derived.problems) == (
        anew.claims,
        anew.frontends,
        anew.backends,
        anew.problems,
    )
