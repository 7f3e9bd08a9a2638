"""Which certificate a client is shown, on a real nginx: by its host, at once when it changes, and after every death."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509

from common.testing import wait_until
from common.testing.authority import Authority, Issued
from common.testing.debian import Installation
from common.testing.objects import ingress, rule, service, tls_secret
from nginx_config_renderer import keypairs
from nginx_config_renderer.plan import CERTIFICATES, PAIRS
from tests.conftest import needs
from tests.edge.world import SOON, EdgeWorld, Raw, ask, edge

BOTH = True
AUTHORITY = Authority()
DEFAULT = "Seaway default certificate"


@pytest.fixture
def vault() -> Any:
    with TemporaryDirectory(prefix="seaway-test-vault-", dir="/dev/shm") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture
async def world(tmp_path: Path, vault: Path, installation: Installation) -> AsyncIterator[EdgeWorld]:
    async with edge(tmp_path, installation, vault=vault) as world:
        await world.put(service("web"), *await world.serve("web"))
        yield world


async def learn(world: EdgeWorld, name: str, issued: Issued) -> None:
    """The Secret is there, and was read."""
    await world.put(tls_secret(name, issued))
    pair = keypairs.at(keypairs.read("default", name, issued.data), time.time())
    world.applier.want(world.wanted.learn(pair).entries)
    await world.settle()


def tls(made: Raw, secret: str, *hosts: str) -> Raw:
    made["spec"].setdefault("tls", []).append({"secretName": secret} | ({"hosts": list(hosts)} if hosts else {}))
    return made


async def shown(world: EdgeWorld, host: str, *, ciphers: str = "") -> x509.Certificate:
    """The certificate that a client is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    async with asyncio.timeout(SOON):
        _, writer = await asyncio.open_connection("127.0.0.1", world.settings.https_port, ssl=context, server_hostname=host)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


async def name_of(world: EdgeWorld, host: str) -> str:
    return str((await shown(world, host)).subject.rdns[0].rfc4514_string().removeprefix("CN="))


async def test_a_host_is_served_with_its_certificate_and_clients_trust_it(world: EdgeWorld, tmp_path: Path) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    assert await name_of(world, "shop.example") == DEFAULT
    await learn(world, "cert", AUTHORITY.issue("shop.example"))
    context = ssl.create_default_context(cafile=str(AUTHORITY.write(tmp_path / "ca.crt")))
    answer = await ask(world.settings.https_port, "shop.example", tls=context)
    assert answer.by == "web"
    assert (answer.seen["headers"]["x-forwarded-proto"], answer.seen["headers"]["x-forwarded-port"]) == ("https", "443")


async def test_the_exact_host_goes_before_the_wildcard_and_that_before_the_default(world: EdgeWorld) -> None:
    await world.put(tls(ingress("wild", rule("*.shop.example", "/", "web:80")), "wild", "*.shop.example"))
    await world.put(tls(ingress("exact", rule("www.shop.example", "/", "web:80")), "exact", "WWW.shop.example"))
    await learn(world, "wild", AUTHORITY.issue("*.shop.example"))
    await learn(world, "exact", AUTHORITY.issue("www.shop.example"))
    for host, name in {
        "www.shop.example": "www.shop.example",
        "a.shop.example": "*.shop.example",
        "A.Shop.Example": "*.shop.example",
        "a.b.shop.example": DEFAULT,
        "shop.example": DEFAULT,
        "other.example": DEFAULT,
    }.items():
        assert await name_of(world, host) == name, host


async def test_a_renewed_certificate_is_shown_at_once_without_a_reload(world: EdgeWorld) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    status = await world.admin.status()
    for _ in range(5):
        issued = AUTHORITY.issue("shop.example")
        await learn(world, "cert", issued)
        serial = x509.load_pem_x509_certificate(issued.certificate).serial_number
        assert {(await shown(world, "shop.example")).serial_number for _ in range(4)} == {serial}
    after = await world.admin.status()
    assert (after.instance, after.fingerprint) == (status.instance, status.fingerprint)


async def test_a_host_may_have_an_rsa_and_an_ecdsa_certificate_and_the_client_chooses(world: EdgeWorld) -> None:
    both = tls(tls(ingress("shop", rule("shop.example", "/", "web:80")), "rsa", "shop.example"), "ecdsa", "shop.example")
    await world.put(both)
    rsa, ecdsa = AUTHORITY.issue("shop.example", algorithm="RSA"), AUTHORITY.issue("shop.example")
    await learn(world, "rsa", rsa)
    await learn(world, "ecdsa", ecdsa)
    for ciphers, issued in (("ECDHE+aRSA", rsa), ("ECDHE+aECDSA", ecdsa)):
        serial = x509.load_pem_x509_certificate(issued.certificate).serial_number
        assert (await shown(world, "shop.example", ciphers=ciphers)).serial_number == serial


@pytest.mark.parametrize(
    ("issued", "reason", "sentence"),
    [
        (AUTHORITY.issue("shop.example", begins=2, days=-1), "BadCertificate", "Secret default/cert: tls.crt expired on"),
        (
            AUTHORITY.issue("other.example"),
            "CertificateNotCovering",
            "its certificate is for other.example and not for shop.example",
        ),
        (None, "SecretNotFound", "Secret default/cert does not exist; create it, of type kubernetes.io/tls"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told_and_the_default_certificate_is_shown(
    world: EdgeWorld, issued: Issued | None, reason: str, sentence: str
) -> None:
    await learn(world, "good", AUTHORITY.issue("good.example"))
    await world.put(tls(ingress("good", rule("good.example", "/", "web:80")), "good", "good.example"))
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    if issued is not None:
        await learn(world, "cert", issued)
    assert await name_of(world, "shop.example") == DEFAULT
    (problem,) = (one for one in world.wanted.problems if one.ref.name == "shop")
    assert (problem.reason, sentence in problem.message) == (reason, True)
    assert "shop.example is served with the default certificate" in problem.message
    assert await name_of(world, "good.example") == "good.example", "and nobody else is touched"
    await learn(world, "cert", AUTHORITY.issue("shop.example"))
    assert await name_of(world, "shop.example") == "shop.example"
    assert world.wanted.problems == ()


async def test_a_certificate_that_a_clock_which_is_behind_takes_for_a_later_one_is_shown_and_told(world: EdgeWorld) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    await learn(world, "cert", AUTHORITY.issue("shop.example", begins=-1))
    assert await name_of(world, "shop.example") == "shop.example"
    (problem,) = world.wanted.problems
    assert (problem.ref.name, problem.reason) == ("shop", "CertificateEarly")
    assert problem.message.startswith("Secret default/cert: tls.crt is not valid before ")
    assert problem.message.endswith("; use one that is, or set the clock. Until then clients refuse it")


async def test_hosts_without_a_certificate_are_served_with_the_operators_default(
    tmp_path: Path, installation: Installation
) -> None:
    async with edge(tmp_path, installation, default_ssl_certificate="default/wide") as world:
        await world.put(service("web"), *await world.serve("web"))
        await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
        assert await name_of(world, "other.example") == DEFAULT
        (problem,) = (one for one in world.wanted.problems if one.ref.name == "wide")
        assert "which --default-ssl-certificate names, does not exist; create it" in problem.message
        await learn(world, "wide", AUTHORITY.issue("*.example"))
        assert [await name_of(world, host) for host in ("other.example", "shop.example")] == ["*.example", "*.example"]
        await learn(world, "cert", AUTHORITY.issue("shop.example"))
        assert await name_of(world, "shop.example") == "shop.example"
        await learn(world, "wide", AUTHORITY.issue("*.new.example"))
        assert await name_of(world, "other.example") == "*.new.example", "at once, without a reload"
        assert {problem.reason for problem in world.wanted.problems} == set()
        world.applier.want(world.wanted.learn(keypairs.absent("default", "wide", "is bad")).entries)
        await world.settle()
        assert await name_of(world, "other.example") == DEFAULT


async def test_who_asks_a_host_with_a_certificate_by_http_is_sent_to_https(world: EdgeWorld) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    answer = await world.ask("shop.example", "/a?b=1")
    assert (answer.status, answer.headers["location"]) == (308, "https://shop.example/a?b=1")
    await world.put(ingress("plain", rule("plain.example", "/", "web:80")))
    assert (await world.ask("plain.example")).by == "web"


def client(*versions: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that trusts anybody and speaks these versions of TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if versions:
        context.minimum_version, context.maximum_version = versions
    return context


def connect(world: EdgeWorld, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession | None]:
    """One request on a connection of its own: whether the session was resumed, and the one to resume."""
    with (
        socket.create_connection(("127.0.0.1", world.settings.https_port), timeout=SOON) as plain,
        context.wrap_socket(plain, server_hostname="shop.example", session=session) as opened,
    ):
        opened.sendall(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
        while opened.recv(65536):
            pass
        return bool(opened.session_reused), opened.session


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_session_is_resumed_whichever_worker_the_client_comes_to(world: EdgeWorld, version: ssl.TLSVersion) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    await learn(world, "cert", AUTHORITY.issue("shop.example"))
    context = client(version, version)
    _, session = await asyncio.to_thread(connect, world, context)
    assert session is not None
    assert not session.has_ticket or version == V13, "in TLS 1.3 a ticket names the session, which is in the cache"
    for _ in range(20):  # there are two workers, and the kernel chooses one for each connection
        resumed, newer = await asyncio.to_thread(connect, world, context, session)
        assert resumed
        session = newer if version == V13 else session


async def test_tickets_are_off_unless_asked_for_and_then_their_keys_change_by_themselves(
    world: EdgeWorld, installation: Installation
) -> None:
    context = client(V12, V12)
    _, session = await asyncio.to_thread(connect, world, context)
    assert session is not None
    assert not session.has_ticket
    await world.configure({"ssl-session-tickets": "true", "ssl-session-timeout": "5"})
    if not installation.root:
        assert any("nginx 1.22.1 does not change the keys of tickets" in one.message for one in world.refused)
        return
    assert world.refused == ()
    _, session = await asyncio.to_thread(connect, world, client(V12, V12))
    assert session is not None
    assert session.has_ticket
    keys: set[bytes] = set()

    async def changed() -> bool:
        keys.add(await asyncio.to_thread(_name_of_ticket_key, world))
        return len(keys) > 1

    await wait_until(changed, within=SOON, every=0.5)


def _name_of_ticket_key(world: EdgeWorld) -> bytes:
    """The first sixteen bytes of a ticket (RFC 5077 §4), as openssl shows them."""
    where = f"127.0.0.1:{world.settings.https_port}"
    command = ["openssl", "s_client", "-connect", where, "-servername", "shop.example", "-tls1_2"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=SOON, check=False)
    line = next(one for one in done.stdout.splitlines() if b"0000 - " in one)
    return line.partition(b"0000 - ")[2][:47]


@pytest.mark.parametrize(
    ("data", "offered", "agreed"),
    [
        ({}, (V12, V13), "TLSv1.3"),
        ({"ssl-protocols": "TLSv1.2"}, (V12, V13), "TLSv1.2"),
        ({"ssl-protocols": "TLSv1.3"}, (V12, V12), ""),
        ({"ssl-ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305"}, (V12, V12), "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
)
async def test_versions_and_ciphers_are_those_of_the_configmap(
    world: EdgeWorld, data: dict[str, str], offered: tuple[ssl.TLSVersion, ssl.TLSVersion], agreed: str
) -> None:
    if data:
        await world.configure(data)

    async def spoken() -> str:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", world.settings.https_port, ssl=client(*offered))
        except ssl.SSLError:
            return ""
        found = writer.get_extra_info("ssl_object")
        writer.close()
        return str(found.cipher()[0] if "ssl-ciphers" in data else found.version())

    assert await spoken() == agreed


async def test_what_browsers_are_told_of_https_is_in_the_configmap(world: EdgeWorld) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    name, told = "strict-transport-security", []
    for data in ({}, {"hsts-max-age": "60", "hsts-include-subdomains": "false", "hsts-preload": "true"}, {"hsts": "false"}):
        await world.configure(data)
        told.append((await ask(world.settings.https_port, "shop.example", tls=client())).headers.get(name))
    assert told == ["max-age=31536000; includeSubDomains", "max-age=60; preload", None]


@needs("curl")
async def test_clients_are_offered_http_2_and_served_by_it(world: EdgeWorld, tmp_path: Path) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    await learn(world, "cert", AUTHORITY.issue("shop.example"))
    port = world.settings.https_port
    ask_by = [
        "--http2",
        "--silent",
        "--cacert",
        str(AUTHORITY.write(tmp_path / "ca.crt")),
        "--resolve",
        f"shop.example:{port}:127.0.0.1",
    ]
    told = ["--write-out", "\n%{http_version}", f"https://shop.example:{port}/a"]
    process = await asyncio.create_subprocess_exec("curl", *ask_by, *told, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(SOON):
        output, _ = await process.communicate()
    body, _, version = output.decode().rpartition("\n")
    assert (version, json.loads(body)["target"], json.loads(body)["name"]) == ("2", "/a", "web")


async def test_a_killed_nginx_comes_back_with_its_certificates_although_the_renderer_is_away(world: EdgeWorld, vault: Path) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    await learn(world, "cert", AUTHORITY.issue("shop.example"))
    world.applier.hold()
    await _killed_and_back(world)
    assert await name_of(world, "shop.example") == "shop.example"
    kept = vault / "keys"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_uid == (world.settings.state / "run").stat().st_uid


async def test_a_renderer_that_has_not_read_its_secrets_yet_leaves_nginx_its_certificates(world: EdgeWorld) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    issued = AUTHORITY.issue("shop.example")
    await learn(world, "cert", issued)
    kept = (world.settings.key_journal or Path()).read_bytes()
    await _forget_what_was_read(world)
    world.applier.hold()
    world.applier.release()
    await wait_until(lambda: world.applier.settled, within=SOON)
    assert await name_of(world, "shop.example") == "shop.example"
    assert kept in (world.settings.key_journal or Path()).read_bytes(), "and keeps them for an nginx that is killed now"
    bad = keypairs.absent("default", "cert", "is bad")
    world.applier.want(world.wanted.learn(bad).entries)
    await world.settle()
    assert await name_of(world, "shop.example") == DEFAULT, "what is known to be bad is taken away"
    assert not {entry for entry in await world.holds() if entry[0] in {CERTIFICATES, PAIRS}}


async def test_an_nginx_that_is_killed_after_its_renderer_started_again_has_its_certificates(world: EdgeWorld) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    issued = AUTHORITY.issue("shop.example")
    await learn(world, "cert", issued)
    await _forget_what_was_read(world)
    world.applier.hold()
    world.applier.release()
    await wait_until(lambda: world.applier.settled, within=SOON)
    for _ in range(2):  # before it has read its Secrets, and after that
        world.applier.hold()
        await _killed_and_back(world)
        assert await name_of(world, "shop.example") == "shop.example"
        world.applier.release()
        await learn(world, "cert", issued)


async def test_no_key_stands_anywhere_but_in_memory(world: EdgeWorld, vault: Path) -> None:
    await world.put(tls(ingress("shop", rule("shop.example", "/", "web:80")), "cert", "shop.example"))
    issued = AUTHORITY.issue("shop.example")
    await learn(world, "cert", issued)
    line = issued.key.splitlines()[1]
    assert line in (vault / "keys").read_bytes()
    for path in world.settings.state.rglob("*"):
        assert not path.is_file() or line not in path.read_bytes(), path
    assert not any(line.decode() in word for word in world.nginx.words)


async def _killed_and_back(world: EdgeWorld) -> None:
    starts = world.nginx.starts
    os.kill(world.nginx.pid or 0, signal.SIGKILL)

    async def back() -> bool:
        return world.nginx.starts > starts and (await world.ask("shop.example")).status != 0

    await wait_until(back, within=SOON)


async def _forget_what_was_read(world: EdgeWorld) -> None:
    """As a renderer is that has just started: it knows the objects, and none of the keys."""
    pair = world.wanted._store.all(keypairs.KeyPair)[0]
    world.wanted._take((world.wanted._store.delete(pair.ref),))  # type: ignore[arg-type]  # it is there
