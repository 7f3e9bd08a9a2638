"""What nginx should hold follows from the messages of the bus, however they come, and never touches nginx.conf."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.messages import Stored, message

from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer.configuration import Edge, configuration
from nginx_config_renderer.contract import fingerprint_of
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.model import Backend, BackendKey, Canary, Endpoint, HostRoutes, IngressKey, Route
from nginx_config_renderer.options import Options
from nginx_config_renderer.plan import BACKENDS, HOSTS
from nginx_config_renderer.policy import USUAL, Affinity, Policy, Special
from nginx_config_renderer.render import backend_entry, host_entry, policy_entry
from nginx_config_renderer.wanted import Wanted

POOL = (
    ingress_class(),
    ingress_class(controller="other.io/controller"),
    ingress("one", rule("a.example", "/", "web:80")),
    ingress("one", rule("b.example", "/x", "web:80"), default="api:80"),
    ingress("two", rule("a.example", "/", "api:80")),
    ingress("two", rule("a.example", "bad", "api:80")),
    service("web"),
    service("api", "http:81"),
    endpoint_slice("web", "10.0.0.1"),
    endpoint_slice("web", "10.0.0.2", not_ready=["10.0.0.1"]),
)
history = st.lists(st.tuples(st.sampled_from(POOL), st.booleans()), max_size=20)


@given(history, st.integers(0, 20))
def test_one_by_one_or_all_at_once_comes_to_the_same(steps: list[tuple[dict[str, Any], bool]], cut: int) -> None:
    messages = [message(raw, number, gone=gone) for number, (raw, gone) in enumerate(steps, start=1)]
    grown = Wanted("local", Class())
    grown.replace(_newest(messages[:cut]), ())
    for one in messages[cut:]:
        grown.change([one])
    whole = Wanted("local", Class())
    whole.replace(_newest(messages), ())
    assert grown.entries == whole.entries
    assert grown.problems == whole.problems


def _newest(messages: Sequence[Stored]) -> list[Stored]:
    return [one for one in {one.subject: one for one in messages}.values() if not one.gone]


def test_only_what_became_different_is_told() -> None:
    wanted = Wanted("local", Class())
    objects = (
        ingress_class(),
        ingress("one", rule("a.example", "/", "web:80")),
        service("web"),
        endpoint_slice("web", "10.0.0.1"),
    )
    first = wanted.replace([message(raw, number) for number, raw in enumerate(objects, start=1)], ())
    assert first.entries == {(HOSTS, "a.example"), (BACKENDS, "default/web:80")}
    assert wanted.change([message(objects[3], 5)]).entries == frozenset()
    assert wanted.change([message(endpoint_slice("web", "10.0.0.2"), 6)]).entries == {(BACKENDS, "default/web:80")}
    assert wanted.change([message(objects[1], 7, gone=True)]).entries == {(HOSTS, "a.example"), (BACKENDS, "default/web:80")}
    assert wanted.entries == {}


def test_a_message_that_cannot_be_read_leaves_the_last_good_version_in_force_and_is_told() -> None:
    wanted = Wanted("local", Class())
    good = message(endpoint_slice("web", "10.0.0.1"), 4)
    shop = ingress("one", rule("a.example", "/", "web:80"))
    wanted.replace([message(ingress_class(), 1), message(shop, 2), message(service("web"), 3), good], ())
    before = dict(wanted.entries)
    news = wanted.change([replace(good, body=b"\xc1", sequence=5)])
    assert (news.entries, news.problems) == (frozenset(), True)
    assert dict(wanted.entries) == before
    assert [problem.reason for problem in wanted.problems] == ["BadMessage"]
    assert wanted.change([replace(good, sequence=6)]).problems
    assert wanted.problems == ()


def test_entries_are_json_and_what_users_write_is_quoted_in_it() -> None:
    evil = BackendKey("default", 'web"}}', "80")
    shop = IngressKey("default", "shop")
    canary = Canary(evil, header_pattern='"}', weight=5)
    routes = HostRoutes(exact=(('/"]}', Route(evil, shop)),), prefixes=(("", Route(evil, shop, (canary,), special=True)),))
    backend = 'default/web"}}:80'
    assert json.loads(host_entry(routes)) == {
        "e": {'/"]}': [backend, "default/shop"]},
        "p": {"": [backend, "default/shop", {"p": True, "c": [{"b": backend, "re": '"}', "w": 5, "of": 100}]}]},
    }
    assert backend_entry(Backend((Endpoint("10.0.0.1", 80), Endpoint("fd00::1", 81)))) == '[["10.0.0.1",80],["[fd00::1]",81]]'


def test_the_entry_of_a_policy_holds_what_is_not_as_usual() -> None:
    assert json.loads(policy_entry(Special(Policy(ssl_redirect=False), USUAL))) == {"plain": True}
    assert json.loads(policy_entry(Special(Policy(body_size=0, read_timeout=9), USUAL))) == {
        "at": "@http-kept-passed-any-once",
        "timeouts": [5, 60, 9],
    }
    assert json.loads(policy_entry(Special(Policy(retry_on=frozenset({"status", "error"}), body_size=5), USUAL))) == {
        "at": "@http-kept-passed-1m-status",
        "max": 5,
        "retry": {"on": ["error", "status"], "tries": 3, "within": 0},
    }
    assert json.loads(policy_entry(Special(Policy(affinity=Affinity(max_age=9, secure=False)), USUAL))) == {
        "sticky": {"name": "INGRESSCOOKIE", "attributes": "; Path=/; Max-Age=9", "canary": True, "secure": False},
    }


OPTIONS = Options()
EDGE = Edge(
    http_port=80,
    https_port=443,
    workers="auto",
    open_files=64,
    state="/s",
    run="/s/run",
    admin_socket="/s/run/admin.sock",
    program="/s/program",
    certificate="/s/crt",
    certificate_key="/s/key",
    modules=("/m/a.so",),
    journals=("/s/journal",),
    table_size=1,
    ipv6=True,
)


def test_the_fingerprint_tells_two_configurations_and_two_programs_apart() -> None:
    texts = [
        configuration(EDGE, OPTIONS, "p1"),
        configuration(EDGE, OPTIONS, "p2"),
        configuration(replace(EDGE, http_port=81), OPTIONS, "p1"),
    ]
    assert len({fingerprint_of(text) for text in texts}) == 3
    assert configuration(EDGE, OPTIONS, "p1") == texts[0]


@pytest.mark.parametrize(("version", "line"), [((1, 22, 1), "listen 443 ssl http2 default"), ((1, 26, 3), "        http2 on;\n")])
def test_http_2_is_offered_in_the_words_of_each_nginx(version: tuple[int, ...], line: str) -> None:
    text = configuration(replace(EDGE, nginx=version), OPTIONS, "p")
    assert line in text
    assert text.count("http2") == (2 if version < (1, 25, 1) else 1)


def test_listening_on_ipv6_and_https_can_be_left_out() -> None:
    text = configuration(replace(EDGE, ipv6=False, https_port=0), OPTIONS, "p")
    assert "[::]" not in text
    assert "ssl_certificate " not in text
    assert "listen [::]:443 ssl" in configuration(EDGE, OPTIONS, "p")
