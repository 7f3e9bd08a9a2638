"""What happens when servers die, freeze, change leaders, are too old, or refuse: on real servers only."""

import asyncio
import gc
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest

from common.bus.link import Link
from common.bus.nats import NatsBus, connect
from common.bus.protocol import BusError, Denied, Full, Start, Unavailable, Unsupported
from common.bus.settings import BusSettings
from common.bus.streams import ensure_streams
from common.testing import wait_until
from common.testing.nats import nats_binary_of, nats_cluster, nats_server
from tests.bus.helpers import EVERYTHING, headers, log_for, put, subject
from tests.bus.test_follower import copying
from tests.bus.test_publisher import publishing

# nats-py forgets the socket of an attempt to connect that timed out, as those to a frozen server do.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed <StreamWriter:ResourceWarning", "ignore:unclosed transport:ResourceWarning"
)

OLD = "2.10.25"


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[NatsBus]:
    """A connection with its watchdog, whose end is the block's end."""
    settings: dict[str, Any] = {
        "url": url,
        "heartbeat": 0.5,
        "request_timeout": 2,
        "reconnect_wait": 0.05,
        "connect_timeout": 1,
        "watch_interval": 0.3,
        "watch_timeout": 1,
    }
    bus = await connect(BusSettings(**settings | options))
    watchdog = asyncio.create_task(bus.watch())
    try:
        yield bus
    finally:
        watchdog.cancel()
        await asyncio.gather(watchdog, return_exceptions=True)
        await bus.close()
        gc.collect()  # so that what nats-py forgot is found here, and not in a later test


async def test_a_killed_server_is_a_pause_for_publisher_and_follower() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1))
        async with publishing(bus) as publisher, copying(bus) as (copy, _):
            publisher.put(subject("a"), headers("u", 1), b"before")
            await wait_until(lambda: copy.contents == {"a": "before"})
            await server.kill()
            publisher.put(subject("a"), headers("u", 2), b"meanwhile")
            publisher.put(subject("b"), headers("v", 3), b"new")
            await wait_until(lambda: publisher.blocked)
            await server.start()
            await asyncio.wait_for(publisher.flush(), 20)
            await wait_until(lambda: copy.contents == {"a": "meanwhile", "b": "new"}, within=20)
            assert copy.snapshots == 1


async def test_a_server_that_comes_back_empty_is_noticed_by_both() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1))
        await put(bus, "a", "lost")
        async with copying(bus) as (copy, _):
            await wait_until(lambda: copy.contents)
            await server.kill()
            shutil.rmtree(server.store / "jetstream")
            await server.start()
            await wait_until(lambda: bus.connected)
            await bus.ensure_stream(log_for(1))
            await put(bus, "b", "new")
            await wait_until(lambda: copy.contents == {"b": "new"}, within=20)


async def test_writes_while_servers_die_and_leaders_change_end_in_equal_copies() -> None:
    async with nats_cluster() as cluster, connected(",".join(cluster.urls)) as bus:
        await bus.ensure_stream(log_for(3))
        async with publishing(bus) as publisher, copying(bus) as (copy, _):
            writer = asyncio.create_task(write_for_ever(publisher))
            await wait_until(lambda: len(copy.contents) == 20)
            await cluster.step_down("LOG")
            await progress(copy)
            leader = await cluster.leader("LOG")
            await cluster.kill(leader)
            await progress(copy)
            await cluster.start(leader)
            await progress(copy)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await asyncio.wait_for(publisher.flush(), 30)
            final = await contents_of(bus)
            await wait_until(lambda: copy.contents == final, within=20)


async def write_for_ever(publisher: Any) -> None:
    version = 0
    while True:
        version += 1
        name = version % 20
        publisher.put(subject(name), headers(name, version), str(version).encode())
        await asyncio.sleep(0.002)  # the pace of the writes, not a wait


async def progress(copy: Any) -> None:
    before = max(int(body) for body in copy.contents.values())
    await wait_until(lambda: max(int(body) for body in copy.contents.values()) > before + 100, within=40)


async def contents_of(bus: NatsBus) -> dict[str, str]:
    found = {}
    for each in await bus.subjects("LOG", EVERYTHING[0]):
        last = await bus.get_last("LOG", each)
        assert last is not None
        found[each.rpartition(".")[2]] = last.body.decode()
    return found


async def test_a_frozen_server_is_noticed_and_the_follower_goes_on_when_it_wakes() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1))
        async with copying(bus) as (copy, follower):
            await wait_until(lambda: copy.updates)
            server.freeze()
            await wait_until(lambda: not bus.connected and not follower.connected)
            with pytest.raises(Unavailable):
                await bus.stream_state("LOG")
            server.thaw()
            await wait_until(lambda: bus.connected, within=20)
            await put(bus, "a", "1")
            await wait_until(lambda: copy.contents == {"a": "1"}, within=20)


async def test_a_frozen_server_of_a_cluster_is_left_for_another_one() -> None:
    async with nats_cluster() as cluster, connected(",".join(cluster.urls)) as bus:
        await bus.ensure_stream(log_for(3))
        url = bus._link._client.connected_url
        assert url is not None
        frozen = next(server for server in cluster.servers if server.port == url.port)
        frozen.freeze()
        try:
            await wait_until(lambda: elsewhere(bus, frozen.port), within=45)
            await wait_until(lambda: stored(bus), within=45)
        finally:
            frozen.thaw()


def elsewhere(bus: NatsBus, port: int) -> bool:
    url = bus._link._client.connected_url
    return bus.connected and url is not None and url.port != port


async def stored(bus: NatsBus) -> bool:
    try:
        return bool(await put(bus, "a", "1"))
    except BusError:  # away, or without a leader yet
        return False


async def test_a_dead_read_loop_is_noticed_although_the_client_calls_itself_connected() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1))
        reading = bus._link._client._reading_task
        assert reading is not None
        reading.cancel()
        await wait_until(reading.done)
        assert bus.connected
        await wait_until(lambda: bus._link._client._reading_task is not reading)
        await wait_until(lambda: stored(bus))


async def test_a_connection_closed_for_good_ends_the_application() -> None:
    """The server answers an unknown word with an error after which nats-py does not connect again."""
    async with nats_server() as server:
        bus = await connect(BusSettings(url=server.url))

        async def application() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(bus.watch())
                await bus._link._client._process_err("'unknown protocol operation'")

        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(application(), 10)
        assert caught.group_contains(Unavailable, match="closed for good")
        await bus.close()


async def test_requests_under_way_fail_at_once_when_the_connection_goes() -> None:
    async with nats_server() as server, connected(server.url, request_timeout=60, watch_interval=60) as bus:
        await bus.ensure_stream(log_for(1))
        server.freeze()
        waiting = asyncio.create_task(bus.stream_state("LOG"))
        await wait_until(lambda: bus._link._waiting)
        await server.kill()
        with pytest.raises(Unavailable, match="is gone"):
            await asyncio.wait_for(waiting, 10)


async def test_a_server_that_is_too_old_is_refused_with_what_to_install() -> None:
    try:
        binary = await nats_binary_of(OLD)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    async with nats_server(binary=binary, flags=False) as server:
        with pytest.raises(Unsupported, match=rf"version {OLD}.*install nats-server >= 2\.12"):
            await connect(BusSettings(url=server.url))


async def test_an_old_server_that_drops_an_option_is_refused() -> None:
    try:
        binary = await nats_binary_of(OLD)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    async with nats_server(binary=binary, flags=False) as server:
        link = Link(BusSettings(url=server.url))
        await link.open()
        with pytest.raises(Unsupported, match="did not take allow_msg_ttl of stream LOG"):
            await NatsBus(link).ensure_stream(log_for(1))
        await link.close()


async def test_three_replicas_on_a_single_server_are_refused_with_the_reason() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        with pytest.raises(Unsupported, match=r"refuses the stream LOG: .*replicas > 1 not supported in non-clustered mode"):
            await bus.ensure_stream(log_for(3))


async def test_streams_that_do_not_fit_the_disk_are_refused() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        with pytest.raises(Full, match="LOG"):
            await bus.ensure_stream(log_for(1, max_bytes=1024**4))


async def test_where_nobody_listens_patience_ends_with_the_address() -> None:
    with pytest.raises(Unavailable, match=r"no NATS server answers at nats://127\.0\.0\.1:1;"):
        await connect(BusSettings(url="nats://127.0.0.1:1", patience=0.3, reconnect_wait=0.05))


def key_pair(directory: Path, name: str) -> tuple[str, Path]:
    """A user's public key and the file with its seed."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    path = directory / f"{name}.nk"
    path.write_bytes(seed)
    return nkeys.from_seed(bytearray(seed)).public_key.decode(), path


def users(*entries: tuple[str, str]) -> str:
    listed = "\n".join(f"{{ nkey: {key}, permissions: {{ {permissions} }} }}" for key, permissions in entries)
    return f"authorization {{ users: [ {listed} ] }}"


async def test_an_unknown_key_is_refused_at_once(tmp_path: Path) -> None:
    known, _ = key_pair(tmp_path, "known")
    _, unknown_file = key_pair(tmp_path, "unknown")
    async with nats_server(extra=users((known, ""))) as server:
        with pytest.raises(Denied, match="does not accept our credentials"):
            await asyncio.wait_for(connect(BusSettings(url=server.url, nkey_file=unknown_file)), 10)


async def test_a_missing_permission_blocks_the_publisher_until_it_is_given(tmp_path: Path) -> None:
    """The server says it in a line of its own, not in an answer: without a hand for that, it would be a timeout."""
    key, seed = key_pair(tmp_path, "watcher")
    refused = users((key, 'publish: { deny: ["state.v1.t.>"] }'))
    async with nats_server(extra=refused) as server, connected(server.url, nkey_file=seed, request_timeout=60) as bus:
        await bus.ensure_stream(log_for(1))
        with pytest.raises(Denied, match=r'publish to "state\.v1\.t\.core\.pods\.ns\.a"'):
            await asyncio.wait_for(put(bus, "A", "1"), 10)
        async with publishing(bus) as publisher:
            publisher.put(subject("a"), headers("u", 1), b"1")
            await wait_until(lambda: publisher.blocked)
            assert publisher.blocked is not None
            assert "permissions violation" in publisher.blocked.reason
            await server.reconfigure(users((key, "")))
            await asyncio.wait_for(publisher.flush(), 20)


async def test_a_reader_of_another_ones_filter_is_denied(tmp_path: Path) -> None:
    key, seed = key_pair(tmp_path, "renderer")
    api = "$JS.API"
    allowed = [
        f"{api}.INFO",
        f"{api}.STREAM.INFO.LOG",
        f"{api}.CONSUMER.CREATE.LOG.*.{EVERYTHING[0]}",
        f"{api}.CONSUMER.MSG.NEXT.LOG.*",
    ]
    allowed += [f"{api}.CONSUMER.DELETE.LOG.*"]
    listed = ", ".join(f'"{each}"' for each in allowed)
    admin, admin_seed = key_pair(tmp_path, "admin")
    permissions = f'publish: {{ allow: [{listed}] }}, subscribe: {{ allow: ["_INBOX_renderer.>"] }}'
    async with nats_server(extra=users((admin, ""), (key, permissions))) as server:
        async with connected(server.url, nkey_file=admin_seed) as bus:
            await bus.ensure_stream(log_for(1))
            await put(bus, "a", "1")
        async with connected(server.url, nkey_file=seed, inbox="_INBOX_renderer", request_timeout=60) as bus:
            async with bus.read("LOG", [EVERYTHING[0]], Start(), name="allowed") as reader:
                while not (batch := await reader.batch()):
                    pass
                assert len(batch) == 1
            with pytest.raises(Denied):
                async with bus.read("LOG", ["sync.v1.t.>"], Start(), name="denied"):
                    pass
        with pytest.raises(Denied, match="subscription"):
            await asyncio.wait_for(connect(BusSettings(url=server.url, nkey_file=seed, request_timeout=60)), 10)


async def test_readers_leave_nothing_behind() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1))
        async with copying(bus) as (copy, _):
            await wait_until(lambda: copy.updates)
            assert (await bus._api("CONSUMER.NAMES.LOG"))["consumers"]
        assert not (await bus._api("CONSUMER.NAMES.LOG"))["consumers"]
        assert len(bus._link._client._subs) == 1


async def test_a_reader_that_nobody_reads_holds_a_bounded_number_of_bytes() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1, max_bytes=256 * 1024 * 1024))
        for number in range(60):
            await bus.publish(subject(number), bytes(1024 * 1024), {})
        async with bus.read("LOG", EVERYTHING, Start(), name="slow") as reader:
            count = len(await reader.batch())
            received = bus._link._client.stats["in_bytes"]
            while count < 60:
                batch = await reader.batch()
                held, received = bus._link._client.stats["in_bytes"] - received, bus._link._client.stats["in_bytes"]
                assert held <= 33 * 1024 * 1024
                count += len(batch)
        assert count == 60


async def test_a_lost_message_is_noticed_by_the_reader() -> None:
    async with nats_server() as server, connected(server.url) as bus:
        await bus.ensure_stream(log_for(1))
        for number in range(10):
            await put(bus, number, "x")
        async with bus.read("LOG", EVERYTHING, Start(), name="gap") as reader:
            await reader.batch()
            deliver = reader._pull._on_message  # type: ignore[attr-defined]  # a NatsReader

            async def lose_one(message: Any) -> None:
                if message.data != b"lost":
                    await deliver(message)

            subscription = next(sub for sub in bus._link._client._subs.values() if sub._subject.endswith(".d"))
            subscription._cb = lose_one
            await put(bus, "a", "lost")
            with pytest.raises(Unavailable, match="was lost"):
                await until_lost(reader)


async def until_lost(reader: Any) -> None:
    while True:
        await reader.batch()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = ["openssl", *request.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


async def test_tls_comes_before_any_other_word(certificate: tuple[Path, Path]) -> None:
    authority, key = certificate
    secured = f'tls {{ cert_file: "{authority}", key_file: "{key}", handshake_first: true }}'
    async with nats_server(extra=secured) as server, connected(server.url, tls_ca=authority) as bus:
        await ensure_streams(bus, 1)
    async with nats_server() as plain:
        with pytest.raises(Unavailable):
            await connect(BusSettings(url=plain.url, tls_ca=authority, patience=1, reconnect_wait=0.1))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nats://me:hunter2@localhost:4222", "nkey_file or creds_file"),
        ("nats://hunter2@localhost:4222", "nkey_file or creds_file"),
        ("http://localhost", "nats://host:port"),
        ("localhost:4222", "nats://host:port"),
        ("nats://", "nats://host:port"),
    ],
)
def test_an_address_with_credentials_or_of_another_kind_is_refused_without_repeating_a_secret(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        BusSettings(url=url)
    assert "hunter2" not in str(caught.value)
