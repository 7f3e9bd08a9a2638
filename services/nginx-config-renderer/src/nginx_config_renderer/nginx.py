"""nginx's configuration: written only when nginx says that it is good, and in force only when nginx says so.

The renderer is not nginx's parent: it writes nginx.conf where nginx's starter looks for it, and asks a running nginx to reload through the
admin socket. A configuration that nginx does not take leaves the old one in force.
"""

import asyncio
import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from common.process import atomic_write, validate
from nginx_config_renderer import metrics
from nginx_config_renderer.admin import Admin, AdminError
from nginx_config_renderer.configuration import Edge
from nginx_config_renderer.contract import fingerprint_of
from nginx_config_renderer.default_certificate import ensure_certificate
from nginx_config_renderer.locations import SecureLocation
from nginx_config_renderer.options import Options
from nginx_config_renderer.program import copy_program
from nginx_config_renderer.streams import Listener
from nginx_config_renderer.trial import BadConfigurationError, Ground, find_ground, test, text_of

_DEADLINE: Final = 30.0
_TAKEN_WITHIN: Final = 10.0  # seconds for a reload to show
_LOOK: Final = 1.0
_ROTATES: Final = (1, 23, 2)  # the first nginx that makes keys of tickets by itself, and changes them
_MEND: Final = "install the Debian packages libnginx-mod-stream and libnginx-mod-stream-js"

log = structlog.get_logger(__name__)


class Configuration:
    """The configuration of one nginx: the last one that was found good."""

    def __init__(self, edge: Edge, program: str, ground: Ground) -> None:
        self._edge = edge
        self._program = program
        self._ground = ground
        self._fingerprint = ""
        self._cause = "configuration"
        self._changed = asyncio.Event()
        self._in_force = asyncio.Event()

    @classmethod
    async def of(cls, edge: Edge, program: str, ground: Ground | None = None) -> "Configuration":
        """For that nginx, tried on `ground`, or on the best that this machine permits. Raises BadConfigurationError if it does not say its
        version, or cannot pass connections on where it must.
        """
        ensure_certificate(Path(edge.certificate), Path(edge.certificate_key), Path(edge.run))
        number, quic = await version(program)
        made = cls(replace(edge, nginx=number, quic=quic), program, ground or await find_ground())
        if edge.passes and made.unable:
            raise BadConfigurationError(made.unable)
        return made

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The operator's ports that are in it."""
        return self._edge.listeners

    @property
    def has_http3(self) -> bool:
        """Whether this nginx can speak HTTP/3."""
        return self._edge.quic

    @property
    def unable(self) -> str | None:
        """Why this nginx can have none, in a sentence."""
        missing = [module for module in self._edge.stream_modules if not Path(module).exists()]
        return f"nginx's stream modules are missing ({', '.join(missing)}); {_MEND}" if missing else None

    @property
    def secured(self) -> tuple[SecureLocation, ...]:
        """The locations in it for backends that must prove who they are."""
        return self._edge.secured

    @property
    def exists(self) -> bool:
        """Whether there is one that nginx can start with, of a renderer before us at least."""
        return (Path(self._edge.state) / "nginx.conf").is_file()

    @property
    def is_in_force(self) -> bool:
        """Whether nginx has it."""
        return self._in_force.is_set()

    async def in_force(self) -> None:
        """Comes back when nginx has it."""
        await self._in_force.wait()

    async def install(
        self,
        options: Options,
        cause: str = "configuration",
        *,
        listeners: tuple[Listener, ...] | None = None,
        secured: tuple[SecureLocation, ...] | None = None,
    ) -> None:
        """Puts nginx.conf and the program in their place if they are good. Raises BadConfigurationError. Listeners and locations stay as
        they are unless others are given.
        """
        if options.ssl_session_tickets and self._edge.nginx < _ROTATES:
            number = ".".join(map(str, self._edge.nginx))
            raise BadConfigurationError(f"nginx {number} does not change the keys of tickets; leave ssl-session-tickets off")
        edge = replace(
            self._edge,
            listeners=self._edge.listeners if listeners is None else listeners,
            secured=self._edge.secured if secured is None else secured,
        )
        text = await text_of(edge, options, self._ground)
        target = Path(edge.state) / "nginx.conf"
        if not target.is_file() or target.read_text() != text:
            await test(edge, options, self._program, self._ground)
            copy_program(Path(edge.program))
            atomic_write(target, text.encode(), 0o644)
            log.info("configuration.written", path=str(target), cause=cause)
        self._edge = edge
        self._fingerprint, self._cause = fingerprint_of(text), cause
        self._in_force.clear()
        self._changed.set()

    async def keep(self, admin: Admin) -> None:
        """Makes a running nginx have this configuration, until cancelled. One that refuses it is asked again when either changes."""
        refused: tuple[str, str] | None = None
        while True:
            self._changed.clear()
            wanted = self._fingerprint
            try:
                status = await admin.status()
                if status.fingerprint != wanted and (status.fingerprint, wanted) != refused:
                    refused = None if await self._reload(admin, wanted) else (status.fingerprint, wanted)
                    self._changed.set()  # to look once more
                elif status.fingerprint == wanted == self._fingerprint:
                    self._in_force.set()
            except AdminError:
                pass  # nginx is away; the tables' keeper says so
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()

    async def _reload(self, admin: Admin, wanted: str) -> bool:
        metrics.RELOADS.labels(self._cause).inc()
        await admin.reload()
        taken = await _taken(admin, wanted)
        tell = log.info if taken else log.error
        tell("configuration.reloaded" if taken else "configuration.refused", fingerprint=wanted, cause=self._cause)
        return taken


async def version(program: str) -> tuple[tuple[int, ...], bool]:
    """The version of nginx, and whether it speaks HTTP/3. Raises BadConfigurationError if it does not say one."""
    outcome = await validate([program, "-V"], timeout=_DEADLINE)
    found = re.search(r"nginx/(\d+(?:\.\d+)*)", outcome.output)
    if found is None:
        raise BadConfigurationError(f"{program} -V says no version: {outcome.output.strip()[:200]}")
    return tuple(int(number) for number in found[1].split(".")), "--with-http_v3_module" in outcome.output


async def _taken(admin: Admin, fingerprint: str) -> bool:
    ends = asyncio.get_running_loop().time() + _TAKEN_WITHIN
    while asyncio.get_running_loop().time() < ends:
        if (await admin.status()).fingerprint == fingerprint:
            return True
        await asyncio.sleep(0.05)
    return False
