"""What the edge carries without opening it follows from the objects, however they come, and never touches the text of nginx.conf."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.messages import Stored, message
from tests.unit.test_edge_wanted import EDGE, OPTIONS

from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.testing import wait_until
from common.testing.objects import config_map, endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.configuration import configuration
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.entering import listeners_of
from nginx_config_renderer.resolved import resolved
from nginx_config_renderer.stream_files import StreamFiles
from nginx_config_renderer.streams import TCP, UDP, Entrances, Listener
from nginx_config_renderer.wanted import NO_CONFIGMAP, Wanted

PASSED = {PREFIX + "ssl-passthrough": "true"}
ENTRANCES = Entrances(
    tcp=ObjectRef(ConfigMap.resource, "edge", "tcp"),
    udp=ObjectRef(ConfigMap.resource, "edge", "udp"),
    reserved=frozenset({80, 443}),
    passthrough=True,
)
POOL = (
    ingress_class(),
    ingress_class(controller="other.io/controller"),
    config_map("tcp", {"7000": "default/web:80", "7001": "default/nobody:1::PROXY", "443": "default/web:80"}, "edge"),
    config_map("tcp", {"7000": "default/api:http:PROXY", "x": "y"}, "edge"),
    config_map("udp", {"7000": "default/web:53", "7002": "default/web:80"}, "edge"),
    config_map("other", {"7003": "default/web:80"}, "edge"),
    ingress("one", rule("a.example", "/", "web:80"), annotations=PASSED),
    ingress("one", rule("a.example", "/", "web:80"), rule("a.example", "/x", "api:81")),
    ingress("two", rule("*.example", "/", "api:http"), rule("a.example", "/", "api:http"), annotations=PASSED),
    ingress("three", default="web:80", annotations=PASSED),
    service("web", "http:80", "dns:53/UDP"),
    service("api", "http:81"),
    endpoint_slice("web", "10.0.0.1", port_name="http"),
    endpoint_slice("web", "fd00::1", "10.0.0.2", port_name="dns", protocol="UDP", suffix="2"),
    endpoint_slice("api", "10.0.0.3", port_name="http"),
)
history = st.lists(st.tuples(st.sampled_from(POOL), st.booleans()), max_size=25)


def wanted(*objects: dict[str, Any], entrances: Entrances = ENTRANCES) -> Wanted:
    made = Wanted("local", Class(), NO_CONFIGMAP, entrances)
    made.replace([message(raw, number) for number, raw in enumerate(objects, start=1)], ())
    return made


@given(history, st.integers(0, 25))
def test_files_and_listeners_are_the_same_one_by_one_or_all_at_once(steps: list[tuple[dict[str, Any], bool]], cut: int) -> None:
    messages = [message(raw, number, gone=gone) for number, (raw, gone) in enumerate(steps, start=1)]
    grown, told = wanted(), dict[str, str]()
    grown.replace(_newest(messages[:cut]), ())
    told |= grown.entering.files
    for one in messages[cut:]:
        news = grown.change([one])
        for name in news.streams.files:
            told.pop(name, None)
        told |= {name: grown.entering.files[name] for name in news.streams.files if name in grown.entering.files}
    whole = wanted()
    whole.replace(_newest(messages), ())
    assert grown.entering.files == whole.entering.files == told
    assert grown.entering.listeners == whole.entering.listeners
    assert grown.problems == whole.problems


def _newest(messages: list[Stored]) -> list[Stored]:
    return [one for one in {one.subject: one for one in messages}.values() if not one.gone]


def files(*objects: dict[str, Any]) -> Mapping[str, Any]:
    return {name: json.loads(text) for name, text in wanted(ingress_class(), *objects).entering.files.items()}


def test_an_entry_names_a_port_of_a_service_by_name_or_number_and_of_its_protocol() -> None:
    objects = POOL[10:]
    assert files(*objects, config_map("tcp", {"7000": "default/web:80", "7001": "default/api:http"}, "edge"))["ports/TCP-7001"] == [
        "10.0.0.3:8080"
    ]
    assert files(*objects, config_map("udp", {"53": "default/web:53"}, "edge")) == {
        "ports/UDP-53": ["10.0.0.2:8080", "[fd00::1]:8080"]
    }


def test_a_configmap_that_nobody_named_opens_nothing() -> None:
    assert wanted(ingress_class(), config_map("other", {"7003": "default/web:80"}, "edge")).entering.listeners == ()


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4), st.text(max_size=30))
def test_no_text_of_a_configmap_gets_into_the_configuration_or_out_of_the_directory(data: dict[str, str], host: str) -> None:
    made = wanted(
        ingress_class(),
        config_map("tcp", data, "edge"),
        ingress("a", rule(host, "/", "web:80"), annotations=PASSED),
        service("web"),
    )
    assert all(name.count("/") == 1 and not name.endswith(("/.", "/..")) for name in made.entering.files)
    plain = tuple(Listener(TCP, one.port, one.proxy_in, one.proxy_out) for one in made.entering.listeners)
    text = configuration(replace(EDGE, listeners=made.entering.listeners), OPTIONS, "p")
    assert text == configuration(replace(EDGE, listeners=plain), OPTIONS, "p")


def test_a_missing_service_keeps_its_port_open_so_that_its_return_is_no_reload() -> None:
    entry = config_map("tcp", {"7000": "default/web:80"}, "edge")
    made = wanted(ingress_class(), entry)
    assert made.entering.listeners == (Listener(TCP, 7000),)
    assert not made.change([message(service("web", 80), 9)]).streams.listeners


async def test_where_a_passed_host_led_stays_so_until_somebody_has_looked_up_where_it_leads_now(tmp_path: Path) -> None:
    web = service("web")
    web["spec"] |= {"type": "ExternalName", "externalName": "web.example.org"}
    passed = ingress("one", rule("old.example", "/", "web:80"), rule("new.example", "/", "web:80"), annotations=PASSED)
    made = wanted(ingress_class(), web, passed)
    old, new = tmp_path / "hosts/old.example", tmp_path / "hosts/new.example"
    old.parent.mkdir()
    old.write_text('["10.0.0.1:80"]')
    files = StreamFiles(tmp_path, made.entering)
    files.release()
    running = asyncio.create_task(files.run())
    await wait_until(lambda: files.settled)
    assert (old.read_text(), new.read_text()) == ('["10.0.0.1:80"]', "[]")
    for found in (resolved("web.example.org", problem="nobody answers", known=False), resolved("web.example.org", ("10.0.0.2",))):
        files.want(made.resolve(found).streams.files)
        await wait_until(lambda: files.settled)
        assert old.read_text() == f'["10.0.0.{2 if found.known else 1}:80"]'
    assert new.read_text() == old.read_text()
    running.cancel()


def test_a_host_without_a_root_path_is_not_passed_on_to_anybody_and_says_so() -> None:
    made = wanted(ingress_class(), service("web", 80), ingress("a", rule("a.example", "/x", "web:80"), annotations=PASSED))
    assert made.entering.files["hosts/a.example"] == "[]"
    assert any("add the path / to it" in problem.message for problem in made.problems)


def test_who_names_no_host_is_told_that_there_must_be_one() -> None:
    made = wanted(ingress_class(), service("web", 80), ingress("a", default="web:80", annotations=PASSED))
    assert made.entering.files == {}
    assert any("name a host in each rule" in problem.message for problem in made.problems)


def test_a_younger_ingress_of_a_passed_host_is_told_that_nobody_asks_it_by_https() -> None:
    old = ingress("old", rule("a.example", "/", "web:80"), annotations=PASSED, created="2026-01-01T00:00:00Z")
    new = ingress("new", rule("a.example", "/x", "web:80"), created="2026-01-02T00:00:00Z")
    told = {problem.ref.name: problem.message for problem in wanted(ingress_class(), service("web", 80), old, new).problems}
    assert "passed through by the older Ingress default/old" in told["new"]
    assert "old" not in told


def test_nginx_without_streams_has_not_a_word_of_them() -> None:
    text = configuration(EDGE, OPTIONS, "p")
    assert "stream" not in text.replace("upstream", "")


@pytest.mark.parametrize(
    ("listener", "lines"),
    [
        (Listener(TCP, 9000), ("listen 9000 backlog=4096 reuseport;", "listen [::]:9000 backlog=4096 reuseport;")),
        (Listener(TCP, 9000, proxy_in=True), ("listen 9000 backlog=4096 proxy_protocol reuseport;",)),
        (Listener(TCP, 9000, proxy_out=True), ("proxy_protocol on;",)),
        (Listener(UDP, 53), ("listen 53 udp reuseport;", "proxy_responses 1;")),
    ],
)
def test_a_listener_is_written_as_it_is_asked_for(listener: Listener, lines: tuple[str, ...]) -> None:
    text = configuration(replace(EDGE, listeners=(listener,)), OPTIONS, "p")
    assert all(f"        {line}\n" in text for line in lines)


def test_kept_listeners_that_are_none_are_left_out() -> None:
    assert listeners_of([["TCP", 9000, False, True], ["SCTP", 1], ["TCP", 0], ["UDP", "5; }"], "x"]) == (
        Listener(TCP, 9000, proxy_out=True),
    )
