"""Which backend answers: hosts, paths and what is left, on a real nginx."""

import re
from collections.abc import Mapping

import pytest
import pytest_asyncio

from common.testing.objects import endpoint_slice, ingress, rule, service
from nginx_config_renderer.derive.paths import normalise
from tests.edge.world import EdgeWorld, Raw

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = True

BACKENDS = ("root", "foo", "foo-slash", "aaa", "bbb", "exact", "wild", "other", "any")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def backends(shared: EdgeWorld) -> None:
    await shared.put(*(service(name) for name in BACKENDS), *await shared.serve(*BACKENDS))


def paths(name: str, host: str, claims: Mapping[str, tuple[str, str]]) -> Raw:
    return ingress(name, *(rule(host, path, f"{backend}:80", path_type) for path, (path_type, backend) in claims.items()))


PREFIX, EXACT = "Prefix", "Exact"

# The examples of Kubernetes' own documentation of Ingress ("Path types", "Examples", "Multiple matches"), and what a user would try next.
TABLE: list[tuple[dict[str, tuple[str, str]], dict[str, str]]] = [
    ({"/": (PREFIX, "root")}, {"/": "root", "/any/path": "root"}),
    ({"/foo": (EXACT, "exact")}, {"/foo": "exact", "/bar": "404", "/foo/": "404", "/FOO": "404", "/foo?q=1": "exact"}),
    ({"/foo/": (EXACT, "exact")}, {"/foo": "404", "/foo/": "exact"}),
    ({"/foo": (PREFIX, "foo")}, {"/foo": "foo", "/foo/": "foo", "/foo/bar": "foo", "/foobar": "404", "/": "404", "/Foo": "404"}),
    ({"/foo/": (PREFIX, "foo")}, {"/foo": "foo", "/foo/": "foo", "/foo/bar": "foo"}),
    ({"/aaa/bb": (PREFIX, "bbb")}, {"/aaa/bbb": "404", "/aaa/bb": "bbb"}),
    ({"/aaa/bbb": (PREFIX, "bbb")}, {"/aaa/bbb": "bbb", "/aaa/bbb/": "bbb", "/aaa/bbb/ccc": "bbb", "/aaa/bbbxyz": "404"}),
    ({"/aaa/bbb/": (PREFIX, "bbb")}, {"/aaa/bbb": "bbb"}),
    ({"/": (PREFIX, "root"), "/aaa": (PREFIX, "aaa")}, {"/aaa/ccc": "aaa", "/ccc": "root"}),
    (
        {"/": (PREFIX, "root"), "/aaa": (PREFIX, "aaa"), "/aaa/bbb": (PREFIX, "bbb")},
        {"/aaa/bbb": "bbb", "/ccc": "root", "/aaa/bbc": "aaa"},
    ),
    ({"/aaa": (PREFIX, "aaa")}, {"/ccc": "404"}),
    ({"/own": ("ImplementationSpecific", "foo")}, {"/own": "foo", "/own/er": "foo", "/owner": "404"}),
]


@pytest.mark.parametrize(("claims", "answers"), TABLE, ids=[" ".join(claims) for claims, _ in TABLE])
async def test_paths_are_matched_as_kubernetes_defines(
    shared: EdgeWorld, claims: dict[str, tuple[str, str]], answers: dict[str, str]
) -> None:
    shop = paths("paths", "paths.example", claims)
    await shared.put(shop)
    assert {path: (await shared.ask("paths.example", path)).by for path in answers} == answers
    await shared.remove(shop)
    assert (await shared.ask("paths.example")).status == 404


async def test_an_exact_path_goes_before_a_prefix_of_the_same_length_whoever_is_older(shared: EdgeWorld) -> None:
    older = ingress("older", rule("mixed.example", "/foo", "foo:80"), created="2025-01-01T00:00:00Z")
    newer = ingress("newer", rule("mixed.example", "/foo", "exact:80", EXACT), created="2026-01-01T00:00:00Z")
    await shared.put(older, newer)
    assert [(await shared.ask("mixed.example", path)).by for path in ("/foo", "/foo/")] == ["exact", "foo"]
    await shared.remove(older, newer)


async def test_a_wildcard_stands_for_exactly_one_label_and_an_exact_host_goes_before_it(shared: EdgeWorld) -> None:
    mine = ingress("wild", rule("*.wild.example", "/", "wild:80"), rule("bar.wild.example", "/foo", "foo:80"))
    await shared.put(mine)
    asked = {
        "foo.wild.example": "wild",
        "FOO.Wild.Example": "wild",
        "foo.wild.example:8080": "wild",
        "foo.wild.example.": "wild",
        "baz.bar.wild.example": "404",
        "wild.example": "404",
        "foowild.example": "404",
        ".wild.example": "404",
        "bar.wild.example": "404",  # the exact host is there, and has no such path
    }
    got = {host: (await shared.ask(host)).by for host in asked}
    # nginx itself refuses a host that begins with a dot.
    assert got | {".wild.example": "404"} == asked
    assert got[".wild.example"] in {"400", "404"}
    assert (await shared.ask("bar.wild.example", "/foo")).by == "foo"
    await shared.remove(mine)


async def test_a_rule_without_a_host_takes_every_host_that_no_other_rule_names(shared: EdgeWorld) -> None:
    any_host = ingress("any", rule("", "/", "any:80"))
    named = ingress("named", rule("named.example", "/foo", "foo:80"))
    await shared.put(any_host, named)
    assert (await shared.ask("whatever.example", "/x")).by == "any"
    assert (await shared.ask("127.0.0.1")).by == "any"
    assert (await shared.ask("named.example", "/foo")).by == "foo"
    assert (await shared.ask("named.example", "/x")).by == "404"
    await shared.remove(any_host, named)


async def test_a_default_backend_answers_what_no_rule_does(shared: EdgeWorld) -> None:
    alone = ingress("alone", default="any:80")
    await shared.put(alone)
    assert (await shared.ask("nobody.example", "/x/y")).by == "any"
    await shared.remove(alone)

    beside = ingress("beside", rule("beside.example", "/foo", "foo:80"), default="any:80")
    await shared.put(beside)
    assert [(await shared.ask("beside.example", path)).by for path in ("/foo", "/x")] == ["foo", "any"]
    await shared.remove(beside)


async def test_nothing_that_is_not_served_is_answered_with_404_and_no_ready_endpoint_with_503(shared: EdgeWorld) -> None:
    nowhere = await shared.ask("nobody.example")
    assert (nowhere.status, "nginx" in nowhere.body) == (404, True)

    lonely = ingress("lonely", rule("lonely.example", "/", "lonely:80"), rule("lonely.example", "/unready", "unready:80"))
    await shared.put(lonely, service("unready"), endpoint_slice("unready", not_ready=["127.0.0.1"]))
    missing = await shared.ask("lonely.example")
    assert (missing.status, "nginx" in missing.body) == (503, True), "the Service does not exist"
    assert (await shared.ask("lonely.example", "/unready")).status == 503
    await shared.remove(lonely)


@pytest.mark.parametrize(
    ("claimed", "asked"),
    [
        ("/a b", "/a%20b"),
        ("/a%20b", "/a%20b"),
        ("/ä", "/%C3%A4"),
        ("/ä", "/\u00e4"),
        ("/%ff", "/%FF"),
        ("/a/./b/../c", "/a/c"),
        ("/a/c", "/a/./b/../c"),
        ("/a/c", "//a///c"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/x/../a%2fb"),
        ("/a%252Fb", "/a%252Fb"),
        ("/a/", "/a//."),
        ("/a", "/%61"),
        ("/a.b", "/a.b"),
        ("/.hidden/x", "/.hidden/x"),
        ('/q"uote', "/q%22uote"),
        ("/back\\slash", "/back\\slash"),
        ("/semi;colon", "/semi;colon"),
        ("/$var{}", "/$var{}"),
    ],
)
async def test_a_path_means_the_same_to_us_and_to_nginx(shared: EdgeWorld, claimed: str, asked: str) -> None:
    odd = ingress("odd", rule("odd.example", claimed, "exact:80", EXACT))
    await shared.put(odd)
    answer = await shared.ask("odd.example", asked)
    assert answer.by == "exact", f"{claimed} is {normalise(claimed)!r}"
    assert answer.seen["target"] == asked, "and the backend gets it as it came"
    await shared.remove(odd)


async def test_backends_hear_of_the_client_what_the_client_cannot_forge(shared: EdgeWorld) -> None:
    await shared.put(ingress("heard", rule("heard.example", "/", "foo:80")))
    answer = await shared.ask(
        "heard.example",
        "/p?q=1",
        **{
            "X-Forwarded-For": "6.6.6.6",
            "X-Forwarded-Proto": "https",
            "X-Real-IP": "6.6.6.6",
            "Forwarded": "for=6.6.6.6",
            "Proxy": "http://evil",
            "X-Request-ID": "abc",
        },
    )
    headers = answer.seen["headers"]
    assert {name: headers.get(name) for name in ("host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-request-id")} == {
        "host": "heard.example",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-request-id": "abc",
    }
    assert headers["x-original-forwarded-for"] == "6.6.6.6"
    assert not headers.keys() & {"forwarded", "proxy"}


async def test_requests_that_bring_no_name_get_one_that_no_other_has(shared: EdgeWorld) -> None:
    await shared.put(ingress("named", rule("named.example", "/", "foo:80")))
    names = [(await shared.ask("named.example")).seen["headers"]["x-request-id"] for _ in range(60)]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)
    assert len(set(names)) == len(names)
    assert len({name[:24] for name in names}) == 2, "each of the two workers has drawn its own digits"


async def test_requests_take_turns_at_the_endpoints(shared: EdgeWorld) -> None:
    first, second, third = await shared.serve("turn-a", "turn-b", "turn-c")
    ports = [made["ports"][0]["port"] for made in (first, second, third)]
    slices = [endpoint_slice("turns", "127.0.0.1", port=port, suffix=str(port)) for port in ports]
    await shared.put(ingress("turns", rule("turns.example", "/", "turns:80")), service("turns"), *slices)
    answers = [(await shared.ask("turns.example")).by for _ in range(60)]
    assert {name: answers.count(name) for name in set(answers)}.keys() == {"turn-a", "turn-b", "turn-c"}
    assert all(15 <= answers.count(name) <= 25 for name in set(answers)), "each of the two workers takes its own turns"


async def test_an_endpoint_that_refuses_is_passed_over(shared: EdgeWorld) -> None:
    (good,) = await shared.serve("good")
    bad = endpoint_slice("good", "127.0.0.1", port=1, suffix="dead")
    await shared.put(ingress("good", rule("good.example", "/", "good:80")), service("good"), good, bad)
    assert {(await shared.ask("good.example")).by for _ in range(12)} == {"good"}
    await shared.remove(good)
    assert (await shared.ask("good.example")).status == 502
