"""Facts and alerts: what services say about what they did and what went wrong.

A fact stands at `evt.v1.<cluster>.<service>.<what>`, an alert at `alerts.v1.<cluster>.<severity>.<service>.<name>`, and what fires of an
instance at `firing.v1.<cluster>.<service>.<instance>`. All are CloudEvents whose data is one of these models; the event's `type` is
`dev.seaway.<service>.<what>.v1`, `dev.seaway.alert.v1` or `dev.seaway.firing.v1`.
"""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from common.contracts.events import CloudEvent
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef

ALERT: Final = "dev.seaway.alert.v1"
FIRING: Final = "dev.seaway.firing.v1"

Severity = Literal["info", "warning", "critical"]


class Fact(BaseModel):
    """The base of all facts."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ObjectName(Fact):
    """An object that a fact speaks of."""

    group: str
    resource: str
    namespace: str
    name: str


class Applied(Fact):
    """A service made its component match the wanted state. `revision` counts up with each change on this instance."""

    instance: str
    revision: int
    changed: int
    counts: dict[str, int] = {}


class Rejected(Fact):
    """An object, or a part of it, is not in force; `message` names the field, the value and the mend."""

    instance: str
    object: ObjectName
    reason: str
    message: str
    resolved: bool = False


class AddressGiven(Fact):
    """A Service has a floating address of a pool, or has it no more (`given` is false)."""

    instance: str
    object: ObjectName
    ip: str
    pool: str = ""
    given: bool


class Alert(Fact):
    """What an operator should act on. The same name with status `resolved` ends it."""

    name: str
    service: str
    instance: str
    severity: Severity
    status: Literal["firing", "resolved"]
    summary: str
    since: str


class Firing(Fact):
    """All alerts of an instance that fire, sorted by name: what its next process, which may find them over, cannot know otherwise."""

    instance: str
    alerts: tuple[Alert, ...] = ()


def object_name(ref: ObjectRef) -> ObjectName:
    """`ref` as facts write it."""
    return ObjectName(group=ref.resource.group, resource=ref.resource.plural, namespace=ref.namespace, name=ref.name)


def rejected(problem: Problem, *, instance: str, resolved: bool = False) -> Rejected:
    """`problem` as a fact; `resolved` when it is over."""
    name = object_name(problem.ref)
    return Rejected(instance=instance, object=name, reason=problem.reason, message=problem.message, resolved=resolved)


def fact_event(fact: Fact, *, service: str, what: str, id: str, time: str) -> CloudEvent:  # noqa: A002 the attribute's name
    """`fact` in its envelope. `id` must be unique for this service, `time` is RFC 3339."""
    return CloudEvent(
        id=id, source=f"/services/{service}", type=f"dev.seaway.{service}.{what}.v1", time=time, data=fact.model_dump()
    )


def alert_event(alert: Alert, *, id: str, time: str) -> CloudEvent:  # noqa: A002 the attribute's name
    """`alert` in its envelope."""
    return CloudEvent(id=id, source=f"/services/{alert.service}", type=ALERT, time=time, data=alert.model_dump())


def firing_event(firing: Firing, *, service: str, id: str, time: str) -> CloudEvent:  # noqa: A002 the attribute's name
    """`firing` in its envelope."""
    return CloudEvent(id=id, source=f"/services/{service}", type=FIRING, time=time, data=firing.model_dump(mode="json"))


def read_firing(event: CloudEvent) -> Firing:
    """What fires, as `event` says. Raises ValueError if it speaks of something else."""
    if event.type != FIRING:
        raise ValueError(f"{event.type} is not {FIRING}")
    return Firing.model_validate(event.data)
