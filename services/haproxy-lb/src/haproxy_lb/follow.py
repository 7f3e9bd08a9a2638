"""Follow: what comes from the bus becomes what HAProxy should have, and what decides on addresses.

HAProxy is left alone until the replica is known to be complete, which is when each followed resource has its sync marker. So a bus that was
lost, and is filled again by and by, never takes a Service away. When a marker does not agree with our replica, the replica is taken anew.
"""

import asyncio
from typing import Protocol

import structlog

from common.bus.follower import Follower, Update
from common.bus.protocol import Bus
from common.bus.streams import STATE
from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.contracts.subjects import state_filter, state_subject, sync_subject
from common.replica import Comparison
from common.runtime.reports import Reports
from common.snapshot import Replaced
from haproxy_lb import metrics
from haproxy_lb.knowledge import FOLLOWED, Knowledge, News
from haproxy_lb.model import Wanted

log = structlog.get_logger(__name__)


class DataPath(Protocol):
    """The door of the data path."""

    def want(self, wanted: Wanted) -> None:
        """Takes the whole wish; the newest wins, and nothing is applied before `release`."""
        ...

    def release(self) -> None:
        """The wish is known to be complete."""
        ...


def follower(bus: Bus, cluster: str, configmaps: tuple[ObjectRef, ...]) -> Follower:
    """All that a balancer reads. Of ConfigMaps those that the settings name: others may be many and large."""
    filters = [subject for resource in FOLLOWED for subject in (state_filter(cluster, resource), sync_subject(cluster, resource))]
    filters += [*(state_subject(cluster, ref) for ref in sorted({*configmaps})), sync_subject(cluster, ConfigMap.resource)]
    return Follower(bus, STATE.name, filters, name="haproxy-lb")


class Intake:
    """Everything that is known comes through here. `services` is set when addresses, or what Services show, may have to change, and
    `problems` when there are other problems.
    """

    def __init__(self, knowledge: Knowledge, path: DataPath, reports: Reports) -> None:
        self.services = asyncio.Event()
        self.problems = asyncio.Event()
        self._knowledge = knowledge
        self._path = path
        self._reports = reports
        self._complete = False

    async def follow(self, bus: Bus, cluster: str, configmaps: tuple[ObjectRef, ...]) -> None:
        """Takes what the bus has, until cancelled."""
        while True:
            async with follower(bus, cluster, configmaps) as updates:
                async for update in updates:
                    news = self._read(update)
                    self._hand_on(news)
                    if not all(comparison.equal for comparison in news.comparisons):
                        break

    def _read(self, update: Update) -> News:
        if isinstance(update, Replaced):
            return self._knowledge.replace(update.messages, update.tombstones)
        return self._knowledge.change(update.messages)

    def _hand_on(self, news: News) -> None:
        complete = not self._knowledge.awaited
        first, self._complete = complete and not self._complete, complete
        if complete and (news.wanted or first):
            self._path.want(self._knowledge.wanted)
            self._path.release()
        if news.services or first:
            self.services.set()
        if news.problems or first:
            self.problems.set()
        for comparison in news.comparisons:
            if not comparison.equal:
                metrics.DRIFT.inc()
                log.error(
                    "replica.drifted", resource=str(comparison.resource), held=comparison.count, marked=comparison.marker.count
                )
            self._reports.alert(f"ReplicaDrift-{comparison.resource}", "critical", _drift(comparison))


def _drift(comparison: Comparison) -> str | None:
    if comparison.equal:
        return None
    there = comparison.marker.count
    return (
        f"our replica of {comparison.resource} holds {comparison.count} objects and differs from the watcher's {there}; "
        "it is being taken anew, and if this lasts, somebody but the watcher writes on the bus"
    )
