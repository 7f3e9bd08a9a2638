"""A watcher as a process of its own between a real API server and a real bus, and the one question that matters: are they equal?"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.bus.follower import Follower
from common.bus.nats import connect
from common.bus.protocol import Message
from common.bus.settings import BusSettings
from common.bus.streams import STATE
from common.codec import decode
from common.contracts.objects import MODELS
from common.contracts.refs import ObjectRef
from common.contracts.state import ObjectApplied, SyncMarker, read_marker, read_state
from common.contracts.subjects import parse_state
from common.kube.errors import KubeError
from common.kube.session import KubeSession
from common.runtime import probe
from common.snapshot import Replaced
from common.testing import wait_until
from common.testing.kubernetes import KubeApi
from common.testing.nats import NatsServer
from watcher.projection import applied

Content = dict[ObjectRef, tuple[str, str]]  # uid and digest
SOON = 30.0


class WatcherProcess:
    """One watcher."""

    def __init__(self, directory: Path, name: str, api: KubeApi, nats: NatsServer, **settings: str) -> None:
        self.name = name
        self._probes = directory / name
        self._log = directory / f"{name}.log"
        given = {
            "KUBECONFIG": str(api.kubeconfig),
            "INSTANCE": name,
            "BUS__URL": nats.url,
            "BUS__REQUEST_TIMEOUT": "1",
            "BUS__WATCH_INTERVAL": "2",
            "PROBES": f"unix:{self._probes}",
            "LEASE_NAME": "",
            "MARKER_INTERVAL": "1",
            **settings,
        }
        self._environment = os.environ | {f"SEAWAY_{key}": value for key, value in given.items()}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        assert self._process is not None
        return self._process.returncode

    async def start(self) -> None:
        """Starts it, again too, and does not wait."""
        with self._log.open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "watcher"]
            self._process = await asyncio.create_subprocess_exec(*command, env=self._environment, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; the exit code."""
        if self.code is None:
            self.send(number)
        assert self._process is not None
        async with asyncio.timeout(SOON):
            return await self._process.wait()

    async def complaint(self) -> str | None:
        """Why it is not ready; None if it is."""
        return await asyncio.to_thread(probe.ask, f"unix:{self._probes}", "readyz?verbose")

    async def ready(self) -> None:
        """Waits until it is ready."""

        async def there() -> bool:
            if self.code is not None:
                raise AssertionError(f"{self.name} ended with {self.code}:\n{self.log[-3000:]}")
            return await self.complaint() is None

        await wait_until(there, within=SOON, every=0.1)


@asynccontextmanager
async def watcher(directory: Path, name: str, api: KubeApi, nats: NatsServer, **settings: str) -> AsyncIterator[WatcherProcess]:
    """A watcher that has begun to start; it is gone at the end."""
    process = WatcherProcess(directory, name, api, nats, **settings)
    await process.start()
    try:
        yield process
    finally:
        await process.end(signal.SIGKILL)


def kubeconfig_of(api: KubeApi, token: str) -> str:
    """A kubeconfig of whoever has that token."""
    return json.dumps(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": api.url, "certificate-authority": str(api.ca_file)}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
    )


async def messages(nats: NatsServer | BusSettings) -> tuple[Message, ...]:
    """All that the stream of state holds."""
    bus = await connect(nats if isinstance(nats, BusSettings) else BusSettings(url=nats.url, patience=SOON))
    try:
        async with Follower(bus, STATE.name, ("state.v1.>", "sync.v1.>"), name="test") as follower:
            async for update in follower:
                if isinstance(update, Replaced):
                    return tuple(update.messages)
    finally:
        await bus.close()
    raise AssertionError("a follower never ends by itself")


async def on_the_bus(nats: NatsServer | BusSettings) -> Content:
    """The objects of the replica."""
    return dict(_content(await messages(nats)))


def _content(stored: tuple[Message, ...]) -> Iterator[tuple[ObjectRef, tuple[str, str]]]:
    for message in stored:
        if message.subject.startswith("state."):
            ref = parse_state(message.subject).ref
            state = read_state(ref, decode(message.headers, message.body))
            if isinstance(state, ObjectApplied):
                yield ref, (state.object.metadata.uid, state.digest)


async def markers(nats: NatsServer) -> dict[str, SyncMarker]:
    """The newest marker of each resource."""
    stored = [message for message in await messages(nats) if message.subject.startswith("sync.")]
    return {message.subject.rpartition(".")[2]: read_marker(decode(message.headers, message.body)) for message in stored}


async def in_the_cluster(kube: KubeSession) -> Content:
    """The objects of the API server, as they should stand on the bus."""
    content: Content = {}
    for model in MODELS:
        for raw in (await kube.list(model.resource)).items:
            state = applied(model, raw)
            assert isinstance(state, ObjectApplied)
            content[state.ref] = (state.uid, state.digest)
    return content


async def become_equal(kube: KubeSession, nats: NatsServer | BusSettings, within: float = SOON) -> None:
    """Waits until the bus holds what the API server holds."""
    last: list[Any] = [{}, {}]

    async def equal() -> bool:
        last[:] = [await in_the_cluster(kube), await on_the_bus(nats)]
        return bool(last[0] == last[1])

    try:
        await wait_until(equal, within=within, every=0.1)
    except (AssertionError, KubeError) as error:
        differing = sorted(map(str, {ref for ref, _ in last[0].items() ^ last[1].items()}))
        raise AssertionError(f"the replica did not become equal ({error}); differing: {differing}") from error
