"""A real nginx with the renderer's own parts around it, backends that say who they are, and a client that sends what it is told to.

`edge()` has no bus: objects are given to it, as the bus would hand them over. `nginx_of` is nginx alone, kept running on a directory that
a renderer fills.
"""

import asyncio
import contextlib
import json
import os
import pwd
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.backoff import Backoff
from common.contracts.objects import ConfigMap
from common.contracts.problems import Problem
from common.process import Child
from common.testing import wait_until
from common.testing.debian import THIS_MACHINE, Installation
from common.testing.objects import config_map, endpoint_slice, ingress_class
from common.testing.ports import free_port
from nginx_config_renderer.admin import Admin
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.configure import Configurator
from nginx_config_renderer.contract import fingerprint_of
from nginx_config_renderer.default_certificate import owner_of
from nginx_config_renderer.journal import Journal, Journals
from nginx_config_renderer.nginx import Configuration
from nginx_config_renderer.plan import Entry, digest
from nginx_config_renderer.policy import Policy
from nginx_config_renderer.settings import Settings
from nginx_config_renderer.stream_files import StreamFiles
from nginx_config_renderer.wanted import News, Wanted
from tests.edge.grounds import ground_of
from tests.messages import message
from tests.packaging import ROOT

Raw = dict[str, Any]
SOON = 20.0
GRACE = "1"
KEEP_NGINX = (ROOT / "services/keep.sh", ROOT / "services/nginx-config-renderer/nginx.sh")
NGINX = THIS_MACHINE.program("nginx")

# What nginx warns of since it concerns a client, a backend or a setting. Of itself it has nothing to warn of.
_WARNING = re.compile(r" \[(warn|crit|alert|emerg)\] ")
TOLD = ("] health.lua:", "] canary.lua:", "is buffered to a temporary file", "duplicate network")


@dataclass(frozen=True)
class Answer:
    """What came back. Status 0: nothing did."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def seen(self) -> Raw:
        """What the backend was asked, as it tells it."""
        parsed: Raw = json.loads(self.body)
        return parsed

    @property
    def by(self) -> str:
        """The backend that answered, or the status if none did."""
        return str(self.seen["name"]) if self.status == 200 else str(self.status)


async def ask(port: int, host: str, target: str = "/", *, headers: Mapping[str, str] | None = None, tls: Any = None) -> Answer:
    """One request on a connection of its own; `target` is sent as it is."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host if tls else None)
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", errors="surrogateescape"))
                whole = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return Answer(0)
    head, _, body = whole.decode("utf-8", errors="surrogateescape").partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    if not status:
        return Answer(0)
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    return Answer(int(status.split(" ")[1]), named, body)


@asynccontextmanager
async def backend(name: str, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """An HTTP server on a port of the loopback address; it answers with its name and what it was asked, whatever that is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError), contextlib.closing(writer):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", errors="surrogateescape").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                await reader.readexactly(int(headers.get("content-length", 0)))
                body = json.dumps({"name": name, "target": first.split(" ", 1)[1].rsplit(" ", 1)[0], "headers": headers})
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                if headers.get("connection") == "close":
                    return

    server = await asyncio.start_server(serve, address, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def settings(directory: Path, **changes: Any) -> Settings:
    """A renderer's settings for an nginx on free ports."""
    ports = {"http_port": free_port(), "https_port": free_port()}
    given = {**ports, "workers": 2, "table_size": 4, "worker_shutdown_timeout": 5, "loopback_endpoints": True}
    return Settings(state=directory, log_directory=directory / "logs", **(given | changes))


def prepare(state: Path) -> None:
    """Makes the directory that nginx and its renderer share, as whoever installs them does."""
    for own in (state / "run", state / "logs"):
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            user = pwd.getpwnam("www-data")
            os.chown(own, user.pw_uid, user.pw_gid)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that nginx's user gets through, for as long as the block runs. pytest keeps its own for us alone."""
    with TemporaryDirectory(prefix="seaway-test-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


def nginx_of(state: Path, installation: Installation = THIS_MACHINE, *, contained: bool = False) -> Child:
    """Nginx on what a renderer wrote to `state`, as an ordinary user, started again when it dies; `contained` as in its container."""
    command = (
        ["sh", *_readable(state, KEEP_NGINX)]
        if contained
        else ["nginx", "-e", "stderr", "-p", str(state / "run"), "-c", str(state / "nginx.conf"), "-g", "daemon off;"]
    )
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "--no-new-privs", *command]
    environment = os.environ | {
        "SEAWAY_STATE": str(state),
        "SEAWAY_GRACE": GRACE,
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin",
    }
    command = installation.command(*command)
    return Child(
        "nginx", command, environment=environment, prepare=lambda: _clear(state / "run"), restarts=Backoff(first=0.05, most=0.2)
    )


def _readable(directory: Path, scripts: Iterable[Path]) -> list[str]:
    """Copies of the scripts: a checkout in somebody's home is hidden from nginx's user."""
    return [str(shutil.copy(script, directory)) for script in scripts]


def _clear(run: Path) -> None:
    """Takes the sockets of an nginx that was killed away; they would be in the way of the next one."""
    for socket in run.glob("*.sock"):
        socket.unlink()


class EdgeWorld:
    """nginx, its renderer's parts, and the objects that were given to them."""

    def __init__(
        self,
        settings: Settings,
        admin: Admin,
        stack: AsyncExitStack,
        configuration: Configuration,
        installation: Installation,
        *,
        contained: bool = False,
    ) -> None:
        self.settings = settings
        self.installation = installation
        self.configuration = configuration
        self.configurator = Configurator(configuration, settings.options, settings.state / "options.json")
        self.refused: tuple[Problem, ...] = ()
        self.expected: tuple[str, ...] = TOLD
        self.admin = admin
        self.nginx = nginx_of(settings.state, installation, contained=contained)
        self.wanted = Wanted(
            "local", settings.ours, settings.options_ref, settings.entrances, settings.switches, around=settings.around
        )
        self.files = StreamFiles(settings.stream_files, self.wanted.entering)
        secret = Journal(settings.key_journal, owner_of(settings.state / "run")) if settings.key_journal else None
        self.journal = Journals(Journal(settings.state / "journal"), secret)
        self.applier = Applier(admin, self.journal, self.wanted)
        self.keeping: asyncio.Task[None] | None = None
        self._stack = stack
        self._sequence = 0

    @property
    def sequence(self) -> int:
        """The resourceVersion of the object that was given last."""
        return self._sequence

    @property
    def port(self) -> int:
        """Where nginx serves HTTP."""
        return self.settings.http_port

    def accept(self, usual: Policy | None, refused: tuple[Problem, ...]) -> None:
        """Takes what became of the ConfigMap."""
        self.refused = refused
        self.applier.want(self.wanted.accept(usual, refused).entries)

    async def configure(self, data: Mapping[str, str] | None) -> None:
        """The operator's ConfigMap says this; nginx does so afterwards, or keeps what it has."""
        namespace, name = self.settings.options_ref.namespace, self.settings.options_ref.name
        raw = config_map(name, data, namespace) if data is not None else None
        await self.configurator.take(ConfigMap.project(raw) if raw is not None else None, self)
        await wait_until(self._is_configured, within=SOON)
        await wait_until(lambda: self.configurator.settled, within=SOON)
        await self.settle()

    async def _is_configured(self) -> bool:
        text = (self.settings.state / "nginx.conf").read_text()
        return (await self.admin.status()).fingerprint == fingerprint_of(text)

    def warnings(self) -> list[str]:
        """What nginx complained of, but for what it is expected to."""
        log = self.settings.state / "logs/error.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [line for line in lines if _WARNING.search(line) and not any(each in line for each in self.expected)]

    async def put(self, *objects: Raw) -> None:
        """Applies objects; nginx has them afterwards."""
        self.feed(*objects)
        await self.settle()

    async def remove(self, *objects: Raw) -> None:
        """Deletes objects; nginx has lost them afterwards."""
        self._take(self.wanted.change([self._message(raw, gone=True) for raw in objects]))
        await self.settle()

    async def another(self, **changes: Any) -> Configuration:
        """The configuration of the same nginx, as a renderer has it that has just started."""
        chosen = replace(self.settings.edge(), **changes)
        return await Configuration.of(chosen, self.installation.program("nginx"), await ground_of(self.installation))

    def feed(self, *objects: Raw) -> None:
        """Applies objects, and does not wait."""
        self._take(self.wanted.change([self._message(raw) for raw in objects]))

    def _take(self, news: News) -> None:
        self.applier.ledger.note(news.sightings, live=True)
        self.applier.want(news.entries)
        self.files.want(news.streams.files)

    async def listen(self) -> None:
        """Nginx has the ports that are asked for, but for those that cannot be."""
        self.wanted.entering.refuse(await self.configurator.listen(self.wanted.entering.listeners))
        await wait_until(self._is_configured, within=SOON)
        await wait_until(lambda: self.configurator.settled, within=SOON)
        await self.settle()

    async def secure(self) -> None:
        """Nginx can hold backends to what they must prove."""
        assert await self.configurator.secure(self.wanted.secured, self.wanted.authorities) is None
        await wait_until(lambda: self.configurator.settled, within=SOON)
        self._take(self.wanted.install(self.configurator.secured))
        await self.settle()

    async def settle(self) -> None:
        """Waits until nginx holds what it should."""
        await wait_until(
            lambda: self.applier.settled and not self.applier.ledger.waiting and self.files.settled, within=SOON, every=0.002
        )

    async def ask(self, host: str, target: str = "/", **headers: str) -> Answer:
        """One request."""
        return await ask(self.port, host, target, headers=headers)

    async def say(self, text: bytes) -> list[int]:
        """Sends bytes as they are; the statuses of what comes back until nginx ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            writer.write(text)
            async with asyncio.timeout(SOON):
                answer = await reader.read()
        return [int(part.split(b" ")[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]

    async def serve(self, *services: str) -> list[Raw]:
        """A backend for each Service, and the Service's endpoints."""
        ports = {service: await self._stack.enter_async_context(backend(service)) for service in services}
        return [endpoint_slice(service, "127.0.0.1", port=port) for service, port in ports.items()]

    async def holds(self) -> dict[Entry, str]:
        """All entries of nginx, by their digests."""
        return (await self.admin.digest())[1]

    def should_hold(self) -> dict[Entry, str]:
        """The digests that nginx should have."""
        return {entry: str(digest(value)) for entry, value in self.wanted.entries.items()}

    def _message(self, raw: Raw, *, gone: bool = False) -> Any:
        self._sequence += 1
        return message(raw, self._sequence, gone=gone)


@asynccontextmanager
async def edge(
    directory: Path, installation: Installation = THIS_MACHINE, *, contained: bool = False, **changes: Any
) -> AsyncIterator[EdgeWorld]:
    """An nginx that serves nothing yet but the class `nginx`; `contained` is kept running as in its container."""
    chosen = settings(directory, **changes)
    prepare(directory)
    configuration = await Configuration.of(chosen.edge(), installation.program("nginx"), await ground_of(installation))
    async with AsyncExitStack() as stack, Admin(chosen.admin_socket) as admin, asyncio.TaskGroup() as group:
        world = EdgeWorld(chosen, admin, stack, configuration, installation, contained=contained)
        await world.configurator.begin()
        world.keeping = group.create_task(world.configurator.keep(admin))
        tasks = [
            world.keeping,
            group.create_task(world.nginx.run()),
            group.create_task(world.applier.run()),
            group.create_task(world.files.run()),
        ]
        world.applier.release()
        world.files.release()
        try:
            await world.put(ingress_class())
            yield world
        finally:
            await world.nginx.stop(5)
            for task in tasks:
                task.cancel()
            world.journal.close()
    warnings = world.warnings()
    assert not warnings, f"nginx warns: {warnings}"
