"""What nginx carries without opening it: TLS by the name that the client says, and the operator's TCP and UDP ports."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import REGISTRY

from common.testing import wait_until
from common.testing.authority import Authority
from common.testing.debian import Installation
from common.testing.objects import config_map, endpoint_slice, ingress, rule, service
from common.testing.ports import free_port
from nginx_config_renderer.admin import AdminError
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.configure import Configurator
from nginx_config_renderer.trial import BadConfigurationError
from tests.edge.world import SOON, EdgeWorld, Raw, ask, edge

BOTH = True
AUTHORITY = Authority()
PASSED = {PREFIX + "ssl-passthrough": "true"}
PROXY_TCP = b"PROXY TCP4 127.0.0.1 127.0.0.1 "

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@pytest.fixture
async def world(tmp_path: Path, installation: Installation) -> AsyncIterator[EdgeWorld]:
    ports: dict[str, Any] = {"tcp_services_configmap": "edge/tcp", "udp_services_configmap": "edge/udp"}
    async with edge(tmp_path, installation, ssl_passthrough=True, **ports) as world:
        yield world


def reloads(cause: str = "ports") -> float:
    return REGISTRY.get_sample_value("seaway_edge_reloads_total", {"cause": cause}) or 0


def reasons(world: EdgeWorld) -> list[str]:
    return [problem.message for problem in world.wanted.problems]


async def opened(world: EdgeWorld, tcp: Mapping[str, str] | None = None, udp: Mapping[str, str] | None = None) -> None:
    """The ConfigMaps say so, and nginx has what can be had of it."""
    await world.put(config_map("tcp", tcp or {}, "edge"), config_map("udp", udp or {}, "edge"))
    await world.listen()


@asynccontextmanager
async def echo(name: str) -> AsyncIterator[int]:
    """A TCP server that says its name, and then what it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            writer.write(name.encode() + b"\n")
            while data := await reader.read(4096):
                writer.write(data)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(SOON):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def greeting(port: int, host: str = "127.0.0.1", first: bytes = b"") -> str:
    """Who answers at a port; nothing if the connection is closed."""
    try:
        async with connected(port, host) as (reader, writer):
            writer.write(first)
            return (await reader.readline()).decode().strip()
    except OSError:
        return ""


async def test_a_port_leads_to_its_service_and_a_changed_endpoint_is_no_reload(world: EdgeWorld) -> None:
    port = free_port()
    async with echo("one") as one, echo("two") as two:
        await world.put(service("db", 5432), endpoint_slice("db", "127.0.0.1", port=one))
        before = reloads()
        await opened(world, {str(port): "default/db:5432"})
        assert reloads() == before + 1
        assert await greeting(port) == "one"
        if world.settings.ipv6:
            assert await greeting(port, "::1") == "one"
        async with connected(port) as (reader, writer):
            assert await reader.readline() == b"one\n"
            await world.put(endpoint_slice("db", "127.0.0.1", port=two))
            assert [await greeting(port) for _ in range(5)] == ["two"] * 5
            writer.write(b"still there\n")
            assert await reader.readline() == b"still there\n"
        await world.remove(endpoint_slice("db"))
        assert await greeting(port) == ""
        await world.put(endpoint_slice("db", "127.0.0.1", port=two))
        assert await greeting(port) == "two"
        assert reloads() == before + 1


async def test_a_port_that_is_asked_for_no_more_is_closed(world: EdgeWorld) -> None:
    kept, gone = free_port(), free_port()
    async with echo("db") as db:
        await world.put(service("db", "sql:5432"), endpoint_slice("db", "127.0.0.1", port=db, port_name="sql"))
        await opened(world, {str(kept): "default/db:sql", str(gone): "default/db:sql"})
        assert [await greeting(kept), await greeting(gone)] == ["db", "db"]
        await opened(world, {str(kept): "default/db:sql"})
        await wait_until(lambda: refuses(gone), within=SOON)
        assert await greeting(kept) == "db"


async def refuses(port: int) -> bool:
    try:
        async with connected(port):
            return False
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize(
    ("words", "sent", "seen"),
    [
        ("", b"", b"hello\n"),
        ("::PROXY", b"", PROXY_TCP),
        (":PROXY", b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n", b"hello\n"),
        (":PROXY:PROXY", b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n", b"PROXY TCP4 192.0.2.7 "),
    ],
)
async def test_the_proxy_protocol_is_spoken_as_the_entry_says(world: EdgeWorld, words: str, sent: bytes, seen: bytes) -> None:
    port = free_port()
    async with echo("db") as db:
        await world.put(service("db", 5432), endpoint_slice("db", "127.0.0.1", port=db))
        await opened(world, {str(port): f"default/db:5432{words}"})
        async with connected(port) as (reader, writer):
            writer.write(sent + b"hello\n")
            assert await reader.readline() == b"db\n"
            assert (await reader.readline()).startswith(seen)


async def test_an_endpoint_that_cannot_be_reached_rests_while_another_is_left(world: EdgeWorld) -> None:
    port, dead = free_port(), free_port()
    async with echo("alive") as alive:
        bad, good = endpoint_slice("db", "127.0.0.1", port=dead, suffix="bad"), endpoint_slice("db", "127.0.0.1", port=alive)
        await world.put(service("db", 5432), bad, good)
        await opened(world, {str(port): "default/db:5432"})
        answers = [await greeting(port) for _ in range(60)]
        assert answers.count("") == 1
        await world.remove(good)
        async with echo_at(dead, "back"):
            assert await greeting(port) == "back"


@asynccontextmanager
async def echo_at(port: int, name: str) -> AsyncIterator[None]:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode() + b"\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield


def udp_port(family: int = socket.AF_INET, address: str = "127.0.0.1") -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class Answers(asyncio.DatagramProtocol):
    """A UDP server that answers with its name and the question."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._name + b":" + data, addr)


@asynccontextmanager
async def udp(name: str) -> AsyncIterator[int]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Answers(name), ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def asked(port: int, *questions: bytes, address: str = "127.0.0.1") -> set[bytes]:
    """The answers to datagrams that are sent from one socket without waiting, as a resolver asks for A and AAAA."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0)
        client.connect((address, port))
        for question in questions:
            client.send(question)
        answers: set[bytes] = set()
        async with asyncio.timeout(SOON):
            while len(answers) < len(questions):
                answers.add(await loop.sock_recv(client, 2048))
    return answers


async def test_udp_goes_to_its_service_and_no_datagram_is_lost_at_the_start_of_a_session(world: EdgeWorld) -> None:
    port = udp_port()
    async with udp("one") as one, udp("two") as two:
        await world.put(service("dns", "dns:53/UDP", "dns-tcp:53"))
        await world.put(endpoint_slice("dns", "127.0.0.1", port=one, port_name="dns", protocol="UDP"))
        before = reloads()
        await opened(world, udp={str(port): "default/dns:53"})
        for _ in range(50):
            assert await asked(port, b"A", b"AAAA") == {b"one:A", b"one:AAAA"}
        if world.settings.ipv6:
            assert await asked(port, b"A", address="::1") == {b"one:A"}
        await world.put(endpoint_slice("dns", "127.0.0.1", port=two, port_name="dns", protocol="UDP"))
        assert await asked(port, b"A") == {b"two:A"}
        assert reloads() == before + 1


async def test_one_port_number_is_two_ports_of_tcp_and_udp(world: EdgeWorld) -> None:
    port = udp_port()
    async with udp("datagrams") as datagrams, echo("bytes") as stream:
        await world.put(service("dns", "dns:53/UDP", "dns-tcp:53"))
        await world.put(endpoint_slice("dns", "127.0.0.1", port=datagrams, port_name="dns", protocol="UDP", suffix="u"))
        await world.put(endpoint_slice("dns", "127.0.0.1", port=stream, port_name="dns-tcp", suffix="t"))
        await opened(world, {str(port): "default/dns:53"}, {str(port): "default/dns:53"})
        assert await asked(port, b"A") == {b"datagrams:A"}
        assert await greeting(port) == "bytes"


async def test_bad_entries_are_told_with_their_mend_and_the_others_served(world: EdgeWorld) -> None:
    port, missing = free_port(), free_port()
    tcp = {
        str(port): "default/db:5432",
        str(world.settings.http_port): "default/db:5432",
        "0": "default/db:5432",
        "70000": "default/db:5432",
        "ssh; }": "default/db:5432",
        "7001": "db:5432",
        "7002": "default/db:5432:SOCKS",
        "7003": "default/$(x):80",
        str(missing): "default/nobody:80",
    }
    async with echo("db") as db:
        await world.put(service("db", 5432), endpoint_slice("db", "127.0.0.1", port=db))
        await opened(world, tcp, {"7004": "default/db:5432:PROXY", str(udp_port()): "default/db:5432"})
        assert await greeting(port) == "db"
    told = " | ".join(reasons(world))
    for sentence in (
        f"key '{world.settings.http_port}': the edge has this port for itself; choose another one",
        "key '0': this is no port; write a number from 1 to 65535",
        "key '70000': this is no port",
        "key 'ssh; }': this is no port",
        "key '7001': 'db:5432' names no port of a Service; write namespace/service:port",
        "key '7002': 'default/db:5432:SOCKS' has a word that is not PROXY",
        "key '7003': 'default/$(x):80' names no port of a Service",
        "key '7004': the PROXY protocol is for TCP alone; write default/db:5432",
        f"key '{missing}': Service default/nobody does not exist; create it",
        "Service default/db has no UDP port 5432; it has 5432",
    ):
        assert sentence in told
    text = (world.settings.state / "nginx.conf").read_text()
    assert "ssh" not in text
    assert "default/" not in text


async def test_a_port_of_another_program_is_told_and_keeps_nothing_else_from_being_served(world: EdgeWorld) -> None:
    port = free_port()
    async with echo("db") as db, echo("stranger") as strange:
        await world.put(service("db", 5432), endpoint_slice("db", "127.0.0.1", port=db))
        await opened(world, {str(port): "default/db:5432", str(strange): "default/db:5432"})
        assert [await greeting(port), await greeting(strange)] == ["db", "stranger"]
        assert any(f"has TCP port {strange}; stop it, or choose another port" in reason for reason in reasons(world))
    await world.listen()
    assert not any("stop it" in reason for reason in reasons(world))


async def test_a_renderer_that_starts_without_the_bus_keeps_the_ports(world: EdgeWorld) -> None:
    port = free_port()
    await world.put(service("db", 5432))
    await opened(world, {str(port): "default/db:5432"})
    text = (world.settings.state / "nginx.conf").read_text()
    await Configurator(await world.another(), world.settings.options, world.settings.state / "options.json").begin()
    assert (world.settings.state / "nginx.conf").read_text() == text
    assert str(port) in text


async def test_an_nginx_that_starts_anew_while_its_renderer_is_away_serves_what_it_served(world: EdgeWorld) -> None:
    port = free_port()
    async with echo("db") as db, tls_backend("pass.example") as secure:
        await world.put(service("db", 5432), endpoint_slice("db", "127.0.0.1", port=db), *passing("pass.example", secure))
        await opened(world, {str(port): "default/db:5432"})
        world.applier.hold()
        world.files.hold()
        await killed(world)
        assert await greeting(port) == "db"
        assert await name_shown(world, "pass.example") == "pass.example"


async def killed(world: EdgeWorld) -> None:
    """Nginx was killed, and is there again."""
    before = (await world.admin.status()).instance
    assert world.nginx.pid is not None
    os.kill(world.nginx.pid, signal.SIGKILL)

    async def anew() -> bool:
        with contextlib.suppress(AdminError):
            return (await world.admin.status()).instance != before
        return False

    await wait_until(anew, within=SOON)


@pytest.fixture
def no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without nginx's stream modules."""
    monkeypatch.setattr("nginx_config_renderer.settings.STREAM_MODULES", ("no_such_module.so",))


@pytest.mark.usefixtures("no_modules")
async def test_nginx_without_its_stream_modules_is_told_what_to_install(tmp_path: Path) -> None:
    async with edge(tmp_path, tcp_services_configmap="edge/tcp") as world:
        await opened(world, {"7000": "default/db:80"})
        assert any("libnginx-mod-stream and libnginx-mod-stream-js" in reason for reason in reasons(world))


def serving(name: str) -> ssl.SSLContext:
    """What a server of that name needs."""
    issued = AUTHORITY.issue(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        pem = Path(directory) / "pair.pem"
        pem.write_bytes(issued.certificate + issued.key)
        context.load_cert_chain(pem)
    return context


@asynccontextmanager
async def tls_backend(name: str) -> AsyncIterator[int]:
    """A TLS server with a certificate of its own; it says its name."""
    context = serving(name)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            writer.write(name.encode() + b"\n")
            await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def passing(host: str, port: int, *, name: str = "pass", created: str = "", annotations: Mapping[str, str] = PASSED) -> list[Raw]:
    """An Ingress that passes a host on, and where to."""
    return [
        service(name, 443),
        endpoint_slice(name, "127.0.0.1", port=port),
        ingress(name, rule(host, "/", f"{name}:443"), annotations=annotations, created=created),
    ]


def trusting_nobody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def name_shown(world: EdgeWorld, host: str | None, version: ssl.TLSVersion | None = None) -> str:
    """The name in the certificate that a client is shown."""
    context = trusting_nobody()
    if version is not None:
        context.minimum_version = context.maximum_version = version
    async with asyncio.timeout(SOON):
        _, writer = await asyncio.open_connection("127.0.0.1", world.settings.https_port, ssl=context, server_hostname=host or "")
        shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()
    return str(shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


DEFAULT = "Seaway default certificate"


async def test_a_passed_host_shows_the_certificate_of_its_backend_and_others_ours(world: EdgeWorld) -> None:
    async with tls_backend("secret.example") as backend:
        await world.put(*passing("secret.example", backend), service("web"), *await world.serve("web"))
        await world.put(ingress("web", rule("web.example", "/", "web:80")))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert await name_shown(world, "secret.example", version) == "secret.example"
            assert await name_shown(world, "web.example", version) == DEFAULT
        assert await name_shown(world, "SECRET.example") == "secret.example"
        assert await name_shown(world, "127.0.0.1") == DEFAULT  # no name is said
        assert await name_shown(world, "xsecret.example") == DEFAULT
        answer = await ask(world.settings.https_port, "web.example", tls=trusting_nobody())
        assert (answer.by, answer.seen["headers"]["x-real-ip"]) == ("web", "127.0.0.1")
        assert answer.seen["headers"]["x-forwarded-proto"] == "https"
        assert (await world.ask("web.example")).by == "web"


async def test_a_new_passed_host_and_its_end_are_no_reload_and_running_connections_go_on(world: EdgeWorld) -> None:
    before = {cause: reloads(cause) for cause in ("ports", "configuration", "configmap")}
    async with tls_backend("a.example") as one, echo("raw") as raw:
        await world.put(*passing("a.example", one))
        assert await name_shown(world, "a.example") == "a.example"
        await world.put(endpoint_slice("pass", "127.0.0.1", port=raw))
        async with connected(world.settings.https_port) as (reader, writer):
            writer.write(client_hello("a.example"))
            assert await reader.readline() == b"raw\n"
            await world.remove(*passing("a.example", one))
            assert await name_shown(world, "a.example") == DEFAULT
            await reader.readexactly(len(client_hello("a.example")))
            writer.write(b"more\n")
            assert await reader.readline() == b"more\n"
    assert before == {cause: reloads(cause) for cause in before}


def client_hello(host: str) -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        trusting_nobody().wrap_bio(incoming, outgoing, server_hostname=host).do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same message in records of at most `size` bytes (RFC 8446 §5.1)."""
    message = hello[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in parts)


@pytest.mark.parametrize("cut", [1, 5, 43, 100])
async def test_a_first_word_in_pieces_is_understood(world: EdgeWorld, cut: int) -> None:
    async with echo("raw") as raw:
        await world.put(*passing("a.example", raw))
        async with connected(world.settings.https_port) as (reader, writer):
            hello = client_hello("a.example")
            own = writer.get_extra_info("socket")
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(hello), cut):
                writer.write(hello[at : at + cut])
                await writer.drain()
            assert await reader.readline() == b"raw\n"
            assert await reader.readexactly(len(hello)) == hello


async def test_a_first_word_in_several_records_is_understood(world: EdgeWorld) -> None:
    async with echo("raw") as raw:
        await world.put(*passing("a.example", raw))
        assert await greeting(world.settings.https_port, first=in_records(client_hello("a.example"), 60)) == "raw"


async def test_what_is_no_tls_is_answered_by_nginx_itself(world: EdgeWorld) -> None:
    answer = await greeting(world.settings.https_port, first=b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert answer == "HTTP/1.1 400 Bad Request"


async def test_a_wildcard_is_passed_on_but_for_hosts_that_are_ours(world: EdgeWorld) -> None:
    async with tls_backend("wild.example") as wild:
        await world.put(*passing("*.example", wild), service("web"), *await world.serve("web"))
        await world.put(ingress("web", rule("web.example", "/", "web:80")))
        assert [await name_shown(world, host) for host in ("a.example", "web.example", "a.b.example", "example")] == [
            "wild.example",
            DEFAULT,
            DEFAULT,
            DEFAULT,
        ]
        await world.remove(ingress("web", rule("web.example", "/", "web:80")))
        assert await name_shown(world, "web.example") == "wild.example"


async def test_nobody_takes_the_connections_of_an_older_ingress_away(world: EdgeWorld) -> None:
    async with tls_backend("thief.example") as thief:
        await world.put(ingress("web", rule("web.example", "/", "web:80"), created="2026-01-01T00:00:00Z"))
        await world.put(*passing("web.example", thief, created="2026-01-02T00:00:00Z"))
        assert await name_shown(world, "web.example") == DEFAULT
        assert any("web.example is already served by the older Ingress default/web" in reason for reason in reasons(world))


async def test_other_paths_of_a_passed_host_are_told_to_be_ignored(world: EdgeWorld) -> None:
    async with tls_backend("a.example") as backend:
        rules = [rule("a.example", "/shop", "shop:80"), rule("a.example", "/", "pass:443")]
        await world.put(*passing("a.example", backend), ingress("pass", *rules, annotations=PASSED))
        assert await name_shown(world, "a.example") == "a.example"
        assert any("a.example is passed through, so the path /shop is not looked at" in reason for reason in reasons(world))


async def test_an_edge_that_passes_nothing_on_says_so(own: EdgeWorld) -> None:
    async with tls_backend("a.example") as backend:
        await own.put(*passing("a.example", backend))
        assert await name_shown(own, "a.example") == DEFAULT
        assert any("start it with --ssl-passthrough" in problem.message for problem in own.wanted.problems)
        assert "stream {" not in (own.settings.state / "nginx.conf").read_text()


async def test_the_proxy_protocol_in_front_names_the_client_of_both(world: EdgeWorld) -> None:
    await world.put(service("web"), *await world.serve("web"), ingress("web", rule("web.example", "/", "web:80")))
    await world.configure({"use-proxy-protocol": "true"})
    said = b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n"
    async with echo("raw") as raw:
        await world.put(*passing("a.example", raw))
        assert await greeting(world.settings.https_port, first=said + client_hello("a.example")) == "raw"
    assert '"x-real-ip": "192.0.2.7"' in await asyncio.to_thread(https_behind, world.settings.https_port, said, "web.example")


def https_behind(port: int, said: bytes, host: str, headers: str = "") -> str:
    """An answer by HTTPS on a connection that begins with `said`."""
    with socket.create_connection(("127.0.0.1", port), timeout=SOON) as plain:
        plain.sendall(said)
        with trusting_nobody().wrap_socket(plain, server_hostname=host) as secure:
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n".encode())
            answer = b""
            while more := secure.recv(65536):
                answer += more
    return answer.decode()


@pytest.mark.parametrize(("trusted", "proto"), [("127.0.0.0/8", "http"), ("192.0.2.0/24", "https")])
async def test_forwarded_headers_are_believed_of_trusted_peers_behind_the_first_look_too(
    world: EdgeWorld, trusted: str, proto: str
) -> None:
    await world.put(service("web"), *await world.serve("web"), ingress("web", rule("web.example", "/", "web:80")))
    await world.configure({"use-forwarded-headers": "true", "proxy-real-ip-cidr": trusted})
    port, headers = world.settings.https_port, "X-Forwarded-Proto: http\r\n"
    assert f'"x-forwarded-proto": "{proto}"' in await asyncio.to_thread(https_behind, port, b"", "web.example", headers)


async def test_an_edge_that_cannot_know_the_client_over_https_by_a_header_says_so(world: EdgeWorld) -> None:
    await world.put(service("web"), *await world.serve("web"), ingress("web", rule("web.example", "/", "web:80")))
    await world.configure({"use-forwarded-headers": "true", "proxy-real-ip-cidr": "127.0.0.0/8"})
    told, header = "192.0.2.7", "X-Forwarded-For: 192.0.2.7\r\n"
    by_http = (await ask(world.port, "web.example", headers={"X-Forwarded-For": told})).seen["headers"]
    by_https = await asyncio.to_thread(https_behind, world.settings.https_port, b"", "web.example", header)
    assert (by_http["x-real-ip"], '"x-real-ip": "127.0.0.1"' in by_https) == (told, True)
    assert ["over HTTPS the peer counts as the client" in problem.message for problem in world.refused] == [True]
    await world.configure({"use-forwarded-headers": "true", "use-proxy-protocol": "true"})
    assert world.refused == ()


@pytest.mark.usefixtures("no_modules")
async def test_passing_on_without_the_modules_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadConfigurationError, match="libnginx-mod-stream and libnginx-mod-stream-js"):
        async with edge(tmp_path, ssl_passthrough=True):
            pass
