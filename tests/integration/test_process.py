"""Files that are written whole or not at all, programs that are asked, and a program that is kept running, by its real end."""

import asyncio
import contextlib
import itertools
import os
import signal
import stat
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import needs

from common.backoff import Backoff
from common.process import Child, Outcome, atomic_write, validate
from common.testing import wait_until

QUICK = Backoff(first=0.01, most=0.05, factor=2, jitter=0)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def shell(code: str) -> list[str]:
    return ["sh", "-c", code]


def server(on: str, code: str) -> list[str]:
    """Waits for signals and does `code` at each `on`. No shell: dash loses a signal that comes while it starts a program."""
    return python(f"""
        import signal, sys
        signal.signal(signal.{on}, lambda *_: {code})
        print("ready", flush=True)
        while True:
            signal.pause()
    """)


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.asynccontextmanager
async def running(child: Child) -> AsyncIterator[asyncio.Task[None]]:
    """Keeps `child` running for the block, and leaves nothing behind."""
    task = asyncio.create_task(child.run())
    try:
        yield task
    finally:
        await child.stop(0)
        async with asyncio.timeout(10):
            await asyncio.gather(task, return_exceptions=True)


# ---- atomic_write


def test_a_file_is_written_with_exactly_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        atomic_write(tmp_path / "open", b"new", 0o644)
        atomic_write(tmp_path / "secret", b"new", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "open").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["open", "secret"]


def test_a_secret_does_not_stay_readable_because_it_was_before(tmp_path: Path) -> None:
    atomic_write(tmp_path / "key", b"old", 0o644)
    atomic_write(tmp_path / "key", b"new", 0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_reader_sees_the_old_bytes_or_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    versions = [bytes([65 + number]) * (20_000 + number) for number in range(3)]
    atomic_write(path, versions[0])
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        until = time.monotonic() + 30
        for number in itertools.count():
            atomic_write(path, versions[number % len(versions)])
            if number >= 60 and (len(seen) > 1 or time.monotonic() > until):
                break
    finally:
        over.set()
        reader.join()
    assert len(seen) > 1, "the reader saw it change"
    assert seen <= set(versions)


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "routes"
    atomic_write(path, b"the old bytes")
    with path.open("rb") as file:
        assert file.read(4) == b"the "
        atomic_write(path, b"NEW")
        assert file.read() == b"old bytes"
    assert path.read_bytes() == b"NEW"


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.mkdir()  # a file cannot take the place of a directory
    with pytest.raises(OSError, match=r"nginx\.conf"):
        atomic_write(path, b"new")
    assert [found.name for found in tmp_path.iterdir()] == ["nginx.conf"]


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    """The limit on the size of a file (setrlimit(2)) makes the write fail in its middle, as a full disk does."""
    (tmp_path / "routes").write_bytes(b"old")
    code = f"""
        import pathlib, resource, signal
        from common.process import atomic_write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            atomic_write(pathlib.Path({str(tmp_path / "routes")!r}), b"x" * 2000)
        except OSError as error:
            raise SystemExit(42)
    """
    assert asyncio.run(validate(python(code), timeout=20)).code == 42
    assert [found.name for found in tmp_path.iterdir()] == ["routes"]
    assert (tmp_path / "routes").read_bytes() == b"old"


def test_a_directory_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        atomic_write(tmp_path / "missing" / "file", b"new")


# ---- validate


async def test_a_program_tells_its_code_and_what_it_said_on_both_outputs() -> None:
    outcome = await validate(shell("echo out; echo err >&2; exit 3"), timeout=10)
    assert outcome == Outcome(3, "out\nerr\n")


async def test_a_program_that_a_signal_ended_has_the_signal_as_its_code() -> None:
    assert (await validate(shell("kill -KILL $$"), timeout=10)).code == -signal.SIGKILL


async def test_output_that_is_no_text_is_told_as_well_as_it_can_be() -> None:
    assert (await validate(shell(r"printf 'a\377b'"), timeout=10)).output == "a\N{REPLACEMENT CHARACTER}b"


async def test_a_program_reads_nothing_and_gets_the_environment_that_is_given() -> None:
    outcome = await validate(["/bin/sh", "-c", 'cat; echo "[$HOME$WORD]"'], timeout=10, environment={"WORD": "sail"})
    assert outcome == Outcome(0, "[sail]\n")


async def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        await validate(shell(f"sleep 600 & echo $! > {noted}; wait"), timeout=0.5)
    pid = int(noted.read_text())
    await wait_until(lambda: not alive(pid))


async def test_a_program_is_killed_when_nobody_waits_for_its_answer_any_more(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    task = asyncio.create_task(validate(shell(f"echo $$ > {noted}; exec sleep 600"), timeout=600))
    await wait_until(lambda: noted.exists() and noted.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(noted.read_text()))


async def test_a_program_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await validate(["no-such-program"], timeout=10)


# ---- Child


async def test_a_child_that_ended_is_started_again_and_each_start_is_prepared(tmp_path: Path) -> None:
    story: list[str] = []
    child = Child(
        "brief",
        shell("echo here; exit 7"),
        prepare=lambda: story.append("prepare"),
        hear=story.append,
        ended=lambda one: story.append(f"ended {one.last_code}"),
        restarts=QUICK,
    )
    async with running(child):
        await wait_until(lambda: child.starts >= 3)
    assert story[:6] == ["prepare", "here", "ended 7"] * 2
    assert child.last_code is not None


async def test_a_killed_child_is_started_again() -> None:
    ends: list[int | None] = []
    child = Child("sleeper", ["sleep", "600"], ended=lambda one: ends.append(one.last_code), restarts=QUICK)
    async with running(child):
        await wait_until(lambda: child.pid)
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: child.pid not in {None, first})
    assert ends == [-signal.SIGKILL]
    assert child.starts == 2


@pytest.mark.parametrize(("program", "waits"), [("exit 1", [1, 2, 3, 4]), ("kill -9 $$", [1, 1, 1, 1])])
async def test_a_child_that_cannot_run_is_started_less_and_less_often_and_one_that_is_killed_at_once(
    program: str, waits: list[int]
) -> None:
    asked: list[int] = []

    class Noted(Backoff):
        def delay(self, attempt: int, luck: float) -> float:
            asked.append(attempt)
            return 0.0

    child = Child("broken", shell(program), restarts=Noted(first=1, most=1, factor=1, jitter=0))
    async with running(child):
        await wait_until(lambda: len(asked) >= 4)
    assert asked[:4] == waits


async def test_a_child_does_not_need_the_directory_that_it_is_started_in() -> None:
    child = Child("lost", shell("pwd"), restarts=QUICK)
    async with running(child):
        await wait_until(lambda: bool(child.words))
    assert child.words[0] == "/"


async def test_the_last_words_of_a_child_are_kept_and_no_more() -> None:
    child = Child("talker", shell("seq 1 100; printf 'no newline'; sleep 600"), restarts=QUICK)
    async with running(child):
        await wait_until(lambda: "100" in child.words)
        assert list(child.words) == [str(number) for number in range(81, 101)]


async def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    heard: list[str] = []
    child = Child("babbler", shell("seq -s , 1 200000; echo end; sleep 600"), hear=heard.append)
    async with running(child):
        await wait_until(lambda: "end" in heard)
    assert max(map(len, heard)) <= 16 * 1024
    assert [text.startswith("1,2,3,") for text in heard].count(True) == 1, "what was told is not kept"


async def test_a_childs_own_children_do_not_keep_it_from_being_started_again(tmp_path: Path) -> None:
    """They hold the pipe open, and nobody may wait for its end."""
    noted = tmp_path / "pids"
    child = Child("forker", shell(f"setsid sleep 20 & echo $! >> {noted}; exit 0"), restarts=QUICK)
    try:
        async with running(child):
            await wait_until(lambda: child.starts >= 2)
    finally:
        for pid in noted.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


async def test_a_child_is_told_to_read_its_configuration_again() -> None:
    heard: list[str] = []
    child = Child("server", server("SIGHUP", "print('again', flush=True)"), hear=heard.append)
    async with running(child):
        await wait_until(lambda: "ready" in heard)
        child.reload()
        await wait_until(lambda: "again" in heard)
        assert child.starts == 1


async def test_a_child_that_is_stopped_ends_by_itself_and_stays_ended() -> None:
    ends: list[Any] = []
    child = Child("server", server("SIGTERM", "sys.exit(0)"), ended=ends.append)
    async with running(child) as task:
        await wait_until(lambda: "ready" in child.words)
        assert await child.stop(grace=10)
        await task
    assert (child.starts, child.last_code, child.pid, ends) == (1, 0, None, [])


async def test_a_child_that_does_not_heed_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    child = Child("stubborn", shell(f"trap '' TERM; sleep 600 & echo $! > {noted}; echo ready; wait; wait"))
    async with running(child) as task:
        await wait_until(lambda: "ready" in child.words)
        grandchild = int(noted.read_text())
        assert not await child.stop(grace=0.2)
        await task
    assert child.last_code == -signal.SIGKILL
    await wait_until(lambda: not alive(grandchild))


async def test_a_child_that_waits_to_be_started_again_is_stopped_at_once() -> None:
    child = Child("brief", shell("exit 1"), restarts=Backoff(first=600, most=600, factor=1, jitter=0))
    async with running(child) as task:
        await wait_until(lambda: child.last_code is not None)
        assert await child.stop(grace=10)
        async with asyncio.timeout(10):
            await task
    assert child.starts == 1


async def test_a_child_and_all_that_it_started_are_gone_when_its_task_is_cancelled(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    child = Child("server", shell(f"sleep 600 & echo $! > {noted}; echo ready; wait"))
    async with running(child) as task:
        await wait_until(lambda: "ready" in child.words)
        pids = [child.pid or 0, int(noted.read_text())]
        assert all(map(alive, pids))
        task.cancel()
        await asyncio.wait({task})
        await wait_until(lambda: not any(map(alive, pids)))


async def test_a_program_that_is_not_there_is_one_clear_sentence() -> None:
    child = Child("nginx", ["no-such-program", "-g", "daemon off;"])
    with pytest.raises(FileNotFoundError, match=r"^there is no program no-such-program$"):
        await child.run()
    assert child.starts == 0


async def test_a_program_is_looked_for_where_its_environment_says(tmp_path: Path) -> None:
    (tmp_path / "greeter").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "greeter").chmod(0o755)
    child = Child("greeter", ["greeter"], environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    async with running(child):
        await wait_until(lambda: "hello" in child.words)


@needs("setpriv", package="util-linux")
async def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    parent = await asyncio.create_subprocess_exec(
        *python(f"""
            import asyncio, pathlib
            from common.process import Child

            async def main():
                child = Child("sleeper", ["sleep", "600"])
                running = asyncio.create_task(child.run())
                while child.pid is None or "sleep" not in pathlib.Path(f"/proc/{{child.pid}}/comm").read_text():
                    await asyncio.sleep(0.01)
                pathlib.Path({str(noted)!r}).write_text(str(child.pid))
                await running

            asyncio.run(main())
        """)
    )
    try:
        await wait_until(lambda: noted.exists() and noted.read_text(), within=20)
        pid = int(noted.read_text())
        assert alive(pid)
    finally:
        parent.kill()
        await parent.wait()
    await wait_until(lambda: not alive(pid))
