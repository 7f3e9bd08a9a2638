"""HTTP/3, where nginx has it: the same routes and certificates, and TCP clients are told of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

from common.testing import wait_until
from common.testing.authority import Authority, Issued
from common.testing.debian import Installation
from common.testing.objects import ingress, rule, service, tls_secret
from nginx_config_renderer import keypairs, ports
from nginx_config_renderer.annotations import PREFIX
from tests.edge import http3
from tests.edge.world import SOON, EdgeWorld, ask, edge

ONLY = "debian13"  # nginx before 1.25 has no HTTP/3
AUTHORITY = Authority()
SHOP = ingress("shop", rule("shop.example", "/", "web:80"))
SHOP["spec"]["tls"] = [{"hosts": ["shop.example"], "secretName": "cert"}]


@pytest.fixture
async def world(tmp_path: Path, installation: Installation) -> AsyncIterator[EdgeWorld]:
    async with edge(tmp_path, installation) as world:
        await world.put(SHOP, service("web"), *await world.serve("web"))
        yield world


def anybody() -> ssl.SSLContext:
    """Trusts whoever answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def learn(world: EdgeWorld, name: str, issued: Issued) -> None:
    await world.put(tls_secret(name, issued))
    world.applier.want(world.wanted.learn(keypairs.read("default", name, issued.data)).entries)
    await world.settle()


async def test_a_client_is_served_by_http_3_with_the_certificate_of_its_host(world: EdgeWorld, tmp_path: Path) -> None:
    await learn(world, "cert", AUTHORITY.issue("shop.example"))
    answer, _ = await http3.ask(world.settings.https_port, "shop.example", "/a?b=1", AUTHORITY.write(tmp_path / "ca.crt"))
    assert (answer.status, answer.seen["name"], answer.seen["target"]) == (200, "web", "/a?b=1")
    headers = answer.seen["headers"]
    assert headers["host"] == f"shop.example:{world.settings.https_port}"
    assert headers["x-forwarded-proto"] == "https"
    assert answer.headers["strict-transport-security"].startswith("max-age=")


async def test_a_renewed_certificate_is_shown_to_the_next_connection_without_a_reload(world: EdgeWorld) -> None:
    before = await world.admin.status()
    for _ in range(3):
        issued = AUTHORITY.issue("shop.example")
        await learn(world, "cert", issued)
        _, shown = await http3.ask(world.settings.https_port, "shop.example")
        assert shown.serial_number == x509.load_pem_x509_certificate(issued.certificate).serial_number
    assert (await world.admin.status()).fingerprint == before.fingerprint


async def test_connections_that_come_at_once_are_all_answered(world: EdgeWorld) -> None:
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(http3.ask(world.settings.https_port, "shop.example")) for _ in range(20)]
    assert {task.result()[0].by for task in asking} == {"web"}


async def test_clients_by_tcp_are_told_of_it_and_those_by_http_are_not(world: EdgeWorld) -> None:
    told = await ask(world.settings.https_port, "shop.example", tls=anybody())
    assert told.headers["alt-svc"] == f'h3=":{world.settings.https_port}"; ma=86400'
    assert "alt-svc" not in (await world.ask("shop.example")).headers


@pytest.mark.parametrize("key", ["use-http3", "use-proxy-protocol"])
async def test_an_operator_can_have_it_off_and_it_is_off_behind_who_speaks_the_proxy_protocol(world: EdgeWorld, key: str) -> None:
    port = world.settings.https_port
    assert port in ports.taken("UDP")
    await world.configure({key: str(key == "use-proxy-protocol").lower()})
    await wait_until(lambda: port not in ports.taken("UDP"), within=SOON)
    if key == "use-http3":
        assert "alt-svc" not in (await ask(port, "shop.example", tls=anybody())).headers


async def test_a_host_that_is_passed_on_by_tcp_gets_no_answer_from_us_and_others_do(
    tmp_path: Path, installation: Installation
) -> None:
    async with edge(tmp_path, installation, ssl_passthrough=True) as world:
        passed = ingress("db", rule("db.example", "/", "web:80"), annotations={PREFIX + "ssl-passthrough": "true"})
        await world.put(SHOP, passed, service("web"), *await world.serve("web"))
        assert (await http3.ask(world.settings.https_port, "shop.example"))[0].by == "web"
        with pytest.raises(ConnectionError):
            await http3.ask(world.settings.https_port, "db.example")


async def test_where_nginx_has_none_nothing_is_said_of_it(tmp_path: Path) -> None:
    async with edge(tmp_path) as world:
        if world.configuration.has_http3:
            pytest.skip("this machine's nginx has it")
        await world.put(SHOP, service("web"), *await world.serve("web"))
        told = await ask(world.settings.https_port, "shop.example", tls=anybody())
        assert (told.status, "alt-svc" in told.headers) == (200, False)
