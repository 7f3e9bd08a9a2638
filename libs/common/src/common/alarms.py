"""Alarms: which alerts of one instance fire. Pure.

Alerts are given as the state that they are in, one by one or a whole family at a time (`CertificateExpiry-…`, one for each Secret), and
what is new or over since the last time is handed back, to be told. So a service may give its whole state as often as it likes.

A process that was killed leaves alerts firing. `remember` takes what fired then, which its successor finds on the bus some time after it
began: whatever was given as well by then is over, and the rest goes on until the first look at it says so. What still fires keeps the time
since when it does, and is not told again.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from common.contracts.facts import Alert, Severity


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alert that fires, in the words of who finds it so."""

    severity: Severity
    summary: str


class Alarms:
    """See the module. `now` is the time as RFC 3339."""

    def __init__(self, service: str, instance: str) -> None:
        self._service = service
        self._instance = instance
        self._firing: dict[str, Alert] = {}
        # Names and families, and what of these is unknown, for as long as nothing is remembered.
        self._given: dict[str, Container[str]] | None = {}

    @property
    def firing(self) -> tuple[Alert, ...]:
        """What fires, by name."""
        return tuple(self._firing[name] for name in sorted(self._firing))

    def give(self, name: str, alarm: Alarm | None, now: str) -> tuple[Alert, ...]:
        """The state of one alert, None for "all is well"."""
        if self._given is not None:
            self._given[name] = ()
        return self._changed(name, alarm, now)

    def give_all(self, family: str, alarms: Mapping[str, Alarm], unknown: Container[str], now: str) -> tuple[Alert, ...]:
        """All alerts of `family` that there are, each by what follows its name; any other is over, unless it is `unknown` how it stands."""
        given = {_named(family, what): alarm for what, alarm in alarms.items()}
        others = {name for name in self._firing if _family(name) == family and _what(name) not in unknown}
        if self._given is not None:
            self._given[family] = unknown
        return tuple(alert for name in sorted(given.keys() | others) for alert in self._changed(name, given.get(name), now))

    def remember(self, before: Iterable[Alert]) -> tuple[Alert, ...]:
        """Takes what fired before this process, and ends what it found to be well."""
        given, self._given = self._given or {}, None
        over: list[Alert] = []
        for alert in before:
            if alert.name in self._firing or (alert.service, alert.instance) != (self._service, self._instance):
                continue
            family, what = _family(alert.name), _what(alert.name)
            if alert.name in given or (family in given and what not in given[family]):
                over.append(_resolved(alert))
            else:
                self._firing[alert.name] = alert
        return tuple(over)

    def end(self, name: str, severity: Severity, now: str) -> tuple[Alert, ...]:
        """Ends an alert that another may have left firing, of whom nothing is remembered."""
        if name in self._firing:
            return ()
        return (self._alert(name, "resolved", Alarm(severity, "it was not so when the service began"), now),)

    def _changed(self, name: str, alarm: Alarm | None, now: str) -> tuple[Alert, ...]:
        before = self._firing.get(name)
        if alarm is None:
            return () if before is None else (_resolved(self._firing.pop(name)),)
        if before is not None and (before.severity, before.summary) == (alarm.severity, alarm.summary):
            return ()
        self._firing[name] = self._alert(name, "firing", alarm, before.since if before else now)
        return (self._firing[name],)

    def _alert(self, name: str, status: Literal["firing", "resolved"], alarm: Alarm, since: str) -> Alert:
        return Alert(
            name=name,
            service=self._service,
            instance=self._instance,
            severity=alarm.severity,
            status=status,
            summary=alarm.summary,
            since=since,
        )


def _named(family: str, what: str) -> str:
    return f"{family}-{what}"


def _family(name: str) -> str:
    return name.partition("-")[0]


def _what(name: str) -> str:
    return name.partition("-")[2]


def _resolved(alert: Alert) -> Alert:
    return alert.model_copy(update={"status": "resolved"})
