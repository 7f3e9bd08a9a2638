"""nginx's tables follow without a reload, survive every death, and are never half of one thing and half of another."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from common.testing import wait_until
from common.testing.objects import endpoint_slice, ingress, rule, service
from nginx_config_renderer import metrics
from nginx_config_renderer.admin import AdminError, Status
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.journal import Journal, Journals
from nginx_config_renderer.plan import BACKENDS, HOSTS, POLICIES, Entry, Write, digest
from nginx_config_renderer.trial import BadConfigurationError
from tests.disk import files_up_to
from tests.edge.world import SOON, EdgeWorld, ask, backend, edge

BOTH = True
SHOP = ingress("shop", rule("shop.example", "/", "web:80"))
LARGE = ingress("large", *(rule("large.example", f"/{number:03}{'x' * 200}", "web:80") for number in range(50)))


WEB = (BACKENDS, "default/web:80")


@dataclass
class Fixed:
    """Entries that stay as they are, unless a test changes them."""

    entries: Mapping[Entry, str]
    unknown: frozenset[Entry] = frozenset()


@contextlib.asynccontextmanager
async def successor(own: EdgeWorld, wants: Fixed, journal: str = "journal") -> AsyncIterator[Applier]:
    """The renderer that comes after the edge's own, which is away; it has compared nginx with what it wants."""
    own.applier.hold()
    journals = Journals(Journal(own.settings.state / journal), None)
    applier = Applier(own.admin, journals, wants)
    applier.release()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(applier.run())
        await wait_until(lambda: applier.settled, within=SOON)
        yield applier
        running.cancel()
    journals.close()


async def shop(world: EdgeWorld) -> None:
    """One site, `shop.example`."""
    await world.put(SHOP, service("web"), *await world.serve("web"))


@contextlib.asynccontextmanager
async def visitors(world: EdgeWorld, host: str, count: int = 4) -> AsyncIterator[Counter[str]]:
    """What clients are answered who ask without a pause, each on a connection of its own."""
    seen: Counter[str] = Counter()
    ending = asyncio.Event()

    async def visit() -> None:
        while not ending.is_set():
            seen[(await world.ask(host)).by] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(visit())
        await wait_until(lambda: sum(seen.values()) > count, within=SOON)
        try:
            yield seen
        finally:
            ending.set()


async def test_changes_under_load_reach_every_worker_without_a_reload_and_without_a_wrong_answer(own: EdgeWorld) -> None:
    await shop(own)
    before = (await own.admin.status(), _workers(own))
    async with AsyncExitStack() as stack, visitors(own, "shop.example") as seen:
        for number in range(30):
            port = await stack.enter_async_context(backend(f"web-{number}"))
            await own.put(
                endpoint_slice("web", "127.0.0.1", port=port),
                ingress(f"new-{number}", rule(f"new-{number}.example", "/", "web:80")),
            )
            answers = {(await own.ask(f"new-{number}.example")).by for _ in range(4)}
            assert answers == {f"web-{number}"}, "who asks after a push gets what was pushed, whichever worker is asked"
    assert sum(seen.values()) > 60
    assert {answer for answer in seen if not answer.startswith("web")} == set()
    after = (await own.admin.status(), _workers(own))
    assert (after[0].instance, after[0].fingerprint, after[1]) == (before[0].instance, before[0].fingerprint, before[1])


async def test_a_killed_worker_costs_its_own_requests_and_no_route(own: EdgeWorld) -> None:
    own.expected += ("exited on signal 9",)
    await shop(own)
    for worker in _workers(own):
        os.kill(worker, signal.SIGKILL)
        await wait_until(partial(_replaced, own, worker), within=SOON)
        assert {(await own.ask("shop.example")).by for _ in range(8)} == {"web"}


async def test_a_killed_nginx_comes_back_with_its_routes_although_nobody_pushes_them(own: EdgeWorld) -> None:
    await shop(own)
    own.applier.hold()  # as if the renderer were away
    old = await own.admin.status()
    seen: Counter[str] = Counter()
    assert own.nginx.pid is not None
    os.kill(own.nginx.pid, signal.SIGKILL)
    async with asyncio.timeout(SOON):
        while own.nginx.starts < 2 or not seen["web"] or await _instance(own) in {None, old.instance}:
            seen[(await own.ask("shop.example")).by] += 1
    assert set(seen) <= {"0", "web"}, "no connection or the right answer, and nothing in between"


async def test_a_journal_that_was_cut_off_gives_what_is_whole(own: EdgeWorld) -> None:
    await shop(own)
    own.applier.hold()
    journal = own.settings.state / "journal"
    journal.write_bytes(journal.read_bytes() + b'{"to":9,"writes":[["hosts","shop.example"')
    await _restart(own)
    assert (await own.ask("shop.example")).by == "web"
    own.applier.release()
    await own.settle()
    await own.put(ingress("more", rule("more.example", "/", "web:80")))
    assert (await own.ask("more.example")).by == "web"


async def test_a_line_of_the_journal_that_is_not_what_its_hash_says_is_left_out_and_all_others_count(own: EdgeWorld) -> None:
    await shop(own)
    await own.put(ingress("spoilt", rule("spoilt.example", "/", "web:80")))
    await own.put(ingress("last", rule("last.example", "/", "web:80")))
    own.applier.hold()
    journal = own.settings.state / "journal"
    assert journal.read_bytes().count(b"spoilt.example") == 1
    journal.write_bytes(journal.read_bytes().replace(b"spoilt.example", b"stolen.example"))
    await _restart(own)
    served = {host: (await own.ask(host)).by for host in ("shop.example", "last.example", "spoilt.example", "stolen.example")}
    assert served == {"shop.example": "web", "last.example": "web", "spoilt.example": "404", "stolen.example": "404"}
    assert any("is not what was written, and left out" in word for word in own.nginx.words)
    own.applier.release()
    await own.settle()
    assert (await own.ask("spoilt.example")).by == "web"


async def test_an_ingress_whose_policy_a_disk_has_spoilt_is_closed_until_its_renderer_is_there(own: EdgeWorld) -> None:
    await shop(own)
    first, second = (rule(host, "/", "web:80") for host in ("first.example", "second.example"))
    policy = {f"{PREFIX}proxy-body-size": "4321"}
    await own.put(ingress("limited", first, annotations=policy))
    await own.put(ingress("limited", first, second, annotations=policy))
    own.applier.hold()
    journal = own.settings.state / "journal"
    journal.write_bytes(journal.read_bytes().replace(b"4321", b"8765"))
    await _restart(own)
    assert (await own.ask("second.example")).by == "503", "it might have kept clients out"
    assert (await own.ask("shop.example")).by == "web"
    own.applier.release()
    await own.settle()
    assert (await own.ask("second.example")).by == "web"


async def test_a_full_disk_holds_no_push_up_and_takes_nothing_of_what_was_written_before(own: EdgeWorld) -> None:
    await shop(own)
    with files_up_to((own.settings.state / "journal").stat().st_size + 1000):
        await own.put(LARGE)
        await own.put(ingress("last", rule("last.example", "/", "web:80")))
        assert (await own.ask("last.example")).by == "web"
        assert "journal cannot be written" in str(own.applier.unwritten)
        own.applier.hold()
    await _restart(own)
    assert (await own.ask("shop.example")).by == "web"
    assert not any("is not what was written" in word for word in own.nginx.words)


async def test_what_a_full_disk_did_not_take_is_in_the_journal_when_there_is_room_although_nothing_changes(own: EdgeWorld) -> None:
    await shop(own)
    with files_up_to((own.settings.state / "journal").stat().st_size + 1000):
        await own.put(LARGE)
    await wait_until(lambda: own.applier.unwritten is None, within=SOON)
    own.applier.hold()
    await _restart(own)
    assert (await own.ask("large.example", f"/001{'x' * 200}")).by == "web"


async def test_a_renderer_that_starts_again_pushes_the_difference_and_no_more(own: EdgeWorld) -> None:
    await shop(own)
    await own.put(ingress("old", rule("old.example", "/", "web:80")))
    entries = {entry: value for entry, value in own.wanted.entries.items() if entry != (HOSTS, "old.example")}
    entries[HOSTS, "new.example"] = entries[HOSTS, "shop.example"]
    written = _written()
    async with successor(own, Fixed(entries), "journal-2"):
        pass
    assert await own.holds() == {entry: digest(value) for entry, value in entries.items()}
    assert _written() - written == 2, "one host came, one went, and nothing else was touched"


async def test_what_a_renderer_that_starts_again_does_not_know_yet_outlives_nginx_too(own: EdgeWorld) -> None:
    await shop(own)
    await own.put(ingress("old", rule("old.example", "/", "web:80")))
    entries = dict(own.wanted.entries) | {WEB: "[]"}
    del entries[HOSTS, "old.example"]
    async with successor(own, Fixed(entries, frozenset({WEB}))):
        pass
    await _restart(own)
    assert {host: (await own.ask(host)).by for host in ("shop.example", "old.example")} == {
        "shop.example": "web",
        "old.example": "404",
    }


async def test_when_a_renderer_knows_everything_the_journal_has_everything_whatever_it_had_before(own: EdgeWorld) -> None:
    await shop(own)
    wants = Fixed(dict(own.wanted.entries), frozenset({WEB}))
    journal = own.settings.state / "journal"
    journal.unlink()
    async with successor(own, wants) as applier:
        assert b'["backends",' not in journal.read_bytes()
        wants.unknown = frozenset()
        applier.want([WEB])
        await wait_until(lambda: b'["backends",' in journal.read_bytes(), within=SOON)
    await _restart(own)
    assert (await own.ask("shop.example")).by == "web"


async def test_a_bus_that_is_lost_while_nginx_is_compared_takes_nothing_from_the_journal(
    own: EdgeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop(own)
    wants, compare, asked = Fixed(dict(own.wanted.entries)), own.admin.digest, asyncio.Event()

    async def lost_meanwhile() -> tuple[Status, dict[Entry, str]]:
        answer = await compare()
        if wants.entries and asked.is_set():
            applier.hold()
            wants.entries = {}
        asked.set()
        return answer

    monkeypatch.setattr(own.admin, "digest", lost_meanwhile)
    async with successor(own, wants) as applier:
        applier.hold()
        applier.release()
        await wait_until(lambda: not wants.entries, within=SOON)
    await _restart(own)
    assert (await own.ask("shop.example")).by == "web"


async def test_a_push_that_was_made_for_another_state_changes_nothing_and_leads_to_a_comparison(own: EdgeWorld) -> None:
    await shop(own)
    status = await own.admin.status()
    await own.admin.apply(status.instance, status.revision, [Write(HOSTS, "stray.example", "{}")])
    assert (HOSTS, "stray.example") in await own.holds()
    await own.put(ingress("more", rule("more.example", "/", "web:80")))
    await wait_until(lambda: own.applier.settled, within=SOON)
    assert await own.holds() == own.should_hold()


async def test_a_quiet_renderer_notices_that_somebody_else_wrote(own: EdgeWorld) -> None:
    await shop(own)
    status = await own.admin.status()
    await own.admin.apply(status.instance, status.revision, [Write(HOSTS, "shop.example", None)])

    async def mended() -> bool:
        return (await own.ask("shop.example")).by == "web"

    await wait_until(mended, within=SOON)


async def test_what_finds_no_room_is_named_and_holds_nothing_else_up(tmp_path: Path) -> None:
    async with edge(tmp_path, table_size=1) as world:
        await shop(world)
        large = [
            ingress(f"big-{n}", *(rule(f"big-{n}.example", f"/{i:03}{'x' * 2000}", "web:80") for i in range(40))) for n in range(20)
        ]
        await world.put(*large)
        assert world.applier.full is not None
        assert "found no room in nginx's shared memory (no memory); raise --table-size" in world.applier.full
        assert "hosts big-" in world.applier.full
        assert (await world.ask("shop.example")).by == "web"
        await world.put(endpoint_slice("web", "127.0.0.1", port=1))
        assert (await world.ask("shop.example")).status == 502, "changes go on"
        await world.remove(*large[:15])
        await wait_until(lambda: world.applier.full is None, within=SOON)
        assert await world.holds() == world.should_hold()


async def test_an_ingress_whose_policy_finds_no_room_is_closed(tmp_path: Path) -> None:
    async with edge(tmp_path, table_size=1) as world:
        await shop(world)
        long = {"affinity": "cookie", "session-cookie-path": f"/{'x' * 250}", "session-cookie-domain": "x" * 250}
        asked = {f"{PREFIX}{name}": value for name, value in long.items()}
        await world.put(*(ingress(f"big-{n}", rule("big.example", f"/{n}", "web:80"), annotations=asked) for n in range(1200)))
        assert "policies default/big-" in str(world.applier.full)
        held = {key for table, key in await world.holds() if table == POLICIES}
        served = {n: (await world.ask("big.example", f"/{n}")).by for n in range(0, 1200, 50)}
        assert served == {n: "web" if f"default/big-{n}" in held else "503" for n in served}
        assert set(served.values()) == {"web", "503"}


async def test_a_change_of_many_entries_goes_in_bounded_pushes(own: EdgeWorld) -> None:
    many = [ingress(f"many-{n}", rule(f"many-{n}.example", f"/{'x' * 1000}", "web:80")) for n in range(600)]
    before = own.applier.revision
    await own.put(service("web"), *await own.serve("web"), *many)
    assert own.applier.revision - before >= 3
    assert (await own.ask("many-599.example", f"/{'x' * 1000}")).by == "web"


async def test_connections_to_backends_are_kept(own: EdgeWorld) -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError), contextlib.closing(writer):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await own.put(SHOP, service("web"), endpoint_slice("web", "127.0.0.1", port=port))
        assert {(await own.ask("shop.example")).status for _ in range(20)} == {204}
        assert opened <= 2, "one connection a worker"
        await own.nginx.stop(5)


async def test_an_upgraded_connection_is_handed_through_both_ways(own: EdgeWorld) -> None:
    """WebSocket (RFC 6455 §4), and whatever else begins with Upgrade, needs no annotation."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"upgrade: websocket" in head
            assert b"connection: upgrade" in head
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while line := await reader.readline():
                writer.write(b"echo " + line)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(SOON):
        await own.put(SHOP, service("web"), endpoint_slice("web", "127.0.0.1", port=server.sockets[0].getsockname()[1]))
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: shop.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        for text in (b"one\n", b"two\n"):
            writer.write(text)
            assert await reader.readline() == b"echo " + text
        writer.close()
        await own.nginx.stop(5)


async def test_an_answer_that_comes_bit_by_bit_is_passed_on_bit_by_bit(own: EdgeWorld) -> None:
    """Server-sent events (HTML Living Standard, 9.2) need no annotation either."""
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
            await go_on.wait()
            writer.write(b"data: two\n\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(SOON):
        await own.put(SHOP, service("web"), endpoint_slice("web", "127.0.0.1", port=server.sockets[0].getsockname()[1]))
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        await reader.readuntil(b"data: one\n\n")
        go_on.set()
        await reader.readuntil(b"data: two\n\n")
        writer.close()


async def test_a_request_in_progress_is_answered_when_nginx_is_asked_to_quit(own: EdgeWorld) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await answer.wait()
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.TaskGroup() as group:
        await own.put(SHOP, service("web"), endpoint_slice("web", "127.0.0.1", port=server.sockets[0].getsockname()[1]))
        visit = group.create_task(own.ask("shop.example"))
        await asked.wait()
        stopping = group.create_task(own.nginx.stop(SOON, signal.SIGQUIT))
        await wait_until(lambda: _refuses(own.port), within=SOON)
        answer.set()
        assert (await visit).status == 204
        assert await stopping, "it ended by itself"


async def test_https_is_answered_with_the_default_certificate_and_serves_the_same_routes(own: EdgeWorld) -> None:
    await shop(own)
    context = ssl.create_default_context(cafile=str(own.settings.state / "default.crt"))
    context.check_hostname = False
    answer = await ask(own.settings.https_port, "shop.example", tls=context)
    assert answer.by == "web"
    assert answer.seen["headers"]["x-forwarded-proto"] == "https"
    key = own.settings.state / "default.key"
    assert key.stat().st_mode & 0o077 == 0, "the key is for nginx alone"


async def test_a_configuration_that_nginx_does_not_take_is_refused_with_its_words_and_the_old_one_stays(own: EdgeWorld) -> None:
    await shop(own)
    conf = own.settings.state / "nginx.conf"
    before = conf.read_bytes()
    bad = await own.another(modules=(*own.settings.edge().modules, "/nowhere/ngx_http_missing_module.so"))
    with pytest.raises(BadConfigurationError, match="ngx_http_missing_module"):
        await bad.install(own.settings.options)
    assert conf.read_bytes() == before
    assert (await own.ask("shop.example")).by == "web"


async def test_another_configuration_is_one_reload_that_costs_no_request_and_no_route(own: EdgeWorld) -> None:
    await shop(own)
    async with visitors(own, "shop.example", count=2) as seen:
        instance = (await own.admin.status()).instance
        before = metrics.RELOADS.labels("configmap")._value.get()
        await own.configure({"max-worker-connections": "512"})
        assert metrics.RELOADS.labels("configmap")._value.get() - before == 1
        assert (await own.admin.status()).instance == instance, "the tables outlive a reload"
        await own.put(ingress("more", rule("more.example", "/", "web:80")))
        assert (await own.ask("more.example")).by == "web"
    assert set(seen) == {"web"}


async def test_tables_that_are_made_larger_or_smaller_hold_what_they_held_although_nobody_pushes_it(own: EdgeWorld) -> None:
    await shop(own)
    own.applier.hold()
    async with visitors(own, "shop.example", count=2) as seen:
        for size in (own.settings.table_size + 1, own.settings.table_size):
            await _resize(own, size)
            assert await own.holds() == own.should_hold()
    assert set(seen) == {"web"}
    own.applier.release()
    await own.put(ingress("last", rule("last.example", "/", "web:80")))
    assert (await own.ask("last.example")).by == "web"


async def test_a_quiet_renderer_notices_that_tables_are_empty_since_they_have_another_size(own: EdgeWorld) -> None:
    await shop(own)
    (own.settings.state / "journal").unlink()
    await _resize(own, own.settings.table_size + 1)
    await wait_until(partial(_holds_all, own), within=SOON)
    assert (await own.ask("shop.example")).by == "web"


async def test_a_backend_that_goes_while_a_request_is_on_its_way_is_a_clean_error(own: EdgeWorld) -> None:
    await shop(own)
    async with visitors(own, "shop.example") as seen:
        for _ in range(30):
            web = endpoint_slice("web", "127.0.0.1", port=1)
            await own.put({**web, "endpoints": []})
            await own.remove(SHOP)
            await own.put(SHOP)
    assert set(seen) <= {"web", "503", "404", "502"}
    assert (BACKENDS, "default/web:80") in await own.holds()


async def _resize(world: EdgeWorld, size: int) -> None:
    """Has nginx make its tables anew, as a template with other sizes does."""
    assert world.keeping is not None
    world.keeping.cancel()
    resized = await world.another(table_size=size)
    await resized.install(world.settings.options)
    keeping = asyncio.create_task(resized.keep(world.admin))
    await resized.in_force()
    keeping.cancel()


async def _holds_all(world: EdgeWorld) -> bool:
    return await world.holds() == world.should_hold()


def _workers(world: EdgeWorld) -> set[int]:
    children = Path(f"/proc/{world.nginx.pid}/task/{world.nginx.pid}/children").read_text().split()
    return {int(child) for child in children}


def _replaced(world: EdgeWorld, worker: int) -> bool:
    return worker not in _workers(world) and len(_workers(world)) == 2


def _written() -> float:
    return sum(float(metrics.WRITES.labels(table)._value.get()) for table in (HOSTS, BACKENDS))


async def _instance(world: EdgeWorld) -> str | None:
    """Which nginx there is; None if there is none."""
    try:
        return (await world.admin.status()).instance
    except AdminError:
        return None


async def _refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


async def _restart(world: EdgeWorld) -> None:
    starts = world.nginx.starts
    assert world.nginx.pid is not None
    os.kill(world.nginx.pid, signal.SIGKILL)

    async def back() -> bool:
        return world.nginx.starts > starts and (await world.ask("nobody.example")).status == 404

    await wait_until(back, within=SOON)
