"""Tell: what is in force, and what keeps objects from being so, as facts and alerts on the bus and as metrics.

Nothing is told of a replica that is not known to be complete: until the last object has come, others seem to miss it. What changes together
is told together, so that ten thousand changes are not ten thousand looks at everything.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from common.alarms import Alarm
from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from common.runtime.reports import Reports
from nginx_config_renderer import metrics
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.configure import Configurator
from nginx_config_renderer.follow import Intake
from nginx_config_renderer.stream_files import StreamFiles
from nginx_config_renderer.wanted import Wanted

LOOK: Final = 1.0  # seconds between two looks without news
CERTIFICATES: Final = frozenset({"SecretNotFound", "BadCertificate", "CertificateNotCovering", "BadClientAuth"})
GATHER: Final = 0.1  # seconds in which news gather


class Teller:
    """Tells what `wanted` and `applier` know."""

    def __init__(
        self, wanted: Wanted, applier: Applier, files: StreamFiles, intake: Intake, reports: Reports, *, configurator: Configurator
    ) -> None:
        self._wanted = wanted
        self._configurator = configurator
        self._applier = applier
        self._files = files
        self._intake = intake
        self._reports = reports
        self._revision = -1

    async def run(self) -> None:
        """Tells until cancelled."""
        while True:
            if not self._wanted.awaited:
                self._tell_problems()
                self._tell_applied()
            self._reports.alert("MessagesUntrusted", "critical", self._wanted.untrusted)
            self._reports.alert("TablesFull", "critical", self._applier.full)
            self._reports.alert("ConfigurationStale", "critical", self._configurator.stale)
            self._reports.alert("ConfigurationUnkept", "warning", self._configurator.unkept)
            self._reports.alert("JournalStale", "warning", self._applier.unwritten)
            self._reports.alert("StreamsStale", "critical", self._files.trouble)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._intake.problems.wait()
            await asyncio.sleep(GATHER)

    def _tell_problems(self) -> None:
        if not self._intake.problems.is_set():
            return
        problems = self._wanted.problems
        metrics.REJECTED.set(len(problems))
        self._tell_certificates(problems)
        if self._reports.problems(problems):
            self._intake.problems.clear()

    def _tell_certificates(self, problems: Iterable[Problem]) -> None:
        """An alert for each Ingress with a Secret that cannot be used: its visitors are warned by their browsers, or shut out."""
        unusable: dict[str, Alarm] = {}
        for problem in problems:
            if problem.reason in CERTIFICATES:
                ref = problem.ref
                named = f"Ingress {ref.namespace}/{ref.name}: " if ref.resource == Ingress.resource else ""
                unusable.setdefault(f"{ref.namespace}-{ref.name}", Alarm("critical", f"{named}{problem.message}"))
        undecided = {f"{key.namespace}-{key.name}" for key in self._wanted.undecided}
        self._reports.alerts("CertificateUnusable", unusable, undecided)

    def _tell_applied(self) -> None:
        revision = self._applier.revision
        if not self._applier.settled or revision == self._revision:
            return
        counts = self._wanted.counts
        for kind, count in counts.items():
            metrics.TABLE.labels(kind).set(count)
        self._reports.applied(revision, max(0, revision - self._revision) if self._revision >= 0 else 0, counts)
        self._revision = revision
