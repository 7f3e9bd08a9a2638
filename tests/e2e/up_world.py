"""`seaway up` as a person starts it: a process with a terminal's output, whose parts are found among its children."""

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from common.testing import wait_until
from common.testing.ports import free_port
from tests.edge.world import Answer, ask

SOON = 30.0
ENDS_WITHIN = 10.0  # what `seaway up` promises for Ctrl-C

MARKS = {
    "nats-server": "nats-server",
    "watcher": "-m watcher",
    "renderer": "-m nginx_config_renderer",
    "nginx": "nginx: master",
    "worker": "nginx: worker",
}


class Up:
    """One `seaway up`."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.data = directory / "data"
        self.http, self.https, self.nats = free_port(), free_port(), free_port()
        self.output = directory / "up.log"
        ports = [f"--http={self.http}", f"--https={self.https}", f"--nats-port={self.nats}"]
        self.command = [sys.executable, "-m", "seaway", "up", *ports, f"--data={self.data}", "--workers=2", *arguments]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def said(self) -> str:
        """What it wrote to its terminal."""
        return self.output.read_text()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        assert self._process is not None
        return self._process.returncode

    async def start(self, **more: str) -> None:
        """Starts it, with more in its environment, and does not wait."""
        environment = more | {name: value for name, value in os.environ.items() if not name.startswith(("SEAWAY_", "KUBE"))}
        with self.output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environment, process_group=0
            )

    async def ready(self, within: float = SOON) -> None:
        """Waits until it says so."""

        def there() -> bool:
            if self.code is not None:
                raise AssertionError(f"seaway up ended with {self.code}:\n{self.said}")
            return "Ready after" in self.said

        try:
            await wait_until(there, within=within)
        except AssertionError:
            raise AssertionError(f"seaway up is not ready:\n{self.said[-3000:]}") from None

    async def ended(self, within: float = ENDS_WITHIN) -> int:
        """Its exit code, once it has one."""
        assert self._process is not None
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ends it as Ctrl-C does; its exit code."""
        if self.code is None:
            os.kill(self.pid, number)
        return await self.ended()

    def processes(self, mark: str = "") -> list[int]:
        """The processes below it whose command has that mark in it, the oldest first."""
        return sorted(pid for pid, command in _below(self.pid) if mark in command)

    def parts(self) -> dict[str, int]:
        """The processes below it, by part; of nginx's workers one."""
        found = {part: pid for pid, command in _below(self.pid) for part, mark in MARKS.items() if mark in command}
        return dict(sorted(found.items()))

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signals a part, which must be there; its process."""
        pid = self.parts()[part]
        os.kill(pid, number)
        return pid

    async def back(self, part: str, old: int) -> None:
        """Waits until another process has taken the place of `old`."""
        try:
            await wait_until(lambda: self.parts().get(part, old) != old, within=SOON)
        except AssertionError:
            end = f"ended with {self.code}" if self.code is not None else f"runs {self.parts()}"
            raise AssertionError(f"no {part} took the place of {old}; seaway up {end}:\n{self.said[-3000:]}") from None

    async def ask(self, host: str, target: str = "/") -> Answer:
        """One request to its nginx."""
        return await ask(self.http, host, target)

    async def certificate(self, host: str, context: ssl.SSLContext) -> bytes:
        """The certificate that a client is shown, in DER; nothing if it does not trust it."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.https, ssl=context, server_hostname=host)
        except OSError:
            return b""
        der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return der

    async def until(self, host: str, by: str, within: float = SOON) -> None:
        """Waits until `host` is answered by that backend, or with that status."""
        last = ""

        async def answered() -> bool:
            nonlocal last
            last = (await self.ask(host)).by
            return last == by

        try:
            await wait_until(answered, within=within)
        except AssertionError:
            raise AssertionError(f"{host} is answered by {last}, not by {by}:\n{self.said[-3000:]}") from None

    async def command_output(self, *arguments: str) -> tuple[int, str, str]:
        """What a command about this Seaway answers: exit code, output, errors."""
        environment = {**os.environ, "SEAWAY_DATA": str(self.data)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "seaway", *arguments, stdout=-1, stderr=-1, env=environment
        )
        async with asyncio.timeout(SOON):
            output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()


@asynccontextmanager
async def up(directory: Path, *arguments: str, ready: bool = True) -> AsyncIterator[Up]:
    """A `seaway up` that is ready; it is gone at the end, whatever happened."""
    seaway = Up(directory, *arguments)
    await seaway.start()
    try:
        if ready:
            await seaway.ready()
        yield seaway
    finally:
        if seaway.code is None:
            os.kill(seaway.pid, signal.SIGKILL)
            await seaway.ended()
        await wait_until(lambda: not remains(directory), within=SOON)


def remains(directory: Path) -> list[str]:
    """The processes whose command line speaks of `directory`, or that listen in it."""
    return [command for _, command in _processes() if str(directory) in command and "pytest" not in command]


def write(path: Path, objects: Sequence[dict[str, Any]]) -> None:
    """Makes `objects` the content of a manifest, in one step."""
    draft = path.with_suffix(".draft")
    draft.write_text(yaml.safe_dump_all(objects))
    draft.rename(path)


def _below(pid: int) -> Iterator[tuple[int, str]]:
    parents = {child: parent for child, parent, _ in _table()}
    for child, _, command in _table():
        at = child
        while at in parents and at != pid:
            at = parents[at]
        if at == pid and child != pid:
            yield child, command


def _processes() -> Iterator[tuple[int, str]]:
    yield from ((pid, command) for pid, _, command in _table())


def _table() -> list[tuple[int, int, str]]:
    """Process, parent and command line of every process that is not a zombie."""
    rows = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state[0] != "Z":
            rows.append((int(entry.name), int(state[1]), command))
    return rows
