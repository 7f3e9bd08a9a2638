"""Backends that speak TLS: whom they must prove to be, what they are shown, and that nothing is sent to one that proves nothing."""

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from common.testing import wait_until
from common.testing.authority import Authority, Issued
from common.testing.debian import Installation
from common.testing.objects import endpoint_slice, ingress, opaque_secret, rule, service
from nginx_config_renderer import keypairs
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.configure import Configurator
from tests.edge.world import EdgeWorld, Raw, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = True

GOOD, OTHER = Authority(), Authority("Another authority")
OURS = GOOD.issue("the-edge")
CA = {"ca.crt": GOOD.certificate}
HOST = "secure.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(installation: Installation) -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, installation, workers=1) as world:
            yield world


@asynccontextmanager
async def https(issued: Issued, *, asks: Authority | None = None) -> AsyncIterator[tuple[int, list[Raw]]]:
    """A backend of HTTPS that remembers the name that it was called by and the certificate that it was shown; it wants one if it `asks`."""
    seen: list[Raw] = []
    said: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: said.append(name)
    with tempfile.TemporaryDirectory() as directory:
        for name, data in issued.data.items():
            (Path(directory) / name).write_bytes(data)
        context.load_cert_chain(Path(directory) / "tls.crt", Path(directory) / "tls.key")
        if asks is not None:
            context.load_verify_locations(cadata=asks.certificate.decode())
            context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: Any = writer.get_extra_info("peercert") or {}
        name = said[-1] if said else None
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                shown = dict(item for group in peer.get("subject", ()) for item in group).get("commonName")
                seen.append({"sni": name, "shown": shown, "line": head.split(b"\r\n")[0].decode()})
                body = json.dumps(seen[-1])
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def shop(host: str = HOST, called: str = "shop", protocol: str = "HTTPS", **asked: str) -> Raw:
    annotations = {f"{PREFIX}proxy-ssl-{key.replace('_', '-')}": value for key, value in asked.items()}
    return ingress(called, rule(host, "/", "web:443"), annotations={f"{PREFIX}backend-protocol": protocol} | annotations)


async def know(world: EdgeWorld, name: str, data: Mapping[str, bytes]) -> None:
    """A Secret is there, and read, as the keyring does."""
    world.feed(opaque_secret(name, data))
    world._take(world.wanted.learn(keypairs.read("default", name, data)))
    await world.secure()


@asynccontextmanager
async def served(world: EdgeWorld, issued: Issued, **options: Any) -> AsyncIterator[list[Raw]]:
    """The backend `web:443`, for as long as the block runs."""
    async with https(issued, **options) as (port, seen):
        objects = service("web", 443), endpoint_slice("web", "127.0.0.1", port=port)
        await world.put(*objects)
        try:
            yield seen
        finally:
            await world.remove(*objects, shop())


def told(world: EdgeWorld) -> dict[str, str]:
    return {problem.reason: problem.message for problem in world.wanted.problems}


async def test_a_backend_that_our_authorities_vouch_for_is_asked_and_nobody_else(world: EdgeWorld) -> None:
    for issued, status in (
        (GOOD.issue("web.default.svc"), 200),
        (OTHER.issue("web.default.svc"), 502),
        (GOOD.issue("other.default.svc"), 502),
    ):
        async with served(world, issued) as seen:
            await world.put(shop(secret="ca", verify="on"))
            await know(world, "ca", CA)
            assert (await world.ask(HOST)).status == status
            assert len(seen) == (1 if status == 200 else 0), "nothing is sent to one that proves nothing"


async def test_without_verification_any_certificate_will_do_and_the_name_is_the_clients(world: EdgeWorld) -> None:
    async with served(world, OTHER.issue("whatever")) as seen:
        await world.put(shop())
        assert (await world.ask(HOST)).status == 200
        assert seen[-1]["sni"] == HOST


async def test_the_name_to_prove_can_be_given_and_is_said_unless_that_is_not_wanted(world: EdgeWorld) -> None:
    async with served(world, GOOD.issue("db.example.org")) as seen:
        for asked, sni in (({}, "db.example.org"), ({"server_name": "off"}, None)):
            await world.put(shop(secret="ca", verify="on", name="DB.example.org", **asked))
            await know(world, "ca", CA)
            assert (await world.ask(HOST)).status == 200
            assert seen[-1]["sni"] == sni


async def test_a_backend_that_asks_is_shown_our_certificate_and_no_key_is_in_any_file(world: EdgeWorld) -> None:
    async with served(world, GOOD.issue("web.default.svc"), asks=GOOD) as seen:
        await world.put(shop(secret="both", verify="on"))
        await know(world, "both", OURS.data | CA)
        assert (await world.ask(HOST)).status == 200
        assert seen[-1]["shown"] == "the-edge"
        key = OURS.key.splitlines()[1]
        with_key = [path for path in world.settings.state.rglob("*") if path.is_file() and key in path.read_bytes()]
        assert with_key == []
        await world.put(shop())
        assert (await world.ask(HOST)).status == 502, "a connection that was opened with it serves nobody else"
        await know(world, "ca", CA)
        await world.put(shop(secret="ca", verify="on"))
        await world.secure()
        assert (await world.ask(HOST)).status == 502


async def test_a_certificate_of_ours_that_is_renewed_is_shown_without_a_reload(world: EdgeWorld) -> None:
    async with served(world, GOOD.issue("web.default.svc"), asks=GOOD) as seen:
        await world.put(shop(secret="both", verify="on"))
        await know(world, "both", OURS.data | CA)
        before = (await world.admin.status()).fingerprint
        await know(world, "both", GOOD.issue("the-edge-again").data | CA)
        assert (await world.admin.status()).fingerprint == before
        await wait_until(lambda: _shown(world, seen, "the-edge-again"))


async def _shown(world: EdgeWorld, seen: list[Raw], name: str) -> bool:
    assert (await world.ask(HOST)).status == 200
    return bool(seen[-1]["shown"] == name)


async def test_a_bundle_that_is_renewed_is_one_reload_that_costs_no_request(world: EdgeWorld) -> None:
    async with served(world, GOOD.issue("web.default.svc")):
        await world.put(shop(secret="ca", verify="on"))
        await know(world, "ca", CA)
        conf = world.settings.state / "nginx.conf"
        before = conf.read_text()
        asking, statuses = True, set()

        async def ask() -> None:
            while asking:
                statuses.add((await world.ask(HOST)).status)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            await wait_until(lambda: statuses)
            await know(world, "ca", {"ca.crt": GOOD.certificate + OTHER.certificate})
            asking = False
        assert statuses == {200}
        assert conf.read_text() != before
        bundles = sorted((world.settings.state / "authorities").iterdir())
        assert len(bundles) == 1, "the old one is gone"
        assert GOOD.certificate.decode().splitlines()[1] not in conf.read_text()
        assert (await world.ask(HOST)).status == 200


@pytest.mark.parametrize(
    ("asked", "secret", "reason", "sentence"),
    [
        ({"secret": "gone", "verify": "on"}, None, "SecretNotFound", "Secret default/gone does not exist; create it"),
        ({"secret": "empty", "verify": "on"}, {"empty": {}}, "NoAuthorities", "has no ca.crt; put the authorities"),
        ({"secret": "bad", "verify": "on"}, {"bad": {"ca.crt": b"nonsense"}}, "NoAuthorities", "ca.crt holds no PEM certificate"),
        ({"verify": "on"}, None, "NoAuthorities", "name a Secret with ca.crt in proxy-ssl-secret"),
        ({"secret": "elsewhere/ca", "verify": "on"}, None, "SecretElsewhere", "copy it to default"),
        ({"secret": "ca", "verify": "yes"}, {"ca": CA}, "BadAnnotation", "write on or off"),
        ({"secret": "../ca"}, None, "BadAnnotation", "write the name of a Secret"),
        ({"secret": "ca", "verify": "on", "verify_depth": "x"}, {"ca": CA}, "BadAnnotation", "write a whole number"),
        ({"secret": "ca", "verify": "on", "name": "a b"}, {"ca": CA}, "BadAnnotation", "write the name of a host"),
    ],
)
async def test_what_keeps_a_backend_from_proving_itself_keeps_requests_from_it(
    world: EdgeWorld, asked: dict[str, str], secret: dict[str, dict[str, bytes]] | None, reason: str, sentence: str
) -> None:
    async with served(world, GOOD.issue("web.default.svc")) as seen:
        await world.put(shop(**asked))
        for name, data in (secret or {}).items():
            await know(world, name, data)
        await world.secure()
        assert (await world.ask(HOST)).status == 503
        assert not seen
        assert sentence in told(world)[reason]


async def test_until_nginx_has_the_authorities_nothing_is_sent_and_what_was_served_goes_on(world: EdgeWorld) -> None:
    data = CA | {"more": b"another Secret"}
    async with served(world, GOOD.issue("web.default.svc")) as seen:
        await world.put(shop())
        assert (await world.ask(HOST)).status == 200
        world.feed(opaque_secret("later", data))
        world._take(world.wanted.learn(keypairs.read("default", "later", data)))
        new = shop("new.example", "new", secret="later", verify="on", verify_depth="4")
        await world.put(shop(secret="later", verify="on", verify_depth="3"), new)
        assert (await world.ask("new.example")).status == 503, "a new one waits"
        assert (await world.ask(HOST)).status == 200, "an old one is served as before"
        assert seen[-1]["sni"] == HOST
        await world.secure()
        assert [(await world.ask(host)).status for host in (HOST, "new.example")] == [200, 200]
        assert seen[-1]["sni"] == "web.default.svc"
        await world.remove(new)


async def test_a_secret_that_is_not_read_yet_leaves_nginx_what_it_has(world: EdgeWorld) -> None:
    """After a restart of the renderer: keys are on no disk, so it knows less than nginx for a while."""
    async with served(world, GOOD.issue("web.default.svc")):
        await world.put(shop(secret="ca", verify="on"))
        await know(world, "ca", CA)
        assert ("policies", "default/shop") not in world.wanted.unknown
        world.wanted.forget(next(key for key in world.wanted.needs if key.name == "ca"))
        assert ("policies", "default/shop") in world.wanted.unknown
        assert (
            await world.configurator.secure(world.wanted.secured, world.wanted.authorities, keep=bool(world.wanted.unread)) is None
        )
        assert (await world.ask(HOST)).status == 200, "nor does nginx lose the authorities"
        await know(world, "ca", CA)
        nginx = await world.another()
        again = Configurator(nginx, world.settings.options, world.settings.state / "options.json")
        await again.begin()
        assert again.secured == world.configurator.secured, "and it knows which authorities nginx has"


async def test_a_bundle_and_a_name_are_text_of_nobody_in_the_configuration(world: EdgeWorld) -> None:
    async with served(world, GOOD.issue("web.default.svc")):
        await world.put(shop(secret="ca", verify="on", name="very-special-name.example"))
        await know(world, "ca", CA)
        text = (world.settings.state / "nginx.conf").read_text()
        assert "very-special-name" not in text
        assert "proxy_ssl_verify on" in text
    await world.secure()
    assert "proxy_ssl_verify on" not in (world.settings.state / "nginx.conf").read_text(), "and what nobody needs is gone"
