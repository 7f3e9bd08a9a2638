"""Each request is one line of the access log: in the operator's format, over rotations under load, and none is lost."""

import asyncio
import datetime as dt
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.testing import wait_until
from common.testing.objects import ingress, rule, service
from nginx_config_renderer.log_files import LogFiles, compress
from nginx_config_renderer.rotation import Rotation
from tests.edge.world import EdgeWorld, ask

HOST = "shop.example"
REQUESTS = 3000
CLIENTS = 10
ROTATION = Rotation(size=2000, every=86400, keep=10_000, budget=10**9)


@pytest.fixture
async def world(own: EdgeWorld) -> EdgeWorld:
    await own.put(service("web"), *await own.serve("web"), ingress("shop", rule(HOST, "/", "web:80")))
    return own


@pytest.fixture
def logs(world: EdgeWorld) -> Path:
    directory = world.settings.log_directory
    assert directory is not None
    return directory


def lines(logs: Path) -> Iterator[str]:
    """Of all access logs."""
    for path in sorted(logs.glob("access.log*")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        yield from text.decode().splitlines()


def kept(logs: Path) -> list[str]:
    """The names of all logs."""
    return sorted(path.name for path in logs.iterdir())


async def test_a_line_is_that_of_ingress_nginx(world: EdgeWorld, logs: Path) -> None:
    answer = await world.ask(HOST, "/a?b=c", **{"User-Agent": 'x"y', "X-Request-ID": "id-1"})
    assert answer.status == 200
    await wait_until(lambda: list(lines(logs)))  # a line comes after its answer, and from whichever worker it was
    await world.ask("nobody.example", "/none")
    await wait_until(lambda: len(list(lines(logs))) == 2)
    first, second = lines(logs)
    assert first.startswith("127.0.0.1 - - [")
    assert '] "GET /a?b=c HTTP/1.1" 200 ' in first
    assert '"x\\x22y"' in first
    assert " [default-web-80] [] 127.0.0.1:" in first
    assert first.endswith(" 200 id-1")
    assert '"GET /none HTTP/1.1" 404 ' in second
    assert " [] [] - - - - " in second


async def test_the_operators_format_is_taken_verbatim_and_json_is_json(world: EdgeWorld, logs: Path) -> None:
    form = (
        r'{"host": "$host", \"of\": "$namespace/$ingress_name", "to": "$service_name:$service_port", "agent": "$http_user_agent"}'
    )
    await world.configure({"log-format-upstream": form, "log-format-escape-json": "true"})
    assert world.refused == ()
    await world.ask(HOST, "/", **{"User-Agent": 'x"y'})
    await wait_until(lambda: list(lines(logs)))
    assert json.loads(next(lines(logs))) == {"host": HOST, "of": "default/shop", "to": "web:80", "agent": 'x"y'}

    await world.configure({"log-format-upstream": "json", "skip-access-log-urls": "/quiet,~^/static/"})
    assert world.refused == ()
    for path in ("/quiet", "/static/a", "/loud"):
        await world.ask(HOST, path)
    await wait_until(lambda: len(list(lines(logs))) == 2)
    line = json.loads(list(lines(logs))[1])
    assert (line["uri"], line["status"], line["namespace"], line["ingress"]) == ("/loud", 200, "default", "shop")


async def test_a_format_with_an_unknown_variable_is_refused_with_nginxs_word_for_it(world: EdgeWorld) -> None:
    await world.configure({"log-format-upstream": "$nothing_like_it"})
    assert 'unknown "nothing_like_it" variable' in world.refused[0].message


async def test_nothing_is_logged_where_that_is_not_wanted(world: EdgeWorld, logs: Path) -> None:
    await world.configure({"disable-access-log": "true"})
    await world.ask(HOST)
    await world.configure({"access-log-params": ""})
    await world.ask(HOST, "/after")
    await wait_until(lambda: list(lines(logs)))
    assert ["/after" in line for line in lines(logs)] == [True]


async def test_no_line_is_lost_over_rotations_under_load(world: EdgeWorld, logs: Path) -> None:
    await world.configure({"access-log-params": "buffer=4k flush=1s"})
    keeper = LogFiles(logs, ROTATION, world.admin)
    statuses: list[int] = []

    async def visit(number: int) -> None:
        statuses.extend([(await ask(world.port, HOST, f"/{number}-{count}")).status for count in range(REQUESTS // CLIENTS)])

    async def rotate() -> None:
        moment = dt.datetime.now(dt.UTC)
        while True:
            moment += dt.timedelta(seconds=1)  # names tell seconds; what is silent for long enough is compressed meanwhile
            await keeper.look(moment)
            await asyncio.sleep(0.02)

    rotating = asyncio.create_task(rotate())
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(visit(number))
    asked = {f"/{number}-{count}" for number in range(CLIENTS) for count in range(REQUESTS // CLIENTS)}
    await wait_until(lambda: len(list(lines(logs))) >= REQUESTS)
    rotating.cancel()
    assert statuses == [200] * REQUESTS
    assert sorted(line.split('"GET ')[1].split()[0] for line in lines(logs)) == sorted(asked)
    names = kept(logs)
    assert len(names) > 7
    assert any(name.endswith(".gz") for name in names)


async def test_what_was_renamed_before_its_renderer_ended_is_let_go_by_the_next(world: EdgeWorld, logs: Path) -> None:
    await world.ask(HOST, "/before")
    await wait_until(lambda: list(lines(logs)))
    (logs / "access.log").rename(logs / "access.log-20261124T000000Z")
    await LogFiles(logs, ROTATION, world.admin).look(dt.datetime.now(dt.UTC))
    await wait_until((logs / "access.log").exists)
    await world.ask(HOST, "/after")
    await wait_until(lambda: (logs / "access.log").read_text().count("/after") == 1)


def test_a_file_that_grows_while_it_is_compressed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "access.log-1", tmp_path / "access.log-1.gz"
    source.write_bytes(b"a line\n")

    def late(lines: object, stream: gzip.GzipFile, size: int) -> None:
        with source.open("ab") as file:
            file.write(b"a late one\n")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfileobj", late)
        compress(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["access.log-1"]
    compress(source, target)
    assert gzip.decompress(target.read_bytes()) == b"a line\na late one\n"
    assert not source.exists()


def test_what_nginx_put_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "link").symlink_to(secret)
    os.link(secret, tmp_path / "hard")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "hard", "fifo"):
        with pytest.raises(OSError, match=r"Too many levels of symbolic links|is no file of nginx's"):
            compress(tmp_path / name, tmp_path / "out.gz")
    (tmp_path / "log").write_text("a line")
    (tmp_path / "log.compressing").symlink_to(secret)
    with pytest.raises(FileExistsError):
        compress(tmp_path / "log", tmp_path / "out.gz")
    assert secret.read_text() == "secret"
    assert not (tmp_path / "out.gz").exists()
