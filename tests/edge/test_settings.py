"""What the operator's ConfigMap says is what nginx does; what cannot be is refused, and nothing else waits for it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.bus.streams import ensure_streams
from common.contracts.objects import ConfigMap
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.objects import config_map, endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer import metrics
from nginx_config_renderer.admin import AdminError
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.configuration import TEMPLATE
from nginx_config_renderer.configure import Configurator
from nginx_config_renderer.follow import Intake
from nginx_config_renderer.nginx import Configuration
from nginx_config_renderer.option_keys import TEMPLATE_KEY
from nginx_config_renderer.program import PROGRAM
from tests.disk import no_room, small_disk
from tests.edge.fleet import Server, busy, fleet
from tests.edge.test_trust import Watched
from tests.edge.world import NGINX, SOON, EdgeWorld, ask, edge

HOST = "shop.example"
OURS = (PROGRAM.parent / "templates" / TEMPLATE).read_text()


@pytest.fixture
async def world(own: EdgeWorld) -> EdgeWorld:
    await own.put(service("web"), *await own.serve("web"), ingress("shop", rule(HOST, "/", "web:80")))
    return own


def reasons(world: EdgeWorld) -> list[str]:
    return [problem.message for problem in world.refused]


async def test_what_the_configmap_says_is_in_force_and_gone_with_it(world: EdgeWorld) -> None:
    await world.configure({"proxy-body-size": "1k", "hide-headers": "X-Secret"})
    assert reasons(world) == []
    assert (await post(world, 2000)) == 413
    await world.configure({"proxy-body-size": "4k"})
    assert (await post(world, 2000)) == 200
    await world.configure(None)
    assert (await post(world, 200_000)) == 200


async def post(world: EdgeWorld, length: int) -> int:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n".encode())
        writer.write(b"x" * length)
        status = int((await reader.readline()).split()[1])
        writer.close()
    return status


async def test_an_annotation_goes_before_the_configmap(world: EdgeWorld) -> None:
    await world.put(ingress("shop", rule(HOST, "/", "web:80"), annotations={PREFIX + "proxy-body-size": "1m"}))
    await world.configure({"proxy-body-size": "1k"})
    assert (await post(world, 2000)) == 200


async def test_what_is_decided_in_the_program_follows_the_configmap_too(world: EdgeWorld) -> None:
    bad, good = Server(busy), Server()
    async with fleet(world, "api", bad, good):
        await world.put(ingress("api", rule("api.example", "/", "api:80")))
        await world.configure({"proxy-next-upstream": "error timeout http_503", "force-ssl-redirect": "false"})
        assert [(await world.ask("api.example")).status for _ in range(4)] == [200] * 4
        await world.configure({"force-ssl-redirect": "true", "http-redirect-code": "301"})
        answer = await world.ask("api.example", "/x?y=1")
        assert (answer.status, answer.headers["location"]) == (301, "https://api.example/x?y=1")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"proxy-body-sise": "1m"}, "key proxy-body-sise is '1m': it is not known here; remove it, and see docs/settings.md"),
        ({"proxy-read-timeout": "soon"}, "key proxy-read-timeout is 'soon': write seconds as a whole number"),
        ({"ssl-protocols": "SSLv3"}, "write TLSv1.2 and TLSv1.3, or one of them"),
        ({"ssl-ciphers": "ALL;} server {"}, "write ciphers as OpenSSL names them"),
        ({"ssl-ciphers": "NO-SUCH-CIPHER"}, "nginx does not take it"),
        ({"proxy-real-ip-cidr": "10.0.0.0/33"}, "write networks such as 10.0.0.0/8"),
        ({"forwarded-for-header": "X-F'; deny all"}, "write letters, digits and dashes"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_key_and_everything_else_goes_on(
    world: EdgeWorld, data: dict[str, str], complaint: str
) -> None:
    await world.configure({"proxy-body-size": "1k"})
    before = (world.settings.state / "nginx.conf").read_bytes()
    await world.configure({"proxy-body-size": "9m"} | data)
    assert any(complaint in reason for reason in reasons(world)), reasons(world)
    assert (world.settings.state / "nginx.conf").read_bytes() == before
    await world.put(ingress("new", rule("new.example", "/", "web:80")))
    assert (await world.ask("new.example")).by == "web"
    assert (await post(world, 2000)) == 413
    await world.configure({"proxy-body-size": "9m"})
    assert reasons(world) == []


async def test_the_last_good_configmap_outlives_the_renderer(world: EdgeWorld) -> None:
    await world.configure({"proxy-body-size": "1k"})
    await world.configure({"proxy-body-size": "lots"})
    again = Configurator(
        await Configuration.of(world.settings.edge(), NGINX), world.settings.options, world.settings.state / "options.json"
    )
    await again.begin()
    assert "client_max_body_size 1024;" in (world.settings.state / "nginx.conf").read_text()


async def test_a_kept_configmap_that_is_good_no_more_is_left_aside(world: EdgeWorld, tmp_path: Path) -> None:
    kept = world.settings.state / "options.json"
    for text in ("{", "[]", json.dumps({"unknown": "1"}), json.dumps({"ssl-ciphers": "NO-SUCH-CIPHER"})):
        kept.write_text(text)
        again = Configurator(await Configuration.of(world.settings.edge(), NGINX), world.settings.options, kept)
        await again.begin()
        assert "client_max_body_size 1048576;" in (world.settings.state / "nginx.conf").read_text()


# ---- a disk that is full


@pytest.fixture
async def cramped(tmp_path: Path) -> AsyncIterator[EdgeWorld]:
    """An edge whose directory is on a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    with small_disk(tmp_path):
        async with edge(tmp_path) as world:
            await world.put(service("web"), *await world.serve("web"), ingress("shop", rule(HOST, "/", "web:80")))
            yield world


async def test_a_full_disk_leaves_nginx_its_configuration_and_says_where_room_is_needed(cramped: EdgeWorld) -> None:
    await cramped.configure({"proxy-body-size": "1k"})
    with no_room(cramped.settings.state):
        await cramped.configure({"proxy-body-size": "4k"})
        conf = cramped.settings.state / "nginx.conf"
        said = f"a new configuration of nginx cannot be written to {conf}: No space left on device; the one before stays in force"
        assert reasons(cramped) == [f"{said} until there is room"]
        assert cramped.configurator.unwritten == reasons(cramped)[0]
        assert (await post(cramped, 2000)) == 413
        await cramped.put(ingress("new", rule("new.example", "/", "web:80")))
        assert (await cramped.ask("new.example")).by == "web", "routes do not wait for it"
    await cramped.configure({"proxy-body-size": "4k"})
    assert (await post(cramped, 2000)) == 200
    assert reasons(cramped) == []
    assert cramped.configurator.unwritten is None


async def test_what_a_full_disk_did_not_take_of_the_configmap_is_in_force_when_there_is_room_although_nothing_changes(
    cramped: EdgeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nginx_config_renderer.follow._AGAIN", 0.2)
    bus = MemoryBus(MemoryBroker())
    await ensure_streams(bus, 1)
    intake = Intake(
        cramped.wanted,
        cramped.applier,
        cramped.files,
        Reports(FactPublisher(bus), service="edge", cluster="local", instance="i"),
    )
    ref = cramped.settings.options_ref
    tasks = [asyncio.create_task(intake.follow(bus, "local", [ref])), asyncio.create_task(intake.configure(cramped.configurator))]
    try:
        with no_room(cramped.settings.state):
            cluster = Watched(cramped, bus)
            await cluster.watch(100, ingress_class(), config_map(ref.name, {"proxy-body-size": "1k"}, ref.namespace))
            await cluster.mark()
            await wait_until(lambda: cramped.configurator.unwritten is not None, within=SOON)
        await wait_until(lambda: cramped.configurator.unwritten is None, within=SOON)
        await cramped.configuration.in_force()
        assert "client_max_body_size 1024;" in (cramped.settings.state / "nginx.conf").read_text()
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_renderer_starts_on_a_full_disk_and_writes_nothing_that_is_there(cramped: EdgeWorld) -> None:
    await cramped.configure({"proxy-body-size": "1k"})
    with no_room(cramped.settings.state):
        again = Configurator(
            await Configuration.of(cramped.settings.edge(), NGINX),
            cramped.settings.options,
            cramped.settings.state / "options.json",
        )
        await again.begin()
        await cramped.configure({"proxy-body-size": "1k"})
        assert reasons(cramped) == []
        assert (again.unwritten, cramped.configurator.unwritten, cramped.configurator.unkept) == (None, None, None)


async def test_a_renderer_with_other_settings_starts_on_a_full_disk_and_nginx_goes_on_with_what_it_has(cramped: EdgeWorld) -> None:
    with no_room(cramped.settings.state):
        again = Configurator(await cramped.another(workers=1), cramped.settings.options, cramped.settings.state / "options.json")
        await again.begin()
        assert "cannot be written" in str(again.unwritten)
        assert (await cramped.ask(HOST)).by == "web"


async def test_what_a_full_disk_did_not_keep_is_told_and_kept_when_there_is_room(world: EdgeWorld) -> None:
    kept = world.settings.state / "options.json"
    kept.unlink(missing_ok=True)
    kept.mkdir()  # no file can take its place
    configuring = asyncio.create_task(world.configure({"proxy-body-size": "1k"}))
    await wait_until(lambda: world.configurator.unkept is not None, within=SOON)
    assert str(world.settings.state) in str(world.configurator.unkept)
    assert (await post(world, 2000)) == 413, "and it is in force"
    kept.rmdir()
    await configuring
    assert world.configurator.unkept is None
    assert json.loads(kept.read_text()) == {"proxy-body-size": "1k"}


# ---- what no trial can see


@pytest.fixture
def crowded(world: EdgeWorld, monkeypatch: pytest.MonkeyPatch) -> EdgeWorld:
    """An edge on a machine where another program has a port that nginx is to have, which it may say. It is given up on sooner: nginx
    itself does after 2.5 seconds.
    """
    monkeypatch.setattr("nginx_config_renderer.nginx._TAKEN_WITHIN", 4.0)
    world.expected += ("bind() to", "still could not bind()")
    return world


async def test_a_configuration_that_nginx_does_not_take_after_its_trial_is_told_and_nginx_can_start_again(
    crowded: EdgeWorld,
) -> None:
    kept = crowded.settings.state / "options.json"
    await crowded.configure({"proxy-body-size": "1k"})
    reloads = metrics.RELOADS.labels("template")._value.get()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        await crowded.configurator.take(also_at(port), crowded)
        assert reasons(crowded) == [], "the trial has nothing against it: it cannot see who has the port"
        await wait_until(lambda: crowded.configurator.stale is not None, within=SOON)
        assert "it did not take the new one (template)" in str(crowded.configurator.stale)
        assert "a port that another program has: stop that, or take the change back" in str(crowded.configurator.stale)
        assert json.loads(kept.read_text()) == {"proxy-body-size": "1k"}, "a renderer that starts now goes on with what nginx has"
        await restart(crowded)
        assert (await post(crowded, 2000)) == 413
        await crowded.put(ingress("new", rule("new.example", "/", "web:80")))
        assert (await crowded.ask("new.example")).by == "web"
        assert metrics.RELOADS.labels("template")._value.get() == reloads
    await wait_until(lambda: crowded.configurator.stale is None, within=3 * SOON)
    assert (await ask(port, "whoever.example")).status > 0, "and it is in force when the port is free"
    await wait_until(lambda: TEMPLATE_KEY in json.loads(kept.read_text()), within=SOON)


async def test_an_nginx_that_cannot_start_with_what_was_written_while_it_was_away_gets_back_what_it_had(crowded: EdgeWorld) -> None:
    conf = crowded.settings.state / "nginx.conf"
    await crowded.configuration.in_force()
    assert crowded.nginx.pid is not None
    with socket.create_server(("127.0.0.1", 0)) as other:
        conf.unlink()  # so that it stays away
        os.kill(crowded.nginx.pid, signal.SIGKILL)
        await crowded.configurator.take(also_at(other.getsockname()[1]), crowded)
        assert reasons(crowded) == []
        await wait_until(lambda: crowded.configurator.stale is not None, within=SOON)
        await wait_until(partial(serves, crowded), within=SOON)


async def test_a_renderer_whose_new_settings_nginx_does_not_take_leaves_it_what_it_has(crowded: EdgeWorld) -> None:
    conf = crowded.settings.state / "nginx.conf"
    before = conf.read_text()
    assert crowded.keeping is not None
    crowded.keeping.cancel()
    with socket.create_server(("127.0.0.1", 0)) as other:
        again = Configurator(
            await crowded.another(http_port=other.getsockname()[1]),
            crowded.settings.options,
            crowded.settings.state / "options.json",
        )
        await again.begin()
        assert conf.read_text() != before
        keeping = asyncio.create_task(again.keep(crowded.admin))
        await wait_until(lambda: again.stale is not None, within=SOON)
        keeping.cancel()
        assert conf.read_text() == before


async def serves(world: EdgeWorld) -> bool:
    return (await world.ask(HOST)).by == "web"


def also_at(port: int) -> ConfigMap:
    """The operator's own template, which listens at one more port."""
    text = OURS.replace("http {\n", f"http {{\nserver {{ listen 127.0.0.1:{port}; }}\n", 1)
    return ConfigMap.project(config_map("seaway-edge", {TEMPLATE_KEY: text}, "seaway"))


async def restart(world: EdgeWorld) -> None:
    """Nginx is killed, and started again by whoever keeps it."""
    starts, instance = world.nginx.starts, (await world.admin.status()).instance
    assert world.nginx.pid is not None
    os.kill(world.nginx.pid, signal.SIGKILL)

    async def back() -> bool:
        with contextlib.suppress(AdminError):
            return world.nginx.starts > starts and (await world.admin.status()).instance != instance
        return False

    await wait_until(back, within=SOON)


# ---- whose address it is


async def test_what_a_client_says_of_itself_is_dropped_and_what_a_trusted_peer_says_is_believed(world: EdgeWorld) -> None:
    told = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "outer.example",
        "X-Forwarded-Port": "8443",
    }
    for trusted, believed in ((None, False), ("10.0.0.0/8", False), ("127.0.0.0/8", True)):
        data = {} if trusted is None else {"use-forwarded-headers": "true", "proxy-real-ip-cidr": trusted}
        await world.configure(data)
        seen = (await ask(world.port, HOST, headers=told)).seen["headers"]
        shown = {
            name: seen[name]
            for name in ("x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port")
        }
        own = ("127.0.0.1", "127.0.0.1", "http", HOST, str(world.port))
        assert tuple(shown.values()) == (("203.0.113.7", "203.0.113.7", "https", "outer.example", "8443") if believed else own)


async def test_a_trace_goes_on_and_is_nobodys_but_a_trusted_peers_where_that_is_asked(world: EdgeWorld) -> None:
    """W3C Trace Context §3: as it came, from whomever; and none is made, since no span of ours would stand behind it."""
    told = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}

    async def seen(**headers: str) -> dict[str, str]:
        asked = (await ask(world.port, HOST, headers=headers)).seen["headers"]
        return {name: asked[name] for name in told if name in asked}

    trusting = {"use-forwarded-headers": "true", "opentelemetry-trust-incoming-span": "false"}
    for data, passed in (
        ({}, told),
        ({"opentelemetry-trust-incoming-span": "false"}, {}),
        (trusting | {"proxy-real-ip-cidr": "10.0.0.0/8"}, {}),
        (trusting | {"proxy-real-ip-cidr": "127.0.0.0/8"}, told),
    ):
        await world.configure(data)
        assert await seen(**told) == passed
        assert await seen() == {}


async def test_the_whole_list_of_forwarders_is_kept_where_that_is_asked(world: EdgeWorld) -> None:
    await world.configure({"use-forwarded-headers": "true", "compute-full-forwarded-for": "true"})
    seen = (await ask(world.port, HOST, headers={"X-Forwarded-For": "203.0.113.7"})).seen["headers"]
    assert seen["x-forwarded-for"] == "203.0.113.7, 127.0.0.1"


async def test_the_proxy_protocol_tells_the_clients_address(world: EdgeWorld) -> None:
    await world.configure({"use-proxy-protocol": "true"})
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(
        f"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    )
    body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")[2]
    writer.close()
    assert json.loads(body)["headers"]["x-real-ip"] == "203.0.113.9"


# ---- a template of one's own


@pytest.mark.root
async def test_a_whole_template_is_used(world: EdgeWorld) -> None:
    own = OURS.replace("        location / {", "        location = /hello { return 200 hello; }\n        location / {", 1)
    await world.configure({TEMPLATE_KEY: own})
    assert reasons(world) == []
    assert (await world.ask(HOST, "/hello")).body == "hello"
    assert (await world.ask(HOST)).by == "web"


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("worker_processes", "{% if %}worker_processes"), "line "),
        (("{{ edge.workers }}", "{{ edge.no_such_thing }}"), "no_such_thing"),
        (("sendfile on;", "no_such_directive on;"), 'unknown directive "no_such_directive"'),
        (("sendfile on;", "{{ edge.__class__.__mro__ }}"), "unsafe"),
        (("sendfile on;", "ssl_certificate /etc/shadow; ssl_certificate_key /etc/shadow;"), "Permission denied"),
        (("admin_socket", "state"), "the program needs `listen unix:"),
    ],
)
async def test_a_template_that_cannot_be_is_refused_and_every_object_goes_on_being_updated(
    world: EdgeWorld, change: tuple[str, str], complaint: str
) -> None:
    before = (world.settings.state / "nginx.conf").read_bytes()
    assert change[0] in OURS
    await world.configure({TEMPLATE_KEY: OURS.replace(*change)})
    assert complaint in "".join(reasons(world)), reasons(world)
    assert "key template.conf.j2: " in "".join(reasons(world))
    assert (world.settings.state / "nginx.conf").read_bytes() == before
    await world.put(ingress("new", rule("new.example", "/", "web:80")), endpoint_slice("other", "127.0.0.1"))
    assert (await world.ask("new.example")).by == "web"


@pytest.mark.root
async def test_a_template_that_never_ends_holds_nobody_up(world: EdgeWorld) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    taking = asyncio.create_task(world.configure({TEMPLATE_KEY: endless}))
    await world.put(ingress("new", rule("new.example", "/", "web:80")))
    assert (await world.ask("new.example")).by == "web"
    await wait_until(taking.done, within=60)
    assert reasons(world) != []


async def test_clients_come_from_the_networks_that_may_and_from_none_that_may_not(world: EdgeWorld) -> None:
    for settings, status in (
        ({"whitelist-source-range": "10.0.0.0/8, 192.0.2.0/24"}, 403),
        ({"whitelist-source-range": "127.0.0.0/8"}, 200),
        ({"whitelist-source-range": "127.0.0.0/8", "denylist-source-range": "127.0.0.1"}, 403),
        ({"denylist-source-range": "10.0.0.0/8"}, 200),
    ):
        await world.configure(settings)
        assert reasons(world) == []
        assert (await world.ask(HOST)).status == status, settings


async def test_statuses_are_answered_by_the_default_backend_which_is_told_of_what(tmp_path: Path) -> None:
    bad = Server(behave=busy)
    async with edge(tmp_path, default_backend_service="default/sorry") as world, fleet(world, "bad", bad):
        paths = ingress("shop", *(rule(HOST, f"/{name}", f"{name}:80") for name in ("bad", "dead", "none")))
        dead = endpoint_slice("dead", "127.0.0.1", port=1)
        sorry = await world.serve("sorry")
        await world.put(service("dead"), dead, service("none"), service("sorry"), *sorry, paths)
        await world.configure({"custom-http-errors": "502,503"})
        assert reasons(world) == []
        for path, code, name in (("/bad", 503, "bad"), ("/dead", 502, "dead"), ("/none", 503, "none")):
            answer = await world.ask(HOST, f"{path}?x=1", Accept="text/html", Upgrade="h2c")
            assert answer.by == "sorry", path
            told = answer.seen["headers"]
            assert "upgrade" not in told
            assert (told["x-code"], told["x-format"], told["x-original-uri"]) == (str(code), "text/html", f"{path}?x=1")
            assert (told["x-service-name"], told["x-ingress-name"]) == (name, "shop")
        assert bad.begun == 1, "what has failed is not asked again"

        await world.remove(*sorry)
        for path, code in (("/bad", 503), ("/dead", 502), ("/none", 503), ("/nowhere", 503)):
            assert (await world.ask(HOST, path)).status == code, "without a default backend it is told as it is"


async def test_statuses_that_the_edge_uses_itself_are_refused(world: EdgeWorld) -> None:
    await world.configure({"custom-http-errors": "404,418"})
    assert "key custom-http-errors is '404,418': leave 418 and 499 out" in reasons(world)[0]
