"""What an operator reads of a request. That it is so is seen in tests/edge/test_explain.py."""

from typing import Any

import pytest

from common.contracts.edge import Claimant, Explanation, IngressState, Request
from seaway.telling import rows, tell

ROUTE = {"path": "/a", "exact": False, "ingress": "shop/web", "backend": "shop/web:80"}
SEEN: dict[str, Any] = {
    "path": "/a/b",
    "hosts_key": "shop.example",
    "hosts": [{"name": "shop.example", "known": True}, {"name": "*.example", "known": True}, {"name": "*", "known": False}],
    "route": ROUTE,
    "backend": "shop/web:80",
    "goes": True,
    "endpoints": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80", "rests": 7.2, "fails": 3}],
    "others": [{**ROUTE, "path": "", "why": "a longer path goes before"}],
}
ASKED = Request(host="shop.example", path="/a/b", scheme="https")


def told(seen: dict[str, Any] | None = None, *claimants: Claimant, **more: Any) -> str:
    return "\n".join(tell(ASKED, Explanation(instance="n1", seen=SEEN | (seen or {}), claimants=claimants, **more), ["n1"], of=1))


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        ({}, "Ingress shop/web, host shop.example, Prefix /a → Service shop/web:80"),
        ({}, "10.0.0.1:80, in use"),
        ({}, "10.0.0.2:80, rests for 7 s after 3 failures"),
        ({}, "host *.example: shop.example goes before"),
        ({}, "Ingress shop/web, Prefix /: a longer path goes before"),
        ({}, "certificate for shop.example: the default one"),
        ({"path": "/b"}, "the path is read as /b"),
        ({"goes": False, "location": "@503", "endpoints": []}, "answered by the edge itself with 503"),
        ({"goes": False, "location": "@404", "route": None}, "host shop.example is known, and no path of it fits"),
        (
            {"hosts_key": None, "route": {**ROUTE, "ingress": "-", "backend": "default/sorry:"}},
            "no Ingress claims it → the default backend, Service default/sorry",
        ),
        ({"certificates": {"host": "*.example", "pairs": [{"name": "shop/tls"}]}}, "Secret shop/tls, as *.example"),
        ({"certificates": {"host": "shop.example"}}, "certificate for shop.example: the default one"),
        (
            {"clients": {"verify": "on", "depth": 1}},
            "clients must show a certificate of its authorities, else 400, depth 1 (auth-tls-…)",
        ),
        ({"clients": {"verify": "optional", "depth": 2, "shown": True}}, "else 400, depth 2; backends get it (auth-tls-…)"),
        ({"clients": {"verify": "on", "depth": 1}, "goes": False, "location": "@403"}, "403: nobody gets in until"),
        ({"clients": {"verify": "on", "depth": 1}, "goes": False, "location": "@421"}, "421: the name in the TLS handshake"),
        ({"clients": {"verify": "on", "depth": 1}, "goes": False, "location": "@308"}, "since its clients must show a certificate"),
        ({"certificates": {"passed": True}}, "TLS to shop.example is passed on unopened"),
        ({"policy": {"timeouts": [5, 60, 9], "retry": {"tries": 1}}}, "differently from others: retry (tries 1), timeouts 5 60 9"),
        (
            {"canaries": [{"backend": "shop/new:80", "share": 0.1, "able": True, "chosen": False}]},
            "canary shop/new:80 (10% of all requests): not drawn this time",
        ),
        (
            {"canaries": [{"backend": "shop/new:80", "share": 0, "cookie": "cookie_try", "able": False, "chosen": False}]},
            "canary shop/new:80 (cookie cookie_try): it has no ready endpoint",
        ),
    ],
)
def test_each_thing_that_nginx_saw_is_a_line(seen: dict[str, Any], line: str) -> None:
    assert line in told(seen)


def test_who_else_wants_the_host_is_told_with_the_reason() -> None:
    young = Claimant(namespace="blog", name="web", ours=True, state="shadowed", problems=("it is taken; change the host",))
    other = Claimant(namespace="old", name="web", ours=False, class_name="traefik")
    late = Claimant(namespace="new", name="web", ours=True, state="waiting")
    text = told(None, young, other, late)
    assert "Ingress blog/web: it is taken; change the host" in text
    assert "Ingress old/web: not ours, it is of class traefik" in text
    assert "Ingress new/web: nginx has not got it yet" in text


def test_an_edge_that_is_behind_says_so() -> None:
    assert "has not got the whole cluster" in told(complete=False)
    assert "changes are on their way" in told(settled=False)


def test_an_ingress_is_a_row_with_the_revision_that_is_served() -> None:
    one = IngressState(namespace="shop", name="web", state="serving", version="7", newest="9", hosts=("a", "b", "c", "d"))
    assert rows({"n1": [one]}) == [("n1", "shop", "web", "serving", "7 (9 comes)", "a, b, c and 1 more", "")]
