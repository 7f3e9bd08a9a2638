"""What keeps nginx running in its container (keep.sh), with a real nginx and the configuration that the renderer writes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import needs
from tests.packaging import ROOT

from common.testing import wait_until
from common.testing.ports import free_port
from nginx_config_renderer.admin import Admin, AdminError
from nginx_config_renderer.nginx import Configuration
from nginx_config_renderer.settings import Settings

SCRIPTS = (ROOT / "services/keep.sh", ROOT / "services/nginx-config-renderer/nginx.sh")
pytestmark = [
    needs("nginx"),
    pytest.mark.skipif(
        not Path("/usr/lib/nginx/modules/ngx_http_lua_module.so").exists(), reason="nginx has no Lua: python3 scripts/setup.py edge"
    ),
]


GRACE = "0.5"


class Runner:
    """What keeps nginx, and the nginx that it keeps."""

    def __init__(self, settings: Settings, process: asyncio.subprocess.Process) -> None:
        self.settings = settings
        self.process = process

    @property
    def master(self) -> int:
        """The process of nginx's master, 0 if there is none."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.settings.state / "run/nginx.pid").read_text())
        return 0

    def children(self) -> dict[str, int]:
        """What the programs are called that it has started, and their processes."""
        found: dict[str, int] = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                found[Path(f"/proc/{pid}/comm").read_text().strip()] = int(pid)
        return found

    async def answers(self) -> bool:
        async with Admin(self.settings.admin_socket) as admin:
            with contextlib.suppress(AdminError):
                return bool((await admin.status()).fingerprint)
            return False

    async def ended(self) -> int:
        async with asyncio.timeout(10):
            return await self.process.wait()


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    """What keeps nginx, on a directory that holds no configuration yet."""
    settings = Settings(_cli_parse_args=[], state=tmp_path / "edge", http_port=free_port(), https_port=0, workers=1, ipv6=False)
    # By the shell of this machine: the one in the image differs in its capability alone.
    process = await asyncio.create_subprocess_exec(
        "sh", *map(str, SCRIPTS), env={**os.environ, "SEAWAY_STATE": str(settings.state), "SEAWAY_GRACE": GRACE}
    )
    found = Runner(settings, process)
    yield found
    if process.returncode is None:
        process.terminate()
    await found.ended()
    if found.master:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.master, signal.SIGKILL)


async def configured(runner: Runner) -> Runner:
    await (await Configuration.of(runner.settings.edge(), "nginx")).install(runner.settings.options)
    await wait_until(runner.answers)
    return runner


async def test_nginx_starts_as_soon_as_there_is_a_configuration(runner: Runner) -> None:
    await configured(runner)
    assert runner.process.returncode is None


async def test_a_wait_for_a_configuration_ends_when_told_to(runner: Runner) -> None:
    await wait_until(lambda: "sleep" in runner.children())
    runner.process.terminate()
    assert await runner.ended() == 0


def _replaced(runner: Runner, master: int) -> bool:
    return runner.master not in {0, master}


async def test_a_killed_nginx_is_started_again_every_time(runner: Runner) -> None:
    await configured(runner)
    for _ in range(3):
        before = runner.master
        os.kill(before, signal.SIGKILL)
        await wait_until(partial(_replaced, runner, before))
        await wait_until(runner.answers)
    assert runner.process.returncode is None


async def test_a_signal_that_a_starting_nginx_does_not_hear_is_not_lost(runner: Runner) -> None:
    await (await Configuration.of(runner.settings.edge(), "nginx")).install(runner.settings.options)
    await wait_until(lambda: "nginx" in runner.children(), every=0.0005)
    nginx = runner.children()["nginx"]
    runner.process.terminate()
    assert await runner.ended() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(nginx, 0)


async def test_nginx_finishes_what_it_has_begun(runner: Runner) -> None:
    await configured(runner)
    reader, writer = await asyncio.open_unix_connection(str(runner.settings.admin_socket))
    writer.write(b"POST /apply HTTP/1.1\r\nHost: nginx\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    runner.process.terminate()
    await wait_until(lambda: not runner.settings.admin_socket.is_socket())
    writer.write(b"no")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert await runner.ended() == 0


async def test_clients_that_still_come_are_answered_for_a_while_after_the_probes_fail(runner: Runner) -> None:
    await configured(runner)
    runner.process.terminate()
    await wait_until(lambda: not runner.settings.admin_socket.is_socket(), every=0.001)
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.settings.http_port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    writer.close()
    assert await runner.ended() == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", runner.settings.http_port)
