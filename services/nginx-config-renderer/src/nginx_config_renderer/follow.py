"""Follow: what comes from the bus becomes what nginx should hold.

nginx is left alone until the replica is known to be complete, which is when each followed resource has its sync marker. So a bus that was
lost, and is filled again by and by, never takes a route away. When a marker does not agree with our replica, the replica is taken anew.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

from common.bus.follower import Follower, Update
from common.bus.protocol import Bus
from common.bus.streams import STATE
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from common.runtime.following import Agreement, replica_filters
from common.runtime.reports import Reports
from common.snapshot import Replaced
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.configure import Configurator
from nginx_config_renderer.derive.certificates import Need
from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.model import IngressKey, PairKey
from nginx_config_renderer.policy import Policy
from nginx_config_renderer.resolved import Resolved
from nginx_config_renderer.status import Unshown
from nginx_config_renderer.stream_files import StreamFiles
from nginx_config_renderer.streams import Listener
from nginx_config_renderer.wanted import FOLLOWED, News, Wanted

_AGAIN: Final = 10.0  # seconds until what could not be is tried again: a port that another program has, a disk that is full


def follower(bus: Bus, cluster: str, configmaps: Sequence[ObjectRef]) -> Follower:
    """All that the renderer reads. Of ConfigMaps those that the settings name: others may be many and large."""
    return Follower(bus, STATE.name, replica_filters(cluster, FOLLOWED, configmaps), name="nginx-config-renderer")


class Intake:
    """Everything that changes what nginx should hold comes through here. `needed` is set when other Secrets are needed than before,
    `named` when other names are, `options` when the operator's ConfigMap may be another, `listeners` when other ports are to be open,
    `secured` when other backends must prove who they are, `problems` when there are other problems, and so is `complaints`; `news` when
    Ingresses are different, those that are `unshown`.
    """

    def __init__(self, wanted: Wanted, applier: Applier, files: StreamFiles, reports: Reports) -> None:
        self.needed = asyncio.Event()
        self.named = asyncio.Event()
        self.news = asyncio.Event()
        self.unshown = Unshown()
        self.problems = asyncio.Event()
        self.complaints = asyncio.Event()
        self.options = asyncio.Event()
        self.secured = asyncio.Event()
        self._wanted = wanted
        self._applier = applier
        self._files = files
        self._reports = reports
        self._agreement = Agreement(reports)
        self._options_known = False
        self._streams_known = False
        self._secure_later = False
        self.listeners = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether all that the cluster has is known, so that what is not there is not there."""
        return not self._wanted.awaited

    @property
    def needs(self) -> Mapping[PairKey, Need]:
        """The Secrets whose data must be read."""
        return self._wanted.needs

    @property
    def names(self) -> frozenset[str]:
        """The names that must be looked up."""
        return self._wanted.names

    def resolve(self, found: Resolved) -> None:
        """Takes what a name means."""
        self._hand_on(self._wanted.resolve(found))

    def unname(self, name: str) -> None:
        """Drops a name."""
        self._hand_on(self._wanted.unname(name))

    def learn(self, pair: KeyPair) -> None:
        """Takes a key pair."""
        self._hand_on(self._wanted.learn(pair))

    def forget(self, key: PairKey) -> None:
        """Drops a key pair."""
        self._hand_on(self._wanted.forget(key))

    def trip(self, key: IngressKey, reasons: Mapping[str, str]) -> None:
        """Takes what this edge found out about an Ingress with a stand-by Service."""
        self._hand_on(self._wanted.trip(key, reasons))

    def accept(self, usual: Policy | None, refused: tuple[Problem, ...]) -> None:
        """Takes what became of the operator's ConfigMap."""
        self._hand_on(self._wanted.accept(usual, refused))

    async def configure(self, configurator: Configurator) -> None:
        """Hands each state of the ConfigMap on, until cancelled. What the disk did not take is tried again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if self._options_known and configurator.unwritten else None):
                    await self.options.wait()
            self.options.clear()
            await configurator.take(self._wanted.options, self)

    async def listen(self, configurator: Configurator) -> None:
        """Makes nginx open the ports that are asked for, until cancelled. Those that cannot be are tried again."""
        refused: Mapping[Listener, str] = {}
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if refused or configurator.unwritten else None):
                    await self.listeners.wait()
            self.listeners.clear()
            refused = await configurator.listen(self._wanted.entering.listeners)
            if self._wanted.entering.refuse(refused):
                self._complain()

    async def secure(self, configurator: Configurator) -> None:
        """Makes nginx able to hold backends to what they must prove, until cancelled. What it cannot do is tried again."""
        self._hand_on(self._wanted.install(configurator.secured))
        trouble: str | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if trouble else None):
                    await self.secured.wait()
            self.secured.clear()
            self._secure_later = bool(self._wanted.awaited)
            if self._secure_later:
                continue
            keep = bool(self._wanted.unread)  # what nobody has read yet may need what nginx has
            trouble = await configurator.secure(self._wanted.secured, self._wanted.authorities, keep=keep)
            self._reports.alert("AuthoritiesRefused", "critical", trouble)
            if trouble is None:
                self._hand_on(self._wanted.install(configurator.secured))

    async def follow(self, bus: Bus, cluster: str, configmaps: Sequence[ObjectRef]) -> None:
        """Takes what the bus has, until cancelled."""
        while True:
            async with follower(bus, cluster, configmaps) as updates:
                async for update in updates:
                    news = self._read(update)
                    self._applier.ledger.note(news.sightings, live=not isinstance(update, Replaced))
                    self._hand_on(news)
                    self._open(news)
                    if self._wanted.awaited:
                        self._applier.hold()
                    else:
                        self._applier.release()
                    if not self._agreement.holds(news.comparisons):
                        break

    def _read(self, update: Update) -> News:
        if isinstance(update, Replaced):
            return self._wanted.replace(update.messages, update.tombstones)
        return self._wanted.change(update.messages)

    def _open(self, news: News) -> None:
        """Streams, which need to know of ConfigMaps too."""
        if not self._wanted.streams_known:
            self._files.hold()
            return
        if not self._streams_known or news.streams.listeners:
            self.listeners.set()
        if not self._streams_known or self._secure_later:
            self._streams_known, self._secure_later = True, False
            self.secured.set()
            self.needed.set()
            self.problems.set()  # or that there are none
        self._files.release()

    def _hand_on(self, news: News) -> None:
        self.unshown.add(news.ingresses)
        if news.classes:
            self.unshown.add_all()
        if news.ingresses or news.classes:
            self.news.set()
        self._applier.want(news.entries)
        self._files.want(news.streams.files)
        if news.needs:
            self.needed.set()
        if news.secured:
            self.secured.set()
        if news.names:
            self.named.set()
        if news.options or (self._wanted.options_known and not self._options_known):
            self._options_known = True
            self.options.set()
        if news.problems:
            self._complain()

    def _complain(self) -> None:
        self.problems.set()
        self.complaints.set()
