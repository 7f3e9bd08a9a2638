"""Configure: makes nginx have what the operator's ConfigMap says, and keeps what it said when it was last good.

A ConfigMap that cannot be is refused as a whole: each fault is told, and what was in force stays so, also over a restart of ours, since the
last good one is kept on disk. Routes, endpoints and certificates do not wait for any of it.
"""

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from common.contracts.objects import ConfigMap
from common.contracts.problems import Problem
from common.process import atomic_write
from nginx_config_renderer import authorities, ports
from nginx_config_renderer.locations import SecureLocation
from nginx_config_renderer.nginx import Configuration
from nginx_config_renderer.option_keys import TEMPLATE_KEY, defaults, read
from nginx_config_renderer.options import Options
from nginx_config_renderer.policy import Policy
from nginx_config_renderer.streams import Listener
from nginx_config_renderer.trial import BadConfigurationError

_IN_FORCE_WITHIN: Final = 15.0  # seconds

log = structlog.get_logger(__name__)


class Takes(Protocol):
    """Who is told what became of the ConfigMap."""

    def accept(self, usual: Policy | None, refused: tuple[Problem, ...]) -> None:
        """Takes the policy of everybody, unless that stays as it is, and what is wrong."""
        ...


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

    async def begin(self) -> None:
        """Installs what was last good, or what holds without a ConfigMap. Raises BadConfigurationError if not even that is taken."""
        options, listeners = defaults(self._last_good(), self._base), ports.load(self._kept_listeners)
        secured = authorities.load(self._kept_secured, self._authorities)
        try:
            await self._nginx.install(options, listeners=listeners, secured=secured)
        except BadConfigurationError as error:
            if options == self._base and not listeners and not secured:
                raise
            log.error("configuration.unkept", reason=str(error))
            options = self._base
            await self._nginx.install(options, listeners=(), secured=())
        self._options = options

    async def take(self, found: ConfigMap | None, whom: Takes) -> None:
        """Makes nginx have what the ConfigMap says now."""
        options, problems = read(found, self._base) if found is not None else (self._base, ())
        if not problems:
            async with self._lock:
                problems = await self._try(found, options)
        if problems:
            whom.accept(self._options.usual, problems)
            return
        atomic_write(self._kept, json.dumps(dict(found.data) if found is not None else {}).encode(), 0o600)
        whom.accept(options.usual, ())

    async def _try(self, found: ConfigMap | None, options: Options) -> tuple[Problem, ...]:
        try:
            await self._nginx.install(options, "template" if options.template else "configmap")
        except BadConfigurationError as error:
            log.error("configuration.refused", reason=str(error))
            return (_refused(found, options, str(error)),) if found is not None else ()
        self._options = options
        return ()

    async def listen(self, wanted: Sequence[Listener]) -> Mapping[Listener, str]:
        """Makes nginx have `wanted` and no other listeners. Says which cannot be, and why; the others are had."""
        async with self._lock:
            have = self._nginx.listeners
            refused = {one: fault for one in wanted if (fault := self._fault(one, have)) is not None}
            good = tuple(one for one in wanted if one not in refused)
            if good == have:
                return refused
            try:
                await self._nginx.install(self._options, "ports", listeners=good)
            except BadConfigurationError as error:
                log.error("ports.refused", reason=str(error))
                return refused | {one: f"nginx does not take it: {error}" for one in good if one not in have}
            ports.save(self._kept_listeners, good)
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
                    await self._nginx.install(self._options, "authorities", secured=wanted)
                except (BadConfigurationError, OSError) as error:
                    log.error("authorities.refused", reason=str(error))
                    return f"nginx does not take the authorities of backends: {error}"
        try:
            async with asyncio.timeout(_IN_FORCE_WITHIN):
                await self._nginx.in_force()
        except TimeoutError:
            return "nginx does not have the authorities of backends yet"
        authorities.save(self._kept_secured, wanted)
        authorities.sweep(self._authorities, wanted)
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


def _refused(found: ConfigMap, options: Options, reason: str) -> Problem:
    if options.template:
        return Problem(found.ref, "BadTemplate", f"key {TEMPLATE_KEY}: {reason}; the last good configuration stays in force")
    return Problem(found.ref, "BadSetting", f"nginx does not take it: {reason}; the last good configuration stays in force")
