"""Emergencies: watches the Ingresses that have a stand-by Service, and tells when it takes over and when that is over.

An operator's switch, and a backend that loses its last endpoint, are in the tables already when this looks: it keeps what has to do with
time (`judge.py`), and raises an alert for each Ingress whose requests go elsewhere. Each edge judges by its own requests.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from common.alarms import Alarm
from common.runtime.reports import Reports
from nginx_config_renderer.admin import Admin, AdminError
from nginx_config_renderer.derive.emergency import EVERYTHING, Standing
from nginx_config_renderer.judge import Count, State, judge, reasons
from nginx_config_renderer.model import IngressKey

LOOK: Final = 0.5
_COUNT_EVERY: Final = 1.0

log = structlog.get_logger(__name__)


class Trips(Protocol):
    """Who takes what was found out."""

    def trip(self, key: IngressKey, reasons: Mapping[str, str]) -> None:
        """Backend → why it gets no requests."""
        ...


class Emergencies:
    """The watch over `standings`, which says how it stands now. Nothing is judged or told before these are `complete`: of a bus that is
    filled again by and by, the last endpoints may come after all Ingresses.
    """

    def __init__(
        self,
        standings: Callable[[], Mapping[IngressKey, Standing]],
        whom: Trips,
        admin: Admin,
        reports: Reports,
        *,
        complete: Callable[[], bool],
        look: float = LOOK,
    ) -> None:
        self._standings = standings
        self._whom = whom
        self._admin = admin
        self._reports = reports
        self._complete = complete
        self._look = look
        self._states: dict[IngressKey, State] = {}
        self._counted = 0.0

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await self._once(time.monotonic())
            await asyncio.sleep(self._look)

    async def _once(self, now: float) -> None:
        counts = await self._counts(now)
        if not self._complete():
            return
        standings = dict(self._standings())
        for key in self._states.keys() - standings.keys():
            del self._states[key]
            self._whom.trip(key, {})
        for key, standing in sorted(standings.items()):
            before = self._states.get(key, State())
            after = self._judged(before, standing, counts.get(key), now)
            if after == before:
                continue
            self._states[key] = after
            if reasons(after, EVERYTHING) != reasons(before, EVERYTHING):
                self._whom.trip(key, reasons(after, EVERYTHING))
        self._tell()

    def _judged(self, state: State, standing: Standing, count: Count | None, now: float) -> State:
        if not standing.emergency.auto:
            return State()
        return judge(state, standing.emergency, {str(backend) for backend in standing.unready}, count, now)

    async def _counts(self, now: float) -> Mapping[IngressKey, Count]:
        asked = {str(key): key for key, one in self._standings().items() if one.emergency.auto and one.emergency.threshold}
        if not asked or now - self._counted < _COUNT_EVERY:
            return {}
        self._counted = now
        try:
            answers = await self._admin.answers(sorted(asked))
        except AdminError as error:
            log.warning("emergencies.without_nginx", reason=str(error))
            return {}
        return {asked[name]: Count(now, requests, failures) for name, (requests, failures) in answers.items() if name in asked}

    def _tell(self) -> None:
        """An alert for each Ingress whose requests go to its stand-by."""
        firing: dict[str, Alarm] = {}
        for key, standing in self._standings().items():
            if standing.diverted:
                why = "; ".join(sorted({reason for _, reason in standing.diverted}))
                summary = f"requests of Ingress {key} go to its stand-by Service {standing.emergency.service}: {why}"
                firing[str(key)] = Alarm("warning", summary)
        self._reports.alerts("EmergencyService", firing)
