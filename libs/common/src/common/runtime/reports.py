"""Reports: what a service says about itself on the bus, each thing once.

Problems and alerts are given as the state that they are in; what is new or over since the last time is told. So a service may give its
whole state as often as it likes, and a listener hears of each change.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import structlog

from common.bus.facts import FactPublisher
from common.codec import encode
from common.contracts.events import CloudEvent
from common.contracts.facts import Alert, Applied, Fact, Severity, alert_event, fact_event, rejected
from common.contracts.problems import Problem
from common.contracts.subjects import alert_subject, event_subject

log = structlog.get_logger(__name__)


class Reports:
    """The voice of one instance of a service."""

    def __init__(self, publisher: FactPublisher, *, service: str, cluster: str, instance: str) -> None:
        self._publisher = publisher
        self._service = service
        self._cluster = cluster
        self._instance = instance
        self._problems: set[Problem] = set()
        self._firing: dict[str, Alert] = {}

    def applied(self, revision: int, changed: int, counts: Mapping[str, int]) -> None:
        """The component matches the wanted state again."""
        self._say(Applied(instance=self._instance, revision=revision, changed=changed, counts=dict(counts)), "applied")

    def fact(self, fact: Fact, what: str) -> None:
        """Something that happened, as `evt.v1.<cluster>.<service>.<what>`."""
        self._say(fact, what)

    def problems(self, problems: Iterable[Problem]) -> bool:
        """All problems that there are now. False if there was no room to tell all that is new: give them again."""
        now = frozenset(problems)
        room = self._publisher.room // 2  # what else there is to say may be more urgent
        changes = [*((problem, False) for problem in sorted(now - self._problems))]
        changes += [(problem, True) for problem in sorted(self._problems - now)]
        still = {problem.ref for problem in now}
        for problem, over in changes[:room]:
            self._tell(problem, over=over, quietly=problem.ref in still)
        return len(changes) <= room

    def _tell(self, problem: Problem, *, over: bool, quietly: bool) -> None:
        """A problem that is new, or over; one that only gave way to another of its object is over `quietly`."""
        if not over:
            self._problems |= {problem}
            log.warning("object.rejected", object=str(problem.ref), reason=problem.reason, message=problem.message)
            self._say(rejected(problem, instance=self._instance), "rejected")
            return
        self._problems -= {problem}
        if not quietly:
            log.info("object.mended", object=str(problem.ref), reason=problem.reason)
            self._say(rejected(problem, instance=self._instance, resolved=True), "rejected")

    def alert(self, name: str, severity: Severity, summary: str | None) -> None:
        """The state of one alert: firing with a summary, or None for "all is well"."""
        firing = self._firing.get(name)
        if summary is None:
            if firing is not None:
                del self._firing[name]
                self._raise(firing.model_copy(update={"status": "resolved"}))
            return
        if firing is None or firing.summary != summary:
            alert = self._alert(name, severity, "firing", summary, firing.since if firing else timestamp())
            self._firing[name] = alert
            self._raise(alert)

    def over(self, name: str, severity: Severity) -> None:
        """Ends an alert that may be firing since before this process: whoever was killed could not do that himself."""
        if name not in self._firing:
            self._raise(self._alert(name, severity, "resolved", "it was not so when the service began", timestamp()))

    def of(self, instance: str) -> "Reports":
        """Another voice, for what is not of this instance alone."""
        return Reports(self._publisher, service=self._service, cluster=self._cluster, instance=instance)

    def _alert(self, name: str, severity: Severity, status: Literal["firing", "resolved"], summary: str, since: str) -> Alert:
        return Alert(
            name=name,
            service=self._service,
            instance=self._instance,
            severity=severity,
            status=status,
            summary=summary,
            since=since,
        )

    def _raise(self, alert: Alert) -> None:
        tell = log.error if alert.status == "firing" else log.info
        tell("alert", alert=alert.name, status=alert.status, severity=alert.severity, summary=alert.summary)
        subject = alert_subject(self._cluster, alert.severity, self._service, alert.name)
        self._publish(subject, alert_event(alert, id=_unique(), time=timestamp()))

    def _say(self, fact: Fact, what: str) -> None:
        subject = event_subject(self._cluster, self._service, what)
        self._publish(subject, fact_event(fact, service=self._service, what=what, id=_unique(), time=timestamp()))

    def _publish(self, subject: str, event: CloudEvent) -> None:
        encoded = encode(event)
        self._publisher.say(subject, encoded.headers, encoded.body)


def timestamp() -> str:
    """Now, as an RFC 3339 text in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unique() -> str:
    return str(uuid.uuid4())
