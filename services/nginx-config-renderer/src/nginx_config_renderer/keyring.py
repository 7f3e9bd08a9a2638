"""The keyring: keeps the key pairs that are needed, read from their Secrets.

It is level-triggered: it compares which versions of which Secrets are needed with what it has read, and reads the difference. A certificate
whose time comes to its end is told some weeks before, and is no key pair any more when it is over. What was read is held whatever the time
is: when the clock is set right, nothing needs to be read again.
"""

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from common.alarms import Alarm
from common.backoff import Backoff
from common.contracts.facts import Severity
from common.runtime.reports import Reports
from common.tries import Tries
from nginx_config_renderer import keypairs, metrics
from nginx_config_renderer.derive.certificates import Need
from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.model import PairKey
from nginx_config_renderer.secrets import SecretError, SecretSource

BACKOFF: Final = Backoff(first=0.2, most=15)
AT_A_TIME: Final = 8
LOOK: Final = 30.0  # seconds between two looks at the time
_PATIENCE: Final = 3  # tries that may fail before somebody is told
DAY: Final = 24 * 3600
_THRESHOLDS: Final[tuple[tuple[int, Severity], ...]] = ((1, "critical"), (7, "critical"), (21, "warning"))  # days that are left

log = structlog.get_logger(__name__)


class Wants(Protocol):
    """What the keyring needs of `nginx_config_renderer.follow.Intake`."""

    @property
    def needed(self) -> asyncio.Event:
        """Set when `needs` changed."""
        ...

    @property
    def complete(self) -> bool:
        """Whether these are all."""
        ...

    @property
    def needs(self) -> Mapping[PairKey, Need]:
        """The Secrets that must be read."""
        ...

    def learn(self, pair: KeyPair) -> None:
        """Takes a key pair."""
        ...

    def forget(self, key: PairKey) -> None:
        """Drops a key pair."""
        ...


@dataclass(slots=True)
class _Held:
    """A key pair as it was read, and what was made of it at the last look at the time."""

    version: str
    pair: KeyPair
    told: KeyPair


class Keyring:
    """The key pairs of one renderer."""

    def __init__(self, source: SecretSource, wants: Wants, reports: Reports, now: Callable[[], dt.datetime]) -> None:
        self._source = source
        self._wants = wants
        self._reports = reports
        self._now = now
        self._held: dict[PairKey, _Held] = {}

    async def run(self) -> None:
        """Keeps the key pairs until cancelled."""
        tries = Tries(BACKOFF)
        while True:
            self._wants.needed.clear()
            trouble = await self._once()
            self._look_at_the_time()
            if trouble is None:
                tries.done()
            pause = tries.delay() if trouble else LOOK
            if trouble is None or tries.failed > _PATIENCE:
                self._reports.alert("SecretUnread", "warning", trouble)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wants.needed.wait()

    async def _once(self) -> str | None:
        """Reads what is needed and not held. What could not be read, in a sentence."""
        needs = dict(self._wants.needs)
        for key in self._held.keys() - needs.keys():
            self._show_expiry(key, keypairs.absent(key.namespace, key.name, "not needed"))
            del self._held[key]
            self._wants.forget(key)
        stale = [key for key, need in sorted(needs.items()) if key not in self._held or self._held[key].version != need.version]
        gate = asyncio.Semaphore(AT_A_TIME)

        async def read(key: PairKey) -> str | None:
            async with gate:
                return await self._read(key, needs[key])

        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(read(key)) for key in stale]
        return next((failure for failure in (task.result() for task in reading) if failure), None)

    async def _read(self, key: PairKey, need: Need) -> str | None:
        try:
            data = await self._source.read(key.namespace, key.name) if need.version else None
        except SecretError as error:
            log.warning("secret.unread", secret=str(key), reason=str(error))
            return str(error)
        if data is None:
            pair = keypairs.absent(key.namespace, key.name, "does not exist; create it, of type kubernetes.io/tls")
        else:
            pair = keypairs.read(key.namespace, key.name, data)
        told = keypairs.at(pair, self._now().timestamp())
        self._held[key] = _Held(need.version, pair, told)
        self._show_expiry(key, pair)
        self._wants.learn(told)
        log.info("keypair.read", secret=str(key), algorithm=pair.algorithm, problem=told.problem or told.early)
        return None

    def _show_expiry(self, key: PairKey, pair: KeyPair) -> None:
        if pair.expires:
            metrics.EXPIRY.labels(key.namespace, key.name).set(pair.expires)
        else:
            with contextlib.suppress(KeyError):
                metrics.EXPIRY.remove(key.namespace, key.name)

    def _look_at_the_time(self) -> None:
        now = self._now().timestamp()
        ending: dict[str, Alarm] = {}
        for key, held in self._held.items():
            told = keypairs.at(held.pair, now)
            if told != held.told:
                held.told = told
                self._wants.learn(told)
                log.info("keypair.judged", secret=str(key), problem=told.problem or told.early)
            if (alarm := _alarm(key, told, now)) is not None:
                ending[_name(key)] = alarm
        if self._wants.complete:
            unread = {_name(key) for key in self._wants.needs.keys() - self._held.keys()}
            self._reports.alerts("CertificateExpiry", ending, unread)


def _alarm(key: PairKey, pair: KeyPair, now: float) -> Alarm | None:
    """The alert about a certificate whose days are counted."""
    left = (pair.expires - now) / DAY
    for days, severity in _THRESHOLDS:
        if pair.expires and left <= days:
            when = dt.datetime.fromtimestamp(pair.expires, dt.UTC)
            left_over = "a day" if days == 1 else f"{days} days"
            return Alarm(severity, f"the certificate of Secret {key} ends on {when:%Y-%m-%d}, in less than {left_over}; renew it")
    return None


def _name(key: PairKey) -> str:
    return f"{key.namespace}-{key.name}"
