"""The stage of the demo: a Seaway on this machine, the sample application that it serves, and what people are told while things change."""

import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from common.process import Child
from common.runtime.signals import asked_to_stop
from seaway import events, replica
from seaway.demo import objects
from seaway.demo.backend import backend
from seaway.demo.story import StepFailed, Story
from seaway.local import Home, operator

MOVES: Final = 20
_READY_WITHIN: Final = 60.0  # seconds
_REJECTED_WITHIN: Final = 10.0
_GRACE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo happens. All of it is gone afterwards."""

    root: Path
    http: int
    https: int
    nats: int

    @property
    def manifests(self) -> Path:
        """The folder that Seaway follows."""
        return self.root / "manifests"

    @property
    def home(self) -> Home:
        """What Seaway keeps."""
        return Home(self.root / "data")

    def command(self) -> list[str]:
        """How Seaway is started."""
        where = ["--manifests", str(self.manifests), "--data", str(self.home.root)]
        ports = ["--http", str(self.http), "--https", str(self.https), "--nats-port", str(self.nats)]
        return [sys.executable, "-m", "seaway", "up", *where, *ports]


async def show(*, once: bool) -> int:
    """Tells the story. The exit code."""
    stopping = asked_to_stop()
    with tempfile.TemporaryDirectory(prefix="seaway-demo-") as directory:
        place = Place(Path(directory), free_port(8080), free_port(8443), free_port(0))
        place.root.chmod(0o711)  # nginx's own user passes through
        place.manifests.mkdir()
        async with AsyncExitStack() as stack:
            backends = {name: await stack.enter_async_context(backend(name)) for name in ("green", "blue", "red")}
            client = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
            try:
                async with seaway(place):
                    await tell(Story(place.manifests, place.http, client), backends, place)
                    if not once:
                        print(next_steps(place), flush=True)
                        await stopping.wait()
            except StepFailed as failure:
                print(f"\nThe demo failed: {failure}", file=sys.stderr)
                return 1
    return 0


@asynccontextmanager
async def seaway(place: Place) -> AsyncIterator[None]:
    """A Seaway while the block runs. Raises StepFailed if it does not come up, and ends the block if it goes away."""
    step("Starting a Seaway: every part is a process of its own, and all of them talk over one bus.")
    ready = asyncio.Event()

    def hear(line: str) -> None:
        print(f"     {line}", flush=True)
        if line.startswith("Ready"):
            ready.set()

    child = Child("seaway", place.command(), hear=hear)
    running = asyncio.create_task(child.run())
    try:
        async with asyncio.timeout(_READY_WITHIN):
            while not ready.is_set():
                if child.last_code is not None:
                    raise StepFailed(f"`seaway up` ended with exit code {child.last_code}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ready.wait(), 0.1)
        yield
    except TimeoutError:
        raise StepFailed(f"`seaway up` was not ready within {_READY_WITHIN:g} s") from None
    finally:
        in_time = await child.stop(_GRACE)
        await running
    if not in_time:
        raise StepFailed(f"`seaway up` did not end within {_GRACE:g} s")


async def tell(story: Story, backends: dict[str, int], place: Place) -> None:
    """The steps. Raises StepFailed."""
    first = {name: backends[name] for name in ("green", "blue")}
    step("A Service with two endpoints and an Ingress for it are put into the folder.")
    took = await story.serve(first)
    seen(f"curl http://{objects.HOST}:{place.http}/hello was answered with 200, {took * 1000:.1f} ms after the file was written,")
    seen(f"by the endpoints in turn: {', '.join(await story.answers(4))}")

    step(f"The endpoints change, {MOVES} times, as in a rollout.")
    other = {"red": backends["red"]}
    times = [await story.serve(other if number % 2 == 0 else first) for number in range(MOVES)]
    seen(
        f"the new endpoint answered {times[0] * 1000:.1f} ms after the file was written; of {MOVES} changes, "
        f"half took less than {statistics.median(times) * 1000:.1f} ms and the slowest {max(times) * 1000:.1f} ms"
    )
    seen(f"nginx was reloaded {await reloads(place)} times for it")

    step("Somebody adds an Ingress with a mistake.")
    await story.break_something()
    seen(await rejection(place))
    await story.others_live_on()
    seen("100 of 100 requests for the others were answered with 200 meanwhile")


async def rejection(place: Place) -> str:
    """The sentence on the bus about the Ingress with the mistake."""
    try:
        async with asyncio.timeout(_REJECTED_WITHIN), replica.reach(operator(place.home.root, None, None)) as bus:
            async for said in events.facts(bus, watch=True):
                if said.what == "rejected":
                    return f"{said.service} says: {said.sentence}"
    except TimeoutError:
        pass
    raise StepFailed(f"nobody rejected the bad Ingress within {_REJECTED_WITHIN:g} s")


async def reloads(place: Place) -> int:
    """How often nginx was reloaded, as the renderer counts it."""
    connector = aiohttp.UnixConnector(str(place.home.run / "nginx-config-renderer"))
    async with aiohttp.ClientSession(connector=connector) as client, client.get("http://renderer/metrics") as response:
        lines = (await response.text()).splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("seaway_edge_reloads_total{")))


def next_steps(place: Place) -> str:
    """What a person may try now."""
    data = f"--data {place.home.root}"
    return f"""
Try it:
  curl http://{objects.HOST}:{place.http}/hello             (or in a browser)
  edit {place.manifests}/application.yaml, and ask again
  .venv/bin/seaway state {data}
  .venv/bin/seaway state get ingresses {objects.NAMESPACE} web {data}
  .venv/bin/seaway events --watch {data}
  kill -9 the nginx master, a worker, nats-server: `pgrep -af 'nginx|nats-server'`

A cluster of your own:     .venv/bin/seaway up --kubeconfig ~/.kube/config
A whole one to play with:  make cluster

Ctrl-C ends the demo and removes {place.root}."""


def step(sentence: str) -> None:
    """What happens now."""
    print(f"\n▸ {sentence}", flush=True)


def seen(sentence: str) -> None:
    """What came of it."""
    print(f"  ✓ {sentence}", flush=True)


def free_port(wanted: int) -> int:
    """`wanted` if nobody has it, else any that is free."""
    for port in (wanted, 0):
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("", port))
                return int(probe.getsockname()[1])
    raise StepFailed("this machine has no free port")
