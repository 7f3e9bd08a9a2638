"""Configure: makes nginx have what the operator's ConfigMap says, and keeps what it said when nginx had it last.

A ConfigMap that cannot be is refused as a whole: each fault is told, and what was in force stays so, also over a restart of ours, since it
is kept on disk. A disk that takes no more leaves nginx what it has; that is told, and tried again. Routes, endpoints and certificates wait
for none of it.
"""

import asyncio
import json
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from common.backoff import Backoff
from common.contracts.objects import ConfigMap
from common.contracts.problems import Problem
from common.process import atomic_write
from common.tries import Tries
from nginx_config_renderer import authorities, ports
from nginx_config_renderer.admin import Admin
from nginx_config_renderer.locations import SecureLocation
from nginx_config_renderer.nginx import Configuration
from nginx_config_renderer.option_keys import TEMPLATE_KEY, defaults, halves, read
from nginx_config_renderer.options import Options
from nginx_config_renderer.policy import Policy
from nginx_config_renderer.streams import Listener
from nginx_config_renderer.trial import BadConfigurationError

_IN_FORCE_WITHIN: Final = 15.0  # seconds
_AGAIN: Final = Backoff(first=1, most=30, factor=2, jitter=0.5)
_KEPT_MODE: Final = 0o600

log = structlog.get_logger(__name__)


class Takes(Protocol):
    """Who is told what became of the ConfigMap."""

    def accept(self, usual: Policy | None, refused: tuple[Problem, ...]) -> None:
        """Takes the policy of everybody, unless that stays as it is, and what is wrong."""
        ...


class UnwrittenError(BadConfigurationError):
    """The disk takes no new configuration; the text says which file, why, and the mend."""


class Configurator:
    """The way from the ConfigMap to nginx. `base` is what holds without one; `kept` the file of the last good one."""

    def __init__(self, nginx: Configuration, base: Options, kept: Path) -> None:
        self._nginx = nginx
        self._kept_listeners = kept.with_name("listeners.json")
        self._kept_secured = kept.with_name("secured.json")
        self._authorities = kept.with_name("authorities")
        self._lock = asyncio.Lock()  # one configuration at a time
        self._base = base
        self._kept = kept
        self._options = base
        self._to_keep: dict[Path, bytes] = {}
        self._news = asyncio.Event()
        self.unwritten: str | None = None
        self.unkept: str | None = None

    @property
    def stale(self) -> str | None:
        """Why nginx has an older configuration than it should, in a sentence."""
        return self.unwritten or self._nginx.trouble

    @property
    def settled(self) -> bool:
        """Whether what nginx has is kept."""
        return not self._to_keep

    async def begin(self) -> None:
        """Installs what was last good, or what holds without a ConfigMap. Raises BadConfigurationError if not even that is taken, and
        UnwrittenError if it cannot be written and nginx has none yet.
        """
        options, listeners = defaults(self._last_good(), self._base), ports.load(self._kept_listeners)
        secured = authorities.load(self._kept_secured, self._authorities)
        try:
            await self._install(options, listeners=listeners, secured=secured)
        except UnwrittenError as error:
            if not self._nginx.exists:
                raise
            log.error("configuration.unwritten", reason=str(error))
        except BadConfigurationError as error:
            if options == self._base and not listeners and not secured:
                raise
            log.error("configuration.unkept", reason=str(error))
            options = self._base
            await self._install(options, listeners=(), secured=())
        self._options = options

    async def take(self, found: ConfigMap | None, whom: Takes) -> None:
        """Makes nginx have what the ConfigMap says now. While it is `unwritten` it is to be tried again."""
        options, problems = read(found, self._base) if found is not None else (self._base, ())
        if not problems:
            async with self._lock:
                problems = await self._try(found, options)
        whom.accept(self._options.usual, problems)

    async def _try(self, found: ConfigMap | None, options: Options) -> tuple[Problem, ...]:
        try:
            await self._install(options, "template" if options.template else "configmap")
        except BadConfigurationError as error:
            log.error("configuration.refused", reason=str(error))
            return (_refused(found, options, error),) if found is not None else ()
        self._options = options
        self._keep(self._kept, json.dumps(dict(found.data) if found is not None else {}).encode())
        return halves(found, options, passes=self._nginx.passes) if found is not None else ()

    async def _install(
        self,
        options: Options,
        cause: str = "configuration",
        *,
        listeners: tuple[Listener, ...] | None = None,
        secured: tuple[SecureLocation, ...] | None = None,
    ) -> None:
        """As the configuration itself does. Raises BadConfigurationError, of which one kind is for the disk."""
        try:
            await self._nginx.install(options, cause, listeners=listeners, secured=secured)
        except OSError as error:
            self.unwritten = (
                f"a new configuration of nginx cannot be written to {error.filename or tempfile.gettempdir()}: {error.strerror}; the one "
                "before stays in force until there is room"
            )
            raise UnwrittenError(self.unwritten) from error
        except BadConfigurationError:
            self.unwritten = None
            raise
        self.unwritten = None

    def _keep(self, path: Path, data: bytes) -> None:
        """To be kept as soon as nginx has it."""
        self._to_keep[path] = data
        self._news.set()

    async def keep(self, admin: Admin) -> None:
        """Makes a running nginx have what was installed, and keeps what it has on the disk, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nginx.keep(admin))
            group.create_task(self._remember())

    async def _remember(self) -> None:
        """For a renderer that starts while the bus is away."""
        tries = Tries(_AGAIN)
        while True:
            await self._news.wait()
            await self._nginx.in_force()
            async with self._lock:
                if not self._nginx.is_in_force:  # there is a newer one
                    continue
                try:
                    self._write_kept()
                    self.unkept = None
                    tries.done()
                    continue
                except OSError as error:
                    self._not_kept(error)
            await tries.pause()

    def _write_kept(self) -> None:
        for path, data in sorted(self._to_keep.items()):
            if not path.is_file() or path.read_bytes() != data:
                atomic_write(path, data, _KEPT_MODE)
            del self._to_keep[path]
        authorities.sweep(self._authorities, self._nginx.secured)
        self._news.clear()

    def _not_kept(self, error: OSError) -> None:
        if self.unkept is None:
            log.error("configuration.not_kept", path=error.filename, reason=error.strerror)
        self.unkept = (
            f"what nginx is told cannot be kept in {self._kept.parent}: {error.strerror}; make room there: a renderer that starts while "
            "the bus is away would go back to older settings"
        )

    async def listen(self, wanted: Sequence[Listener]) -> Mapping[Listener, str]:
        """Makes nginx have `wanted` and no other listeners. Says which cannot be, and why; the others are had."""
        async with self._lock:
            have = self._nginx.listeners
            refused = {one: fault for one in wanted if (fault := self._fault(one, have)) is not None}
            good = tuple(one for one in wanted if one not in refused)
            if good == have:
                return refused
            try:
                await self._install(self._options, "ports", listeners=good)
            except BadConfigurationError as error:
                log.error("ports.refused", reason=str(error))
                return refused | {one: f"nginx does not take it: {error}" for one in good if one not in have}
            self._keep(self._kept_listeners, ports.dumped(good))
            return refused

    @property
    def secured(self) -> frozenset[str]:
        """The names of the locations for backends that must prove who they are, as nginx has them or gets them next."""
        return frozenset(one.name for one in self._nginx.secured)

    async def secure(self, wanted: Sequence[SecureLocation], texts: Mapping[str, str], *, keep: bool = False) -> str | None:
        """Makes nginx have `wanted` and no other locations for backends that must prove who they are, but for those that it has if these
        are to be kept, and comes back when it has them. `texts` are the bundles of authorities. Says why it cannot, if so: it has the old
        ones then.
        """
        async with self._lock:
            found = {one.name: one for one in (*(self._nginx.secured if keep else ()), *wanted)}
            wanted = tuple(found[name] for name in sorted(found))
            if wanted != self._nginx.secured:
                try:
                    authorities.put(self._authorities, texts)
                    await self._install(self._options, "authorities", secured=wanted)
                except (BadConfigurationError, OSError) as error:
                    log.error("authorities.refused", reason=str(error))
                    return f"nginx does not take the authorities of backends: {error}"
                self._keep(self._kept_secured, authorities.dumped(wanted))
        try:
            async with asyncio.timeout(_IN_FORCE_WITHIN):
                await self._nginx.in_force()
        except TimeoutError:
            return "nginx does not have the authorities of backends yet"
        return None

    def _fault(self, listener: Listener, have: Sequence[Listener]) -> str | None:
        if self._nginx.unable:
            return self._nginx.unable
        held = any((one.protocol, one.port) == (listener.protocol, listener.port) for one in have)
        if held or listener.port not in ports.taken(listener.protocol):
            return None
        return f"another program of {socket.gethostname()} has {listener}; stop it, or choose another port"

    def _last_good(self) -> Mapping[str, str]:
        try:
            data = json.loads(self._kept.read_text())
        except (OSError, ValueError):
            return {}
        return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}


def _refused(found: ConfigMap, options: Options, error: BadConfigurationError) -> Problem:
    if isinstance(error, UnwrittenError):
        return Problem(found.ref, "Unwritten", str(error))
    if options.template:
        return Problem(found.ref, "BadTemplate", f"key {TEMPLATE_KEY}: {error}; the last good configuration stays in force")
    return Problem(found.ref, "BadSetting", f"nginx does not take it: {error}; the last good configuration stays in force")
