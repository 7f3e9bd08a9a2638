"""Tell: what is in force, and what keeps objects from being so, as facts and alerts on the bus and as metrics.

Nothing is told of a replica that is not known to be complete: until the last object has come, others seem to miss it.
"""

import asyncio
import contextlib
from typing import Final, Protocol

from common.runtime.reports import Reports
from haproxy_lb import metrics
from haproxy_lb.follow import Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.office import Office

LOOK: Final = 1.0  # seconds between two looks without news
PATIENCE: Final = 5.0  # seconds of trouble before anybody is bothered with it
GATHER: Final = 0.1  # seconds in which news gather


class Told(Protocol):
    """What the data path says of itself."""

    @property
    def trouble(self) -> str | None:
        """Why HAProxy does not have what it should, if so."""
        ...


class Teller:
    """Tells what is known."""

    def __init__(self, knowledge: Knowledge, office: Office, path: Told, intake: Intake, reports: Reports) -> None:
        self._knowledge = knowledge
        self._office = office
        self._path = path
        self._intake = intake
        self._reports = reports
        self._since: float | None = None  # when the data path was found in trouble

    async def run(self) -> None:
        """Tells until cancelled."""
        while True:
            if not self._knowledge.awaited:
                self._tell_problems()
                for kind, count in self._knowledge.counts.items():
                    metrics.TABLE.labels(kind).set(count)
                self._reports.alert("BalancerStale", "critical", self._lasting())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._intake.problems.wait()
            await asyncio.sleep(GATHER)

    def _lasting(self) -> str | None:
        """The trouble of the data path, if it is more than a HAProxy that starts or begins anew."""
        trouble, now = self._path.trouble, asyncio.get_running_loop().time()
        if trouble is None:
            self._since = None
        elif self._since is None:
            self._since = now
        return trouble if self._since is not None and now - self._since >= PATIENCE else None

    def _tell_problems(self) -> None:
        if not self._intake.problems.is_set():
            return
        problems = {*self._knowledge.problems, *self._office.problems}
        metrics.REJECTED.set(len(problems))
        exhausted = sorted(str(problem) for problem in problems if problem.reason == "PoolExhausted")
        self._reports.alert("PoolExhausted", "warning", exhausted[0] if exhausted else None)
        if self._reports.problems(problems):
            self._intake.problems.clear()
