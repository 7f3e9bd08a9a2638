"""What every service does the same way, by tiny services that run as real programs: settings, logs, probes, signals, an orderly end."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.bus.settings import BusSettings
from common.runtime.settings import ServiceSettings
from common.testing import wait_until

FRAME = """
import asyncio, contextlib, logging, pathlib, threading, time
import structlog
from common.runtime.app import App, Fatal, Stage, run
from common.runtime.settings import ServiceSettings

log = structlog.get_logger("sample")

async def noted(name):
    log.info("did", what=name)

async def work(name):
    try:
        await asyncio.Event().wait()
    finally:
        log.info("did", what=name)

async def compose(app):
{body}

run("sample", ServiceSettings, compose)
"""
LONG = "600"  # seconds: what would take as long as this is not waited for


class Service:
    """A running service, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, read: Callable[[], str]) -> None:
        self.process = process
        self._read = read

    @property
    def text(self) -> str:
        """All that it said on standard error."""
        return self._read()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The events that it logged as JSON."""
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{") and line.endswith("}")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    @property
    def did(self) -> list[str]:
        return [line["what"] for line in self.events("did")]

    async def until(self, event: str) -> dict[str, Any]:
        await wait_until(lambda: self.events(event) or self.process.returncode is not None, within=20)
        assert self.events(event), self.text
        return self.events(event)[0]

    async def ended(self) -> int:
        try:
            async with asyncio.timeout(20):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"the service did not end: {self.text}") from None

    async def stopped(self) -> int:
        """The code after an orderly end was asked for."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


@contextlib.asynccontextmanager
async def service(folder: Path, body: str, *arguments: str, **environment: str) -> AsyncIterator[Service]:
    """Runs a service whose `compose` is `body`."""
    program, said = folder / "sample.py", folder / "said"
    program.write_text(FRAME.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))
    with said.open("wb") as file:
        process = await start(program, *arguments, stderr=file.fileno(), environment=environment)
    async with killed(process):
        yield Service(process, lambda: said.read_text(errors="replace"))


@contextlib.asynccontextmanager
async def on_a_terminal(folder: Path, body: str, **environment: str) -> AsyncIterator[Service]:
    """Runs it as a person does: what it says goes to a terminal."""
    program = folder / "sample.py"
    program.write_text(FRAME.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    said = bytearray()

    def read() -> str:
        with contextlib.suppress(OSError):  # nothing to read, or nobody holds the other end any more
            while data := os.read(ours, 65536):
                said.extend(data)
        return said.decode(errors="replace")

    try:
        process = await start(program, stderr=theirs, environment=environment)
        os.close(theirs)
        async with killed(process):
            yield Service(process, read)
    finally:
        os.close(ours)


async def start(program: Path, *arguments: str, stderr: int, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if "--help" not in arguments else asyncio.subprocess.PIPE,
        stderr=stderr,
        env={"PATH": os.environ["PATH"], **environment},
    )


@contextlib.asynccontextmanager
async def killed(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def get(address: str, path: str) -> tuple[int, str]:
    unix = address.removeprefix("unix:")
    connector = aiohttp.UnixConnector(unix) if unix != address else aiohttp.TCPConnector()
    host = "localhost" if unix != address else address
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://{host}{path}") as response:
        return response.status, await response.text()


# ---- settings


async def test_each_wrong_setting_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    wrong = {
        "SEAWAY_LOG_LEVEL": "loud",
        "SEAWAY_SHUTDOWN_DEADLINE": "-1",
        "SEAWAY_CLUSTER": "two words",
        "SEAWAY_PROBES": "nowhere",
        "SEAWAY_BUS__HEARTBEAT": "99",
        "SEAWAY_BUS__URLL": "nats://127.0.0.1:4222",
    }
    async with service(tmp_path, "pass", **wrong) as one:
        assert await one.ended() == 2
        lines = one.text.splitlines()
    assert len(lines) == len(wrong), lines
    for name, value in wrong.items():
        flag = "--" + name.removeprefix("SEAWAY_").lower().replace("__", ".").replace("_", "-")
        assert any(line.startswith(f"sample: {flag} ({name}) is '{value}': ") for line in lines), (name, lines)


async def test_a_flag_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with service(tmp_path, "pass", "--log-levell", "info") as one:
        assert await one.ended() == 2
        assert "--log-levell" in one.text
        assert "Traceback" not in one.text


async def test_a_misspelt_variable_is_named_and_the_flag_wins_over_its_variable(tmp_path: Path) -> None:
    """Only named: Kubernetes may set variables of that prefix, which are not ours."""
    told = {"SEAWAY_LOGLEVEL": "debug", "SEAWAY_LOG_LEVEL": "error", "SEAWAY_CLUSTER": "north"}
    async with service(tmp_path, "log.info('here')", "--log-level", "info", **told) as one:
        await one.until("here")
        assert "sample: the environment variable SEAWAY_LOGLEVEL is no knob of this service" in one.text.splitlines()
        assert (await one.until("service.started"))["cluster"] == "north"
        assert await one.stopped() == 0


async def test_help_tells_every_knob(tmp_path: Path) -> None:
    async with service(tmp_path, "pass", "--help") as one:
        output, _ = await one.process.communicate()
        assert await one.ended() == 0
    words = output.decode().replace(",", " ").split()
    knobs = {name for name in ServiceSettings.model_fields if name != "bus"} | {f"bus.{name}" for name in BusSettings.model_fields}
    for name in knobs:
        assert any(flag in words for flag in (f"--{name.replace('_', '-')}", f"--{name}")), name


async def test_no_password_of_a_setting_is_told(tmp_path: Path) -> None:
    for url in ("nats://admin:hunter2@127.0.0.1:4222", "admin:hunter2@127.0.0.1:4222"):
        async with service(tmp_path, "pass", SEAWAY_BUS__URL=url) as one:
            assert await one.ended() == 2
            assert one.text.startswith("sample: --bus.url (SEAWAY_BUS__URL) is '***@127.0.0.1:4222': ")
            assert "hunter2" not in one.text


# ---- probes


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_probes_answer_what_is_missing(tmp_path: Path, kind: str) -> None:
    body = f"""
        there = pathlib.Path({str(tmp_path / "there")!r})
        app.health.live_while("event-loop", lambda: None)
        app.health.ready_when("replica", lambda: None if there.exists() else "no snapshot yet")
        app.health.ready_when("edge", lambda: None)
    """
    probes = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/probes"
    async with service(tmp_path, body, SEAWAY_PROBES=probes) as one:
        address = (await one.until("service.started"))["probes"]
        assert await get(address, "/livez") == (200, "ok")
        assert await get(address, "/livez?verbose") == (200, "[+]event-loop ok\nlivez check passed\n")
        failing = (503, "[+]running ok\n[-]replica failed: no snapshot yet\n[+]edge ok\nreadyz check failed\n")
        await wait_until(lambda: is_answer(address, "/readyz", failing))
        assert await get(address, "/readyz?verbose") == failing
        (tmp_path / "there").touch()
        assert await get(address, "/readyz") == (200, "ok")
        assert await get(address, "/readyz?verbose") == (200, "[+]running ok\n[+]replica ok\n[+]edge ok\nreadyz check passed\n")
        status, metrics = await get(address, "/metrics")
        assert status == 200
        assert "process_start_time_seconds" in metrics
        assert await one.stopped() == 0


async def test_a_service_is_not_ready_before_it_is_whole_nor_while_it_ends(tmp_path: Path) -> None:
    whole, over = tmp_path / "whole", tmp_path / "over"
    body = f"""
        async def there(path):
            while not path.exists():
                await asyncio.sleep(0.01)

        app.at_stop(Stage.DRAIN, "work", lambda: there(pathlib.Path({str(over)!r})))
        await there(pathlib.Path({str(whole)!r}))
    """
    async with service(tmp_path, body, SEAWAY_PROBES="127.0.0.1:0") as one:
        address = (await one.until("service.started"))["probes"]
        starting = (503, "[-]running failed: still being put together\nreadyz check failed\n")
        assert await get(address, "/readyz") == starting
        whole.touch()
        await wait_until(lambda: is_answer(address, "/readyz", (200, "ok")))
        one.process.send_signal(signal.SIGTERM)
        ending = (503, "[-]running failed: ending\nreadyz check failed\n")
        await wait_until(lambda: is_answer(address, "/readyz", ending))
        over.touch()
        assert await one.ended() == 0


async def is_answer(address: str, path: str, wanted: tuple[int, str]) -> bool:
    return await get(address, path) == wanted


async def test_a_socket_that_a_killed_service_left_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "probes"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with service(tmp_path, "pass", SEAWAY_PROBES=f"unix:{path}") as one:
        await one.until("service.started")
        assert await get(f"unix:{path}", "/livez") == (200, "ok")


async def test_an_address_that_is_taken_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        async with service(tmp_path, "pass", SEAWAY_PROBES=address) as one:
            assert await one.ended() == 1
            assert address in (await one.until("service.failed"))["reason"]
            assert not one.events("service.crashed")


# ---- the end


async def test_a_service_ends_in_the_order_of_its_stages(tmp_path: Path) -> None:
    body = """
        app.spawn("follow", work("task"))
        app.at_stop(Stage.CLOSE, "bus", lambda: noted("close"))
        app.at_stop(Stage.FLUSH, "facts", lambda: noted("flush"))
        app.at_stop(Stage.INTAKE, "door", lambda: noted("intake"))
        app.at_stop(Stage.DRAIN, "jobs", lambda: noted("drain"))
        app.at_stop(Stage.FLUSH, "logs", lambda: noted("flush more"))
        @contextlib.asynccontextmanager
        async def context():
            yield
            await noted("context")
        await app.enter(context())
        log.info("composed")
    """
    async with service(tmp_path, body) as one:
        await one.until("composed")
        assert await one.stopped() == 0
    assert one.did == ["intake", "drain", "flush", "flush more", "task", "close", "context"]
    assert [line["event"] for line in one.lines if line["event"].startswith("service.")] == [
        "service.started",
        "service.stopping",
        "service.stopped",
    ]


async def test_a_part_that_hangs_is_named_and_the_others_still_end(tmp_path: Path) -> None:
    body = """
        app.spawn("follow", work("task"))
        app.at_stop(Stage.DRAIN, "jobs", asyncio.Event().wait)
        app.at_stop(Stage.FLUSH, "facts", lambda: noted("flush"))
        app.at_stop(Stage.CLOSE, "bus", lambda: noted("close"))
        log.info("composed")
    """
    async with service(tmp_path, body, SEAWAY_SHUTDOWN_DEADLINE="0.3") as one:
        await one.until("composed")
        assert await one.stopped() == 1
    assert one.did == ["flush", "task", "close"]
    assert [(line["stage"], line["part"]) for line in one.events("shutdown.hung")] == [("drain", "jobs")]


async def test_a_part_that_fails_at_the_end_does_not_keep_the_others_from_ending(tmp_path: Path) -> None:
    body = """
        async def fail():
            raise Fatal("the disk is full")
        app.spawn("follow", work("task"))
        app.at_stop(Stage.DRAIN, "jobs", fail)
        app.at_stop(Stage.FLUSH, "facts", lambda: noted("flush"))
        app.at_stop(Stage.CLOSE, "bus", lambda: noted("close"))
        log.info("composed")
    """
    async with service(tmp_path, body) as one:
        await one.until("composed")
        assert await one.stopped() == 1
    assert one.did == ["flush", "task", "close"]
    assert [line["reason"] for line in one.events("service.failed")] == ["the disk is full"]


DEAF = """
    async def deaf():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
"""


async def test_a_service_ends_although_parts_of_it_heed_nothing(tmp_path: Path) -> None:
    body = (
        DEAF
        + """
    app.spawn("deaf task", deaf())
    app.spawn("thread", asyncio.to_thread(time.sleep, 600))
    app.at_stop(Stage.DRAIN, "deaf stage", deaf)
    app.at_stop(Stage.CLOSE, "bus", lambda: noted("close"))
    log.info("composed")
    """
    )
    async with service(tmp_path, body, SEAWAY_SHUTDOWN_DEADLINE="0.3") as one:
        await one.until("composed")
        assert await one.stopped() == 1
    assert one.did == ["close"]
    assert [line["part"] for line in one.events("shutdown.hung")] == ["deaf stage", "deaf task"]
    forced = one.events("shutdown.forced")[0]
    assert "deaf task" in forced["tasks"]
    assert forced["threads"] == ["asyncio_0"]
    assert forced["service"] == "sample"


async def test_a_service_whose_event_loop_is_stuck_ends_too(tmp_path: Path) -> None:
    body = """
        async def stuck():
            time.sleep(600)  # holds the loop, as the test's name says; nobody waits for its end
        app.at_stop(Stage.DRAIN, "stuck", stuck)
        log.info("composed")
    """
    async with service(tmp_path, body, SEAWAY_SHUTDOWN_DEADLINE="0.3") as one:
        await one.until("composed")
        assert await one.stopped() == 1
        assert one.events("shutdown.forced")


async def test_a_service_that_failed_ends_although_a_part_of_it_heeds_nothing(tmp_path: Path) -> None:
    body = (
        DEAF
        + """
    app.spawn("deaf", deaf())
    await asyncio.sleep(0)
    raise Fatal("there is no table of routes")
    """
    )
    async with service(tmp_path, body, SEAWAY_SHUTDOWN_DEADLINE="0.3") as one:
        assert await one.ended() == 1
        assert "deaf" in one.events("shutdown.forced")[0]["tasks"]


async def test_a_second_signal_ends_a_service_at_once(tmp_path: Path) -> None:
    body = "app.at_stop(Stage.DRAIN, 'jobs', asyncio.Event().wait)\nlog.info('composed')"
    async with service(tmp_path, body, SEAWAY_SHUTDOWN_DEADLINE=LONG) as one:
        await one.until("composed")
        one.process.send_signal(signal.SIGINT)
        await one.until("service.stopping")
        assert await one.stopped() == -signal.SIGTERM


async def test_a_signal_ends_a_service_that_is_still_being_composed(tmp_path: Path) -> None:
    body = """
        app.at_stop(Stage.CLOSE, "bus", lambda: noted("close"))
        log.info("composing")
        await asyncio.Event().wait()
    """
    async with service(tmp_path, body) as one:
        await one.until("composing")
        assert await one.stopped() == 0
    assert one.did == ["close"]


# ---- failures


@pytest.mark.parametrize("where", ["compose", "task"])
async def test_what_a_service_cannot_go_on_without_is_a_sentence(tmp_path: Path, where: str) -> None:
    body = """
        async def fail():
            raise Fatal("there is no table of routes; run seaway up")
    """ + ("    await fail()" if where == "compose" else "    app.spawn('routes', fail())")
    async with service(tmp_path, body) as one:
        assert await one.ended() == 1
    assert [line["reason"] for line in one.events("service.failed")] == ["there is no table of routes; run seaway up"]
    assert not one.events("service.crashed")
    assert "Traceback" not in one.text
    assert "exception" not in one.events("service.failed")[0]


async def test_a_bus_that_nobody_serves_is_a_sentence_and_its_secrets_stay_secret(tmp_path: Path) -> None:
    seed = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
    (tmp_path / "nkey").write_text(seed)
    knobs = {
        "SEAWAY_BUS__URL": "nats://127.0.0.1:1",
        "SEAWAY_BUS__NKEY_FILE": str(tmp_path / "nkey"),
        "SEAWAY_BUS__PATIENCE": "0.2",
        "SEAWAY_BUS__RECONNECT_WAIT": "0.05",
        "SEAWAY_LOG_LEVEL": "debug",
    }
    async with service(tmp_path, "await app.bus()", **knobs) as one:
        assert await one.ended() == 1
    assert "127.0.0.1:1" in one.events("service.failed")[0]["reason"]
    assert seed not in one.text
    assert "Traceback" not in one.text


BUG = """
    async def follow():
        password = "hunter" + "2"
        return len(password) / 0
    app.spawn("follow", follow())
"""


async def test_a_bug_is_told_with_its_place_and_without_what_variables_held(tmp_path: Path) -> None:
    async with service(tmp_path, BUG) as one:
        assert await one.ended() == 1
    crash = one.events("service.crashed")[0]
    assert (crash["level"], crash["error"]) == ("error", "ZeroDivisionError('division by zero')")
    frames = crash["exception"][0]["frames"]
    assert frames[-1]["name"] == "follow"
    assert frames[-1]["filename"].endswith("sample.py")
    assert "hunter2" not in one.text
    assert all(line.startswith("{") for line in one.text.splitlines()), "nothing but events"


# ---- logs


async def test_logs_are_events_as_json_where_nobody_reads_them(tmp_path: Path) -> None:
    body = """
        logging.getLogger("library").warning("it is %s", "late")
        logging.getLogger("nats").info("chatter")
        log.debug("unimportant")
        log.info("routes.applied", count=3)
    """
    async with service(tmp_path, body) as one:
        await one.until("routes.applied")
        assert await one.stopped() == 0
    assert all(line.startswith("{") for line in one.text.splitlines())
    applied = one.events("routes.applied")[0]
    assert applied.pop("timestamp").endswith("Z")
    assert applied == {"event": "routes.applied", "count": 3, "level": "info", "service": "sample"}
    library = one.events("it is late")[0]
    assert (library["level"], library["service"]) == ("warning", "sample")
    assert "chatter" not in one.text
    assert "unimportant" not in one.text


async def test_logs_are_text_for_a_person_at_a_terminal(tmp_path: Path) -> None:
    async with on_a_terminal(tmp_path, BUG) as one:
        assert await one.ended() == 1
        text = one.text
    assert not one.lines
    assert "service.crashed" in text
    assert "Traceback (most recent call last)" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "hunter2" not in text


async def test_a_person_may_ask_for_json_at_a_terminal(tmp_path: Path) -> None:
    async with on_a_terminal(tmp_path, "log.info('here')", SEAWAY_LOG_FORMAT="json") as one:
        await wait_until(lambda: "here" in one.text, within=20)
        assert await one.stopped() == 0
        assert one.events("here")
