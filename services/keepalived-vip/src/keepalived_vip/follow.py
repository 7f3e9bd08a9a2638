"""Follow: what the bus has becomes what this node knows. Whoever waits for `news` is woken by every change; a new plan is kept on the disk.

Two streams are followed: the replica of the cluster, and the wishes, where services, the plan and the other nodes speak.
"""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from common.bus.follower import Follower
from common.bus.protocol import Bus
from common.bus.streams import STATE, WANTED
from common.contracts.subjects import WANTED as WANTED_ROOT
from common.contracts.subjects import encode
from common.contracts.vips import VipError, VipPlan
from common.process import atomic_write
from common.replica import Comparison
from common.runtime.following import Agreement, replica_filters
from common.runtime.reports import Reports
from common.snapshot import Replaced
from keepalived_vip.known import FOLLOWED, Known, Scope
from keepalived_vip.wire import Agreed, dumped, loaded

_NAME: Final = "keepalived-vip"

log = structlog.get_logger(__name__)


class Intake:
    """The one that changes `known`."""

    def __init__(
        self, known: Known, scope: Scope, reports: Reports, *, kept: Path, instance: str, news: tuple[asyncio.Event, ...]
    ) -> None:
        self._news = news
        self._known = known
        self._scope = scope
        self._kept = kept
        self._instance = instance
        self._last = self._stored = known.lawful
        self._reports = reports
        self._agreement = Agreement(reports)

    async def follow_state(self, bus: Bus) -> None:
        """Takes the replica, until cancelled; anew where it does not agree with the watcher's."""
        filters = replica_filters(self._scope.cluster, FOLLOWED, (self._scope.statics, self._scope.pools))
        while True:
            async with Follower(bus, STATE.name, filters, name=f"{_NAME}-state") as updates:
                async for update in updates:
                    compared: tuple[Comparison, ...] = ()
                    if isinstance(update, Replaced):
                        self._known.replace_state(update.messages, update.tombstones, updates.created)
                    else:
                        compared = self._known.take_state(update.messages, updates.created)
                    self._wake()
                    if not self._agreement.holds(compared):
                        break

    async def follow_wishes(self, bus: Bus) -> None:
        """Takes the wishes, until cancelled."""
        filters = [f"{WANTED_ROOT}.{encode(self._scope.cluster)}.>"]
        async with Follower(bus, WANTED.name, filters, name=f"{_NAME}-wishes") as updates:
            async for update in updates:
                now = asyncio.get_running_loop().time()
                self._known.take_wishes(update.messages, whole=isinstance(update, Replaced), now=now)
                self._wake()

    def _wake(self) -> None:
        lawful = self._known.lawful
        if lawful != self._last:
            self._last = lawful
            log.info("plan.taken", revision=lawful.revision, addresses=len(lawful.plan.groups))
        self._reports.alert("PlanNotKept", "warning", self._unkept(lawful))
        for news in self._news:
            news.set()

    def _unkept(self, lawful: Agreed) -> str | None:
        """Keeps the plan, or says why that failed; a disk that takes no more is asked again with the next message."""
        if lawful == self._stored:
            return None
        try:
            keep(self._kept, lawful, self._instance)
        except OSError as error:
            return (
                f"{self._kept} cannot be written: {error.strerror}; make room there: until then a start without the bus goes by an "
                "older plan"
            )
        self._stored = lawful
        return None


def keep(path: Path, agreed: Agreed, instance: str) -> None:
    """Writes the plan to the disk, for a start without the bus."""
    atomic_write(path, dumped(agreed, instance).model_dump_json().encode(), 0o600)


def kept(path: Path) -> Agreed | None:
    """The plan that was kept, if there is a good one."""
    try:
        return loaded(VipPlan.model_validate_json(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, VipError) as error:
        log.warning("plan.unreadable", path=str(path), reason=str(error).splitlines()[0])
        return None
