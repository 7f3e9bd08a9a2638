"""nginx's configuration: written only when nginx says that it is good, and in force only when nginx says so.

The renderer is not nginx's parent: it writes nginx.conf where nginx's starter looks for it, and asks a running nginx to reload through the
admin socket. A trial does not see everything: another program may have a port. So a configuration that nginx does not take leaves the old
one in force, and in its file too, with which nginx can start again; the new one is told as refused, and tried again from time to time.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from common.backoff import Backoff
from common.process import atomic_write, validate
from common.tries import Tries
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
_RETRIES: Final = Backoff(first=5, most=300, factor=2, jitter=0.5)
_ROTATES: Final = (1, 23, 2)  # the first nginx that makes keys of tickets by itself, and changes them
_MEND: Final = "install the Debian packages libnginx-mod-stream and libnginx-mod-stream-js"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """A text of nginx.conf, what marks it, and why it was written."""

    text: str = ""
    fingerprint: str = ""
    cause: str = "configuration"


class Configuration:
    """The configuration of one nginx: the last one that was found good in a trial, which is wanted, and the last one that nginx had."""

    def __init__(self, edge: Edge, program: str, ground: Ground) -> None:
        self._edge = edge
        self._program = program
        self._ground = ground
        self._target = Path(edge.state) / "nginx.conf"
        self._wanted = Written()
        self._found = _read(self._target)  # nginx may have it, which it is asked
        self._had = Written()
        self._refused = ""
        self._tries = Tries(_RETRIES)
        self._again = 0.0
        self.trouble: str | None = None
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
    def passes(self) -> bool:
        """Whether it passes connections on unopened."""
        return self._edge.passes

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
        return self._target.is_file()

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
        wanted = Written(text, fingerprint_of(text), cause)
        if text != self._wanted.text or not self._target.is_file():
            if _read(self._target).text != text:
                await test(edge, options, self._program, self._ground)
                copy_program(Path(edge.program))
                self._write(wanted)
            self._wanted = wanted
        self._edge = edge
        self._in_force.clear()
        self._changed.set()

    async def keep(self, admin: Admin) -> None:
        """Makes a running nginx have this configuration, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._look(admin)
            except OSError as error:
                self._fail(f"{error.filename} cannot be written: {error.strerror}; make room there")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()

    async def _look(self, admin: Admin) -> None:
        wanted, there = self._wanted, await _fingerprint(admin)
        if not wanted.text:
            return None
        if there == wanted.fingerprint:
            return self._has(wanted)
        if there == self._found.fingerprint and not self._had.text:
            self._had = self._found
        if there is None and self._had.text in {"", wanted.text}:
            return None  # nginx is away; the tables' keeper says so
        if wanted.fingerprint != self._refused:
            self._tries.done()
        elif asyncio.get_running_loop().time() < self._again:
            return None
        self._write(wanted)
        if await self._taken(admin, wanted):
            self._has(wanted)
        elif wanted is self._wanted:
            self._refuse(wanted)
        return None

    async def _taken(self, admin: Admin, wanted: Written) -> bool:
        """Whether nginx has it soon. One that runs is told to read it."""
        ends, asked = asyncio.get_running_loop().time() + _TAKEN_WITHIN, False
        while wanted is self._wanted and asyncio.get_running_loop().time() < ends:
            there = await _fingerprint(admin)
            if there == wanted.fingerprint:
                if asked:
                    metrics.RELOADS.labels(wanted.cause).inc()
                    log.info("configuration.reloaded", fingerprint=wanted.fingerprint, cause=wanted.cause)
                return True
            if there is not None and not asked:
                with contextlib.suppress(AdminError):
                    await admin.reload()
                    asked = True
            await asyncio.sleep(0.05)
        return False

    def _has(self, written: Written) -> None:
        self._had = written
        if written is self._wanted:
            self.trouble, self._refused = None, ""
            self._in_force.set()

    def _refuse(self, wanted: Written) -> None:
        self._refused = wanted.fingerprint
        self._fail(
            f"nginx goes on with an older configuration: it did not take the new one ({wanted.cause}) within {_TAKEN_WITHIN:g} s, although "
            "that passed its trial; its error log says why, as a port that another program has: stop that, or take the change back"
        )
        if self._had.text:
            self._write(self._had)

    def _fail(self, reason: str) -> None:
        self._again = asyncio.get_running_loop().time() + self._tries.delay()
        if self.trouble != reason:
            log.error("configuration.refused", fingerprint=self._wanted.fingerprint, cause=self._wanted.cause, reason=reason)
        self.trouble = reason

    def _write(self, written: Written) -> None:
        """Puts it where nginx reads it."""
        if _read(self._target).text != written.text:
            atomic_write(self._target, written.text.encode(), 0o644)
            log.info("configuration.written", path=str(self._target), cause=written.cause)


def _read(target: Path) -> Written:
    """What is there."""
    with contextlib.suppress(FileNotFoundError):
        text = target.read_text()
        return Written(text, fingerprint_of(text))
    return Written()


async def _fingerprint(admin: Admin) -> str | None:
    """What marks the configuration that nginx has; None if nginx is away."""
    try:
        return (await admin.status()).fingerprint
    except AdminError:
        return None


async def version(program: str) -> tuple[tuple[int, ...], bool]:
    """The version of nginx, and whether it speaks HTTP/3. Raises BadConfigurationError if it does not say one."""
    outcome = await validate([program, "-V"], timeout=_DEADLINE)
    found = re.search(r"nginx/(\d+(?:\.\d+)*)", outcome.output)
    if found is None:
        raise BadConfigurationError(f"{program} -V says no version: {outcome.output.strip()[:200]}")
    return tuple(int(number) for number in found[1].split(".")), "--with-http_v3_module" in outcome.output
