"""Follow: what comes from the bus becomes what HAProxy should have, and what decides on addresses.

HAProxy is left alone until the replica is known to be complete, which is when each followed resource has its sync marker. So a bus that was
lost, and is filled again by and by, never takes a Service away. When a marker does not agree with our replica, the replica is taken anew.
"""

import asyncio
from typing import Protocol

from common.bus.follower import Follower, Update
from common.bus.protocol import Bus
from common.bus.streams import STATE
from common.contracts.refs import ObjectRef
from common.runtime.following import Agreement, replica_filters
from common.runtime.reports import Reports
from common.snapshot import Replaced
from haproxy_lb.knowledge import FOLLOWED, Knowledge, News
from haproxy_lb.model import Wanted


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
    return Follower(bus, STATE.name, replica_filters(cluster, FOLLOWED, configmaps), name="haproxy-lb")


class Intake:
    """Everything that is known comes through here. `services` is set when addresses, or what Services show, may have to change, and
    `problems` when there are other problems.
    """

    def __init__(self, knowledge: Knowledge, path: DataPath, reports: Reports) -> None:
        self.services = asyncio.Event()
        self.problems = asyncio.Event()
        self._knowledge = knowledge
        self._path = path
        self._agreement = Agreement(reports)
        self._complete = False

    async def follow(self, bus: Bus, cluster: str, configmaps: tuple[ObjectRef, ...]) -> None:
        """Takes what the bus has, until cancelled."""
        while True:
            async with follower(bus, cluster, configmaps) as updates:
                async for update in updates:
                    news = self._read(update)
                    self._hand_on(news)
                    if not self._agreement.holds(news.comparisons):
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
