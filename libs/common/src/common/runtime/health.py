"""Probes and metrics over HTTP: `/livez`, `/readyz`, `/metrics`.

`/livez` fails when the process cannot help itself any more (a restart mends it), `/readyz` while it cannot do its work (a restart would
not). Both name their checks as the API server does: `?verbose` lists them, a failing one is told with its reason.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str | None]
Source = Callable[[], Awaitable[str]]
_GRACE: Final = 1.0  # seconds that a probe in progress may take when the server ends


class Health:
    """The checks of one service. A check answers None for "well", or a sentence that says what is missing."""

    def __init__(self) -> None:
        self._ready: dict[str, Check] = {}
        self._live: dict[str, Check] = {}
        self._sources: list[Source] = []

    def ready_when(self, name: str, check: Check) -> None:
        """Adds a check to `/readyz`."""
        self._ready[name] = check

    def live_while(self, name: str, check: Check) -> None:
        """Adds a check to `/livez`."""
        self._live[name] = check

    def also_expose(self, source: Source) -> None:
        """Adds what `source` has at the moment to `/metrics`, in Prometheus' text format; it says nothing rather than to fail."""
        self._sources.append(source)

    def missing(self) -> dict[str, str]:
        """The checks of `/readyz` that fail, with their reasons."""
        return _failing(self._ready)

    @asynccontextmanager
    async def served(self, address: str) -> AsyncIterator[str]:
        """Answers probes at `address` while the block runs; yields the address with its real port."""
        application = web.Application()
        application.router.add_get("/livez", partial(_answer, name="livez", checks=self._live))
        application.router.add_get("/readyz", partial(_answer, name="readyz", checks=self._ready))
        application.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_GRACE)
        await runner.setup()
        try:
            site = _site(runner, address)
            await site.start()
            yield address if address.startswith("unix:") else "{}:{}".format(*runner.addresses[0][:2])
        finally:
            await runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        more = [await source() for source in self._sources]
        return web.Response(body=generate_latest() + "".join(more).encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _site(runner: web.AppRunner, address: str) -> web.BaseSite:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        path.unlink(missing_ok=True)  # left by a process that was killed
        return web.UnixSite(runner, str(path))
    host, _, port = address.rpartition(":")
    return web.TCPSite(runner, host.strip("[]"), int(port))


async def _answer(request: web.Request, name: str, checks: dict[str, Check]) -> web.Response:
    await asyncio.sleep(0)
    failing = _failing(checks)
    if not failing and "verbose" not in request.query:
        return web.Response(text="ok")
    lines = [f"[-]{check} failed: {failing[check]}" if check in failing else f"[+]{check} ok" for check in checks]
    lines.append(f"{name} check {'failed' if failing else 'passed'}")
    return web.Response(text="\n".join(lines) + "\n", status=503 if failing else 200)


def _failing(checks: dict[str, Check]) -> dict[str, str]:
    return {name: reason for name, check in checks.items() if (reason := check()) is not None}
