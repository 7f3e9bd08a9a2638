"""What a node says among the wishes: which plan there should be, and what it has in force itself.

The plan is written by compare-and-set, so of several nodes that see at once that it must change, one writes it and the others read it. They
begin one after the other, by their names, so that this is rare. What a node has in force is said at each change, and again while it lives.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from common.backoff import Backoff
from common.bus.protocol import Bus, BusError, Conflict
from common.codec import encode
from common.contracts.subjects import wanted_subject
from common.contracts.vips import PLAN, SERVICE, VipNode, VipPlan, node_what, vip_event
from common.tries import Tries
from keepalived_vip import metrics
from keepalived_vip.known import Known
from keepalived_vip.wire import dumped

_TURN: Final = 0.3  # seconds between the tries of one node and the next
_GATHER: Final = 0.02
_HANDED_OVER: Final = (
    0.5  # seconds in which a node that leaves has handed its addresses over, before anybody is bothered with a reload
)
_HEARTBEAT: Final = 5.0
_BACKOFF: Final = Backoff(first=0.2, most=5, factor=2, jitter=1)

log = structlog.get_logger(__name__)


class Speaker:
    """The voice of one node. Set `plan_news` when there may have to be another plan."""

    def __init__(self, bus: Bus, known: Known, cluster: str, instance: str, node: str) -> None:
        self._bus = bus
        self._known = known
        self._cluster = cluster
        self._instance = instance
        self._node = node
        self.plan_news = asyncio.Event()

    async def propose(self) -> None:
        """Writes the plan that there should be, until cancelled."""
        tries = Tries(_BACKOFF)
        while True:
            await self.plan_news.wait()
            self.plan_news.clear()
            if self._known.proposal is None:
                continue
            await asyncio.sleep(self._gather + self._turn * _TURN)
            try:
                await self._propose()
                tries.done()
            except BusError as error:
                log.warning("plan.not_proposed", reason=str(error))
                metrics.PROPOSALS.labels("failed").inc()
                await tries.pause()
                self.plan_news.set()

    async def report(self, current: Callable[[], VipNode], changed: asyncio.Event) -> None:
        """Says what this node has in force, at each change and now and then, until cancelled."""
        said: VipNode | None = None
        tries = Tries(_BACKOFF)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if tries.failed else _HEARTBEAT):
                    await changed.wait()
                    changed.clear()
                    if current() == said:
                        continue
            said = current()
            try:
                await self._say(said, node_what(self._node), None)
                tries.done()
                await asyncio.sleep(_GATHER)
            except BusError as error:
                if not tries.failed:
                    log.warning("report.delayed", reason=str(error))
                await tries.pause()

    @property
    def _gather(self) -> float:
        return _GATHER if self._known.members == self._known.agreed.plan.members else _HANDED_OVER

    @property
    def _turn(self) -> int:
        names = [member.name for member in self._known.members]
        return names.index(self._node) if self._node in names else len(names)

    async def _propose(self) -> None:
        proposal = self._known.proposal
        if proposal is None:
            return
        try:
            await self._say(dumped(proposal, self._instance), PLAN, self._known.sequence)
        except Conflict:
            metrics.PROPOSALS.labels("conflict").inc()
            return
        metrics.PROPOSALS.labels("taken").inc()
        log.info("plan.proposed", revision=proposal.revision, addresses=len(proposal.owners), nodes=len(proposal.plan.members))

    async def _say(self, message: VipPlan | VipNode, what: str, expected: int | None) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        encoded = encode(vip_event(message, id=str(uuid.uuid4()), time=time))
        subject = wanted_subject(self._cluster, SERVICE, what)
        await self._bus.publish(subject, encoded.body, encoded.headers, expected_last=expected)
