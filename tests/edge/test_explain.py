"""What becomes of a request, told by the program that decides it, and what became of each Ingress."""

import json
from typing import Any

import pytest

from common.contracts.edge import Explanation, IngressState, Listing, Page, Refusal, Request
from common.testing.authority import Authority
from common.testing.objects import ingress, ingress_class, rule, service, tls_secret
from nginx_config_renderer import keypairs
from nginx_config_renderer.questions import Questions
from tests.edge.world import EdgeWorld

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "nginx.ingress.kubernetes.io/canary"


@pytest.fixture
def questions(shared: EdgeWorld) -> Questions:
    return Questions(shared.wanted, shared.applier, shared.settings.inquiry_socket, "edge-1")


async def explained(questions: Questions, host: str, path: str = "/", **more: Any) -> Explanation:
    request = Request(host=host, path=path, **more)
    return Explanation.model_validate_json(await questions.explain(request.model_dump_json().encode()))


async def listed(questions: Questions, namespace: str = "") -> dict[str, IngressState]:
    page = Page.model_validate_json(await questions.ingresses(Listing(namespace=namespace).model_dump_json().encode()))
    return {f"{one.namespace}/{one.name}": one for one in page.ingresses}


async def test_it_names_the_ingress_the_rule_the_service_and_the_endpoints(shared: EdgeWorld, questions: Questions) -> None:
    one = ingress("web", rule("one.example", "/shop", "web:80"))
    await shared.put(service("web"), *await shared.serve("web"), one)
    told = await explained(questions, "one.example", "/shop/../shop//cart?x=1")
    assert told.seen["goes"] is True
    assert told.seen["path"] == "/shop/cart"
    assert told.seen["route"] == {"path": "/shop", "exact": False, "ingress": "default/web", "backend": "default/web:80"}
    assert [endpoint["address"].rpartition(":")[0] for endpoint in told.seen["endpoints"]] == ["127.0.0.1"]
    assert [(one.name, one.state, one.version) for one in told.claimants] == [("web", "serving", str(shared.sequence))]


async def test_it_says_why_the_others_do_not_answer(shared: EdgeWorld, questions: Questions) -> None:
    paths = ["/", "/a", "/a/b", "/other"]
    old = ingress("old", *(rule("why.example", path, "why:80") for path in paths), created="2020-01-01T00:00:00Z")
    exact = ingress("exact", rule("why.example", "/a/b", "why:80", "Exact"), created="2020-01-01T00:00:00Z")
    young = ingress("young", rule("why.example", "/a", "why:80"), created="2021-01-01T00:00:00Z")
    alien = ingress("alien", rule("why.example", "/a", "why:80"), class_name="traefik")
    wild = ingress("wild", rule("*.example", "/", "why:80"))
    await shared.put(
        service("why"), *await shared.serve("why"), ingress_class("traefik", "traefik.io"), old, exact, young, alien, wild
    )
    told = await explained(questions, "why.example", "/a/b")
    assert told.seen["route"]["exact"] is True
    assert {(one["path"], one["why"]) for one in told.seen["others"]} == {
        ("/a/b", "an Exact path goes before"),
        ("/a", "an Exact path goes before"),
        ("", "an Exact path goes before"),
        ("/other", "the path is not below this"),
    }
    assert [(one["name"], one["known"]) for one in told.seen["hosts"]][:2] == [("why.example", True), ("*.example", True)]
    claimants = {one.name: one for one in told.claimants}
    assert (claimants["alien"].ours, claimants["alien"].class_name) == (False, "traefik")
    assert claimants["young"].state == "shadowed"
    assert "older Ingress default/old" in claimants["young"].problems[0]
    longer = await explained(questions, "why.example", "/a/c")
    assert longer.seen["route"]["path"] == "/a"
    assert {one["why"] for one in longer.seen["others"] if one["path"] == ""} == {"a longer path goes before"}


async def test_it_answers_as_the_edge_does(shared: EdgeWorld, questions: Questions) -> None:
    """Each answer is held against a request that is really made."""
    main = ingress("as", rule("as.example", "/", "as:80"), rule("as.example", "/none", "nobody:80"))
    asked = {CANARY: "true", f"{CANARY}-by-header": "X-New"}
    canary = ingress("as-new", rule("as.example", "/", "new:80"), annotations=asked)
    await shared.put(service("as"), service("new"), service("nobody"), *await shared.serve("as", "new"), main, canary)
    cases: list[tuple[str, str, dict[str, str]]] = [
        ("as.example", "/", {}),
        ("AS.example:80", "/%61", {}),
        ("as.example", "/", {"X-New": "always"}),
        ("as.example", "/", {"X-New": "never"}),
        ("as.example", "/none", {}),
        ("missing.invalid", "/", {}),
    ]
    for host, path, headers in cases:
        real = await shared.ask(host, path, **headers)
        told = await explained(questions, host, path, headers=tuple(headers.items()))
        if real.status == 200:
            assert told.seen["backend"] == f"default/{real.by}:80", (host, path, headers)
        else:
            assert told.seen["location"] == f"@{real.status}", (host, path, headers)


async def test_it_tells_of_certificates_by_name_and_of_the_way_to_https(shared: EdgeWorld, questions: Questions) -> None:
    secure = ingress("tls", rule("tls.example", "/", "tls:80"))
    secure["spec"]["tls"] = [{"hosts": ["tls.example"], "secretName": "pair"}]
    issued = Authority().issue("tls.example")
    await shared.put(service("tls"), *await shared.serve("tls"), secure, tls_secret("pair", issued))
    pair = keypairs.read("default", "pair", issued.data)
    shared.applier.want(shared.wanted.learn(pair).entries)
    await shared.settle()
    assert (await explained(questions, "tls.example")).seen["location"] == "@308"
    told = await explained(questions, "tls.example", scheme="https")
    assert told.seen["goes"] is True
    assert told.seen["certificates"].get("pairs") == [{"name": "default/pair"}]
    assert (await explained(questions, "tls.example", scheme="https", sni="else.invalid")).seen["certificates"].get("pairs") is None
    assert "PRIVATE" not in json.dumps(told.seen)


async def test_each_ingress_has_a_state_the_version_that_is_served_and_its_problems(
    shared: EdgeWorld, questions: Questions
) -> None:
    where = rule("list.example", "/", "list:80")
    first = ingress("first", where, namespace="listed", created="2020-01-01T00:00:00Z")
    second = ingress("second", where, namespace="listed", created="2021-01-01T00:00:00Z")
    bad = ingress("bad", rule("bad host", "/", "list:80"), namespace="listed")
    await shared.put(service("list", namespace="listed"), first, second, bad)
    found = await listed(questions, "listed")
    assert {name: one.state for name, one in found.items()} == {
        "listed/first": "serving",
        "listed/second": "shadowed",
        "listed/bad": "rejected",
    }
    assert found["listed/first"].version
    assert found["listed/first"].hosts == ("list.example",)
    assert "listed/first" in found["listed/second"].problems[0]
    await shared.remove(first)
    found = await listed(questions, "listed")
    assert "listed/first" not in found
    assert found["listed/second"].state == "serving"


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"[]",
        b'{"host": "a b"}',
        b'{"host": "a", "path": "/\\r\\nX: y"}',
        b'{"host": "a", "headers": [["x", "y\\r\\nz: 1"]]}',
        b'{"host": "a", "headers": [["x y", "z"]]}',
        b'{"host": "a", "method": "GET / HTTP/1.1"}',
        b'{"host": "a", "scheme": "ftp"}',
    ],
)
async def test_what_is_no_request_is_refused_with_the_field(shared: EdgeWorld, questions: Questions, question: bytes) -> None:
    refusal = Refusal.model_validate_json(await questions.explain(question))
    assert refusal.error.startswith("this cannot be asked: ")


async def test_what_nginx_itself_refuses_is_told_so(shared: EdgeWorld, questions: Questions) -> None:
    request = Request(host="one.example", path="/../x")
    refusal = Refusal.model_validate_json(await questions.explain(request.model_dump_json().encode()))
    assert "nginx itself refuses such a request: HTTP/1.1 400" in refusal.error
