"""Tell: facts of addresses that move, and alerts of what an operator should act on.

Each node tells of itself. What can only be seen by comparing all nodes is told by one of them, in the name of all: when that one falls
silent, the next goes on with the same alerts, and ends what may be left of them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from common.contracts.facts import Severity
from common.runtime.reports import Reports
from keepalived_vip import metrics
from keepalived_vip.census import nowhere, speaker, twice
from keepalived_vip.detector import Detector
from keepalived_vip.known import Known
from keepalived_vip.model import Address
from keepalived_vip.settings import Settings
from keepalived_vip.station import Station

LOOK: Final = 1.0  # seconds between two looks
PATIENCE: Final = 5.0  # seconds that something may last before it is worth an alert
ALL: Final = "all-nodes"
NOWHERE: Final = "AddressNowhere"
TWICE: Final = "AddressTwice"
_SHOWN: Final = 5


class Teller:
    """Tells what is wrong, and when it is over."""

    def __init__(self, settings: Settings, known: Known, station: Station, detector: Detector, reports: Reports) -> None:
        self._settings = settings
        self._known = known
        self._station = station
        self._detector = detector
        self._reports = reports
        self._together = reports.of(ALL)
        self._speaks = False
        self._since: dict[str, float] = {}

    async def run(self) -> None:
        """Tells until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            while self._station.moves:
                fact = self._station.moves.popleft()
                self._reports.fact(fact, "held" if fact.held else "released")
            now = asyncio.get_running_loop().time()
            wanted = self._known.agreed.plan.groups
            metrics.WANTED.set(len(wanted))
            self._own(now)
            self._all(wanted, now)
            if self._known.complete:
                self._reports.problems(self._known.problems)

    def _own(self, now: float) -> None:
        down = (
            None
            if self._station.scene.alive
            else f"keepalived does not run on node {self._settings.node}; its last words are in its log"
        )
        waits = bool(self._station.keeper.running.instances)
        self._alert("KeepalivedDown", down if waits else None, now)
        self._alert("ConfigurationRefused", self._station.keeper.trouble if waits or self._station.trouble is None else None, now)
        self._alert("NoPart", self._station.trouble if self._known.complete else None, now)
        self._alert("HeldBack", self._station.verdict.reason or None, now, "warning")
        rivals = self._detector.rivals
        claimed = f"somebody else answers for {_listed(rivals)}, which node {self._settings.node} holds"
        self._alert("DuplicateAddress", claimed if rivals else None, now)
        self._alert("DetectorOff", self._detector.trouble, now, "warning")

    def _all(self, wanted: Mapping[Address, int], now: float) -> None:
        heard = self._known.heard
        mine = speaker(heard, now) == self._settings.node
        if mine and not self._speaks:
            self._together.over(NOWHERE, "critical")
            self._together.over(TWICE, "critical")
        self._speaks = mine
        lost = nowhere(heard, wanted, now) if mine else ()
        self._alert(NOWHERE, f"no node holds {_listed(lost)}; `seaway vip list` shows why" if lost else None, now)
        double = twice(heard, wanted, now) if mine else {}
        sentence = None
        for address, names in list(double.items())[:1]:
            others = f" (and {len(double) - 1} more)" if len(double) > 1 else ""
            sentence = f"{address}{others} is held by {' and '.join(names)}, which do not hear each other's VRRP"
        self._alert(TWICE, sentence, now)

    def _alert(self, name: str, summary: str | None, now: float, severity: Severity = "critical") -> None:
        """Raises what has lasted for a while."""
        if summary is None:
            self._since.pop(name, None)
        elif now - self._since.setdefault(name, now) < PATIENCE:
            return
        (self._together if name in {NOWHERE, TWICE} else self._reports).alert(name, severity, summary)


def _listed(addresses: Sequence[object]) -> str:
    more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
    return ", ".join(map(str, addresses[:_SHOWN])) + more
