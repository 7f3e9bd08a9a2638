"""Clients that must show a certificate, on a real nginx: who gets in, what backends hear of it, and that no other way leads around it."""

import asyncio
import base64
import socket
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from common.contracts.edge import Explanation, Request
from common.testing.authority import Authority, Issued
from common.testing.debian import Installation
from common.testing.objects import ingress, rule, service, tls_secret
from nginx_config_renderer import keypairs
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.questions import Questions
from tests.edge.world import SOON, Answer, EdgeWorld, Raw, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = True
OURS, STAFF, STRANGERS = Authority(), Authority(), Authority()
ALICE, MALLORY = STAFF.issue("alice"), STRANGERS.issue("mallory")
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(installation: Installation) -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, installation) as world:
            await world.put(service("web"), *await world.serve("web"))
            await learn(world, "staff", {"ca.crt": STAFF.certificate})
            await learn(world, "strangers", {"ca.crt": STRANGERS.certificate})
            yield world


async def learn(world: EdgeWorld, name: str, data: Mapping[str, bytes]) -> None:
    """The Secret is there, and was read."""
    secret = tls_secret(name, OURS.issue("unused"))
    secret["data"] = {key: base64.b64encode(value).decode() for key, value in data.items()}
    await world.put(secret)
    pair = keypairs.read("default", name, data)
    world.applier.want(world.wanted.learn(pair).entries)
    await world.settle()


async def guard(world: EdgeWorld, host: str, authorities: str = "staff", **annotations: str) -> None:
    """A host whose clients must show a certificate."""
    asked = {"auth-tls-secret": f"default/{authorities}"} | {name.replace("_", "-"): value for name, value in annotations.items()}
    await serve(world, host, {PREFIX + name: value for name, value in asked.items()})


async def serve(world: EdgeWorld, host: str, annotations: Mapping[str, str] | None = None) -> None:
    name = host.replace("*", "any").replace(".", "-")
    made: Raw = ingress(name, rule(host, "/", "web:80"), annotations=dict(annotations or {}))
    made["spec"]["tls"] = [{"hosts": [host], "secretName": name}]
    await world.put(made)
    await learn(world, name, OURS.issue(host).data)


def client(tmp_path: Path, shows: Issued | None = None, version: ssl.TLSVersion = V13) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if shows is not None:
        file = tmp_path / "client.pem"
        file.write_bytes(shows.certificate + shows.key)
        context.load_cert_chain(file)
    return context


def talk(
    world: EdgeWorld, context: ssl.SSLContext, sni: str, host: str, session: ssl.SSLSession | None = None
) -> tuple[Answer, bool, ssl.SSLSession | None]:
    """A request for `host` on a connection that was opened for `sni`: the answer, whether a session was resumed, and the one to resume."""
    with (
        socket.create_connection(("127.0.0.1", world.settings.https_port), timeout=SOON) as plain,
        context.wrap_socket(plain, server_hostname=sni, session=session) as opened,
    ):
        opened.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nssl-client-verify: SUCCESS\r\n\r\n".encode())
        whole = b""
        while part := opened.recv(65536):
            whole += part
        head, _, body = whole.decode().partition("\r\n\r\n")
        return Answer(int(head.split()[1]), {}, body), bool(opened.session_reused), opened.session


async def get(world: EdgeWorld, context: ssl.SSLContext, host: str, sni: str = "") -> Answer:
    return (await asyncio.to_thread(talk, world, context, sni or host, host))[0]


@pytest.mark.parametrize("version", [V12, V13])
async def test_who_shows_a_certificate_of_the_authority_gets_in_and_nobody_else(
    world: EdgeWorld, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    await guard(world, "on.example")
    for shows, status in ((ALICE, 200), (MALLORY, 400), (None, 400)):
        assert (await get(world, client(tmp_path, shows, version), "on.example")).status == status


@pytest.mark.parametrize(
    ("verify", "statuses"),
    [("on", (200, 400, 400)), ("optional", (200, 400, 200)), ("optional_no_ca", (200, 200, 200)), ("off", (200, 200, 200))],
)
async def test_how_strict_it_is_says_the_annotation(
    world: EdgeWorld, tmp_path: Path, verify: str, statuses: tuple[int, ...]
) -> None:
    host = f"{verify.replace('_', '-')}.verify.example"
    await guard(world, host, auth_tls_verify_client=verify)
    found = [(await get(world, client(tmp_path, shows), host)).status for shows in (ALICE, MALLORY, None)]
    assert tuple(found) == statuses


async def test_backends_hear_who_it_is_and_never_what_a_client_says_of_itself(world: EdgeWorld, tmp_path: Path) -> None:
    await guard(world, "told.example", auth_tls_verify_client="optional")
    await guard(world, "shown.example", auth_tls_pass_certificate_to_upstream="true")
    await serve(world, "open.example")
    told = (await get(world, client(tmp_path, ALICE), "told.example")).seen["headers"]
    assert (told["ssl-client-verify"], told["ssl-client-subject-dn"]) == ("success", "cn=alice")
    assert (told["ssl-client-issuer-dn"], "ssl-client-cert" in told) == ("cn=an authority of a test", False)
    assert (await get(world, client(tmp_path), "told.example")).seen["headers"]["ssl-client-verify"] == "none"
    shown = (await get(world, client(tmp_path, ALICE), "shown.example")).seen["headers"]["ssl-client-cert"]
    assert urllib.parse.unquote(shown) == ALICE.certificate.decode().split("-----END")[0].lower() + "-----end certificate-----\n"
    assert "ssl-client-verify" not in (await get(world, client(tmp_path), "open.example")).seen["headers"]


async def test_a_request_for_another_host_than_the_handshake_was_for_is_misdirected(world: EdgeWorld, tmp_path: Path) -> None:
    await guard(world, "guarded.example")
    await guard(world, "other.example", "strangers")
    await serve(world, "free.example")
    alice, mallory = client(tmp_path, ALICE), client(tmp_path, MALLORY)
    assert (await get(world, alice, "guarded.example", sni="free.example")).status == 421
    assert (await get(world, mallory, "guarded.example", sni="other.example")).status == 421
    assert (await get(world, alice, "guarded.example", sni="nobody.example")).status == 421
    assert (await get(world, alice, "free.example", sni="guarded.example")).status == 200, "that host asks for none"


async def test_hosts_under_one_wildcard_are_one(world: EdgeWorld, tmp_path: Path) -> None:
    await guard(world, "*.wild.example")
    assert (await get(world, client(tmp_path, ALICE), "a.wild.example", sni="b.wild.example")).status == 200
    assert (await get(world, client(tmp_path), "a.wild.example")).status == 400


@pytest.mark.parametrize("version", [V12, V13])
async def test_no_session_of_such_a_client_is_resumed_and_none_leads_in(
    world: EdgeWorld, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    await guard(world, "kept.example")
    await serve(world, "public.example")
    alice = client(tmp_path, ALICE, version)
    _, _, session = await asyncio.to_thread(talk, world, alice, "kept.example", "kept.example")
    answer, resumed, _ = await asyncio.to_thread(talk, world, alice, "kept.example", "kept.example", session)
    assert (answer.status, resumed) == (200, False)
    anybody = client(tmp_path, None, version)
    _, _, public = await asyncio.to_thread(talk, world, anybody, "public.example", "public.example")
    answer, _, _ = await asyncio.to_thread(talk, world, anybody, "kept.example", "kept.example", public)
    assert answer.status in {400, 421}


async def test_by_http_nobody_gets_in(world: EdgeWorld) -> None:
    await guard(world, "plain.example", ssl_redirect="false")
    answer = await world.ask("plain.example")
    assert (answer.status, answer.headers["location"]) == (308, "https://plain.example/")


@pytest.mark.parametrize(
    ("secret", "data", "sentence"),
    [
        ("default/missing", None, "Secret default/missing does not exist; create it, with the key ca.crt"),
        ("default/empty", {"other": b"x"}, "Secret default/empty: has no ca.crt; put the authorities there, as PEM"),
        ("default/bad", {"ca.crt": b"x"}, "Secret default/bad: ca.crt holds no PEM certificate"),
        ("default/crl", {"ca.crt": STAFF.certificate, "ca.crl": b"x"}, "who was revoked is not looked up here"),
        ("kube-system/staff", None, "auth-tls-secret names no Secret of its namespace"),
        ("../staff", None, "auth-tls-secret names no Secret of its namespace"),
    ],
)
async def test_without_authorities_nobody_gets_in_and_it_is_told_why(
    world: EdgeWorld, tmp_path: Path, secret: str, data: Mapping[str, bytes] | None, sentence: str
) -> None:
    host = f"{secret.replace('/', '-').replace('.', '')}.denied.example".strip("-")
    if data is not None:
        await learn(world, secret.partition("/")[2], data)
    await guard(world, host, auth_tls_secret=secret)
    assert (await get(world, client(tmp_path, ALICE), host)).status == 403
    told = [one.message for one in world.wanted.problems if one.reason == "BadClientAuth" and f" {host} " in one.message]
    assert len(told) == 1
    assert sentence in told[0]
    assert f"Until then requests for {host} are refused (403)" in told[0]


async def test_other_authorities_count_at_once_without_a_reload(world: EdgeWorld, tmp_path: Path) -> None:
    await learn(world, "changing", {"ca.crt": STAFF.certificate})
    await guard(world, "changing.example", "changing")
    before = await world.admin.status()
    alice, mallory = client(tmp_path, ALICE), client(tmp_path, MALLORY)
    assert [(await get(world, one, "changing.example")).status for one in (alice, mallory)] == [200, 400]
    await learn(world, "changing", {"ca.crt": STRANGERS.certificate})
    assert [(await get(world, one, "changing.example")).status for one in (alice, mallory)] == [400, 200]
    assert (await world.admin.status()).fingerprint == before.fingerprint


async def test_an_operator_is_told_what_clients_must_show_as_the_edge_holds_them_to_it(world: EdgeWorld, tmp_path: Path) -> None:
    """Each answer is held against a request that is really made, by a client with the right certificate."""
    await guard(world, "asked.example", auth_tls_pass_certificate_to_upstream="true", auth_tls_verify_depth="3")
    await guard(world, "closed.example", "nowhere")
    await serve(world, "open.example")
    questions, alice = Questions(world.wanted, world.applier, world.settings.inquiry_socket, "edge-1"), client(tmp_path, ALICE)

    async def told(host: str, scheme: Literal["http", "https"] = "https", sni: str = "") -> dict[str, Any]:
        asked = Request(host=host, scheme=scheme, sni=sni)
        return Explanation.model_validate_json(await questions.explain(asked.model_dump_json().encode())).seen

    for host, sni in (
        ("asked.example", ""),
        ("closed.example", ""),
        ("open.example", ""),
        ("asked.example", "open.example"),
        ("open.example", "asked.example"),
    ):
        real, seen = await get(world, alice, host, sni), await told(host, sni=sni)
        assert (seen["goes"], seen.get("location", "@200")) == (real.status == 200, f"@{real.status}"), (host, sni)
    assert (await told("asked.example"))["clients"] == {"verify": "on", "depth": 3, "shown": True}
    assert "clients" not in await told("open.example")
    plain = await told("asked.example", "http")
    assert (plain["goes"], plain["location"], plain["clients"]["verify"]) == (False, "@308", "on")


async def test_a_host_without_a_certificate_of_its_own_can_ask_for_one(world: EdgeWorld, tmp_path: Path) -> None:
    asked = {PREFIX + "auth-tls-secret": "staff"}
    await world.put(ingress("bare", rule("bare.example", "/", "web:80"), annotations=asked))
    assert (await get(world, client(tmp_path, ALICE), "bare.example")).status == 200
    assert (await get(world, client(tmp_path), "bare.example")).status == 400
