"""Plan: what must be published because a source observed something.

A whole listing is compared with what the replica holds; a single change is published as it is, since the publisher itself skips what has
not changed. An object that cannot be projected is left as it was, and told as a problem until a version of it can be, or it is gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from common.contracts.state import ObjectApplied, ObjectDeleted
from watcher.diff import Held, diff
from watcher.model import Gone, Listed, Put
from watcher.projection import Unreadable, applied, deleted

Message: TypeAlias = ObjectApplied | ObjectDeleted


@dataclass(frozen=True, slots=True)
class Plan:
    """Messages in the order of publishing, and the problems of the objects that were looked at (None: it has none any more)."""

    messages: tuple[Message, ...]
    problems: Mapping[ObjectRef, Problem | None]


def plan(observation: Listed | Put | Gone, held: Mapping[ObjectRef, Held]) -> Plan:
    """What `observation` asks for. `held` is what the replica holds of the observed resource."""
    match observation:
        case Listed():
            return _listing(observation, held)
        case Put(model, item):
            return _single(applied(model, item))
        case Gone(model, item):
            return _single(deleted(model, item))


def _listing(listed: Listed, held: Mapping[ObjectRef, Held]) -> Plan:
    messages = [applied(listed.model, item) for item in listed.items]
    readable = [message for message in messages if isinstance(message, ObjectApplied)]
    unreadable = [message for message in messages if isinstance(message, Unreadable)]
    kept = frozenset(message.ref for message in unreadable if message.ref is not None)
    wanted = diff(held, readable, keep=kept if listed.complete else frozenset(held))
    problems: dict[ObjectRef, Problem | None] = {message.ref: None for message in readable}
    problems |= dict.fromkeys(held.keys() - kept)
    problems |= {message.problem.ref: message.problem for message in unreadable}
    return Plan(wanted, problems)


def _single(message: Message | Unreadable) -> Plan:
    if isinstance(message, Unreadable):
        return Plan((), {message.problem.ref: message.problem})
    return Plan((message,), {message.ref: None})
