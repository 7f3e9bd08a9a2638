"""The sample application of the demo: an HTTP server that says who it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    """Serves on a free port of the loopback address while the block runs; yields the port."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"backend": name, "method": request.method, "path": request.path_qs, "host": request.host})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
