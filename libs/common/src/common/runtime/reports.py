"""Reports: what a service says about itself on the bus, each thing once.

Problems and alerts are given as the state that they are in; what is new or over since the last time is told. So a service may give its
whole state as often as it likes, and a listener hears of each change.

Which alerts fire is kept on the bus too, as one list of each instance, so that one who was killed while they did is not the only one who
could end them: `remember` reads that list when the service begins.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from common.alarms import Alarm, Alarms
from common.backoff import Backoff
from common.bus.facts import FactPublisher
from common.bus.protocol import HEADER_MESSAGE_ID, Bus, BusError, Conflict, Message
from common.bus.streams import FIRING
from common.codec import CodecError, decode, encode
from common.contracts.events import CloudEvent
from common.contracts.facts import (
    Alert,
    Applied,
    Fact,
    Firing,
    Severity,
    alert_event,
    fact_event,
    firing_event,
    read_firing,
    rejected,
)
from common.contracts.problems import Problem
from common.contracts.subjects import alert_subject, event_subject, firing_subject
from common.tries import Tries

_LOOK: Final = 60.0  # seconds between two looks whether the bus still knows what fires
_BACKOFF: Final = Backoff(first=0.1, most=30, factor=2, jitter=1)

log = structlog.get_logger(__name__)


class Reports:
    """The voice of one instance of a service."""

    def __init__(self, publisher: FactPublisher, *, service: str, cluster: str, instance: str) -> None:
        self._publisher = publisher
        self._service = service
        self._cluster = cluster
        self._instance = instance
        self._problems: set[Problem] = set()
        self._alarms = Alarms(service, instance)
        self._news = asyncio.Event()

    @property
    def firing(self) -> Mapping[str, Alert]:
        """The alerts that fire, by name."""
        return {alert.name: alert for alert in self._alarms.firing}

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
        self._raise(self._alarms.give(name, None if summary is None else Alarm(severity, summary), timestamp()))

    def alerts(self, family: str, alarms: Mapping[str, Alarm], unknown: Container[str] = ()) -> None:
        """All alerts of `family` that there are, such as `CertificateExpiry-…`, each by what follows its name. Of what is `unknown` an
        alert that fires goes on.
        """
        self._raise(self._alarms.give_all(family, alarms, unknown, timestamp()))

    def over(self, name: str, severity: Severity) -> None:
        """Ends an alert that is told in the name of all by whoever's turn it is: another may have left it firing."""
        self._raise(self._alarms.end(name, severity, timestamp()))

    def of(self, instance: str) -> "Reports":
        """Another voice, for what is not of this instance alone. Nothing is remembered of what it said."""
        return Reports(self._publisher, service=self._service, cluster=self._cluster, instance=instance)

    async def remember(self, bus: Bus, backoff: Backoff = _BACKOFF, look: float = _LOOK) -> None:
        """Takes over what a former process of this instance left firing, and keeps what fires for the next one, until cancelled. A bus that
        has lost what it was told is told again.
        """
        subject = firing_subject(self._cluster, self._service, self._instance)
        remembered, kept, tries = False, None, Tries(backoff)  # `kept` is the sequence of our list, if that is known
        while True:
            try:
                if kept is None:
                    last = await bus.recall(FIRING.name, subject)
                    self._raise(self._alarms.firing if remembered else self._alarms.remember(_alerts_of(last)))
                    remembered, kept = True, last.sequence if last is not None else 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(look):
                        await self._news.wait()
                if self._news.is_set():
                    kept = await self._keep(bus, subject, kept)
                elif self._alarms.firing and await bus.recall(FIRING.name, subject) is None:
                    kept = None
                tries.done()
            except BusError as error:
                if isinstance(error, Conflict):  # the list is not what we left there: the bus has lost it
                    kept = None
                log.warning("alerts.not_kept", reason=str(error), attempt=tries.failed)
                await tries.pause()

    async def _keep(self, bus: Bus, subject: str, kept: int) -> int:
        """Puts the list in the place of the one at sequence `kept`; its own sequence. Raises BusError, and is to be done again then."""
        self._news.clear()
        firing = Firing(instance=self._instance, alerts=self._alarms.firing)
        encoded = encode(firing_event(firing, service=self._service, id=_unique(), time=timestamp()))
        headers = {HEADER_MESSAGE_ID: encoded.headers["ce-id"], **encoded.headers}
        try:
            return (await bus.publish(subject, encoded.body, headers, expected_last=kept)).sequence
        except BusError:
            self._news.set()
            raise

    def _raise(self, changes: Iterable[Alert]) -> None:
        for alert in changes:
            tell = log.error if alert.status == "firing" else log.info
            tell("alert", alert=alert.name, status=alert.status, severity=alert.severity, summary=alert.summary)
            subject = alert_subject(self._cluster, alert.severity, self._service, alert.name)
            self._publish(subject, alert_event(alert, id=_unique(), time=timestamp()))
            self._news.set()

    def _say(self, fact: Fact, what: str) -> None:
        subject = event_subject(self._cluster, self._service, what)
        self._publish(subject, fact_event(fact, service=self._service, what=what, id=_unique(), time=timestamp()))

    def _publish(self, subject: str, event: CloudEvent) -> None:
        encoded = encode(event)
        self._publisher.say(subject, encoded.headers, encoded.body)


def _alerts_of(kept: Message | None) -> tuple[Alert, ...]:
    """What fired of a former process, as it last kept it. What cannot be read is nothing that could be ended."""
    if kept is None:
        return ()
    try:
        return read_firing(decode(kept.headers, kept.body)).alerts
    except (CodecError, ValueError) as error:
        log.warning("alerts.forgotten", subject=kept.subject, reason=str(error))
        return ()


def timestamp() -> str:
    """Now, as an RFC 3339 text in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unique() -> str:
    return str(uuid.uuid4())
