"""Kubernetes Events: what a service tells the people who look at an object with `kubectl describe`.

`record` never waits and never fails: what it takes is written by `run`, a task of the service, at the pace of `common.kube.aggregation`.
Events are a courtesy. What must not be lost goes to the bus as a fact; an Event that cannot be written is given up and counted.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from common.backoff import Backoff
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.kube import microtime
from common.kube.aggregation import Aggregation, Limits, Occasion, Type, Write
from common.kube.errors import AlreadyExists, Conflict, Forbidden, Invalid, KubeError, NotFound
from common.kube.session import KubeSession

EVENTS: Final = Resource("events.k8s.io", "events")
DOMAIN: Final = "seaway.dev"
NOTE: Final = 1024  # bytes of a note that the API allows
DEADLINE: Final = 10.0  # seconds for one write
DEFAULT: Final = Limits()
BACKOFF: Final = Backoff()

log = structlog.get_logger(__name__)


class Recorder:
    """Tells Events as `service`; `instance` says which of its processes."""

    def __init__(
        self,
        session: KubeSession,
        service: str,
        instance: str,
        *,
        limits: Limits = DEFAULT,
        backoff: Backoff = BACKOFF,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._service = service
        self._instance = instance
        self._backoff = backoff
        self._chance = chance
        self._aggregation = Aggregation(limits, lambda: uuid.uuid4().hex[:16])
        self._woken = asyncio.Event()
        self._failures = 0
        self.dropped = 0

    def record(self, ref: ObjectRef, uid: str, *, reason: str, note: str, type: Type = "Warning", action: str = "Apply") -> None:  # noqa: A002
        """Tells that something happened to an object."""
        occasion = Occasion(ref, uid, type, reason, action, note)
        if self._aggregation.record(occasion, time.monotonic(), microtime.now()):
            self._woken.set()
        else:
            self._drop(occasion, "there are too many different ones")

    def record_problem(self, problem: Problem, uid: str, *, action: str = "Apply") -> None:
        """Tells what is wrong with an object."""
        self.record(problem.ref, uid, reason=problem.reason, note=problem.message, action=action)

    async def run(self) -> None:
        """Writes what is recorded, for ever."""
        while True:
            self._woken.clear()
            step = self._aggregation.next(time.monotonic())
            if isinstance(step, Write):
                await asyncio.sleep(await self._write(step))
                continue
            try:
                async with asyncio.timeout(step):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def drain(self, within: float) -> None:
        """At the end of a service, after `run`: writes what may be written without waiting, for at most `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while isinstance(step := self._aggregation.next(time.monotonic()), Write) and not await self._write(step):
                    continue
        except TimeoutError:
            log.info("events.not_drained", known=len(self._aggregation))

    async def _write(self, write: Write) -> float:
        """Writes one Event; how many seconds to wait before the next."""
        try:
            async with asyncio.timeout(DEADLINE):
                await self._send(write)
        except (Invalid, Forbidden, NotFound, Conflict, ValueError) as error:
            self._refuse(write, error)
        except (KubeError, TimeoutError) as error:
            return self._fail(error)
        else:
            self._aggregation.wrote(write, time.monotonic())
        self._failures = 0
        return 0.0

    def _refuse(self, write: Write, error: Exception) -> None:
        """The server will never take it, unless it is only that the Event is no longer there."""
        if isinstance(error, NotFound) and not write.new:
            self._aggregation.vanished(write, time.monotonic())
        else:
            self._aggregation.refused(write, time.monotonic())
            self._drop(write.occasion, str(error))

    def _fail(self, error: Exception) -> float:
        wait = max(self._backoff.delay(self._failures, self._chance()), getattr(error, "retry_after", None) or 0.0)
        if not self._failures:
            log.warning("events.delayed", error=str(error) or "no answer in time")
        self._failures += 1
        return wait

    async def _send(self, write: Write) -> None:
        ref = write.occasion.ref
        namespace = ref.namespace or "default"
        name = f"seaway-{write.token}"
        if not write.new:
            patch = {"series": _series(write)}
            await self._session.patch(ObjectRef(EVENTS, namespace, name), patch, manager=f"seaway-{self._service}")
            return
        body = await self._body(write, name, namespace)
        try:
            await self._session.create(EVENTS, body, namespace=namespace)
        except AlreadyExists:
            return  # the answer to an earlier try was lost

    async def _body(self, write: Write, name: str, namespace: str) -> dict[str, Any]:
        occasion = write.occasion
        api = await self._session.api(occasion.ref.resource)
        place = {"namespace": occasion.ref.namespace} if occasion.ref.namespace else {}
        regarding = {"apiVersion": api.api_version, "kind": api.kind, "name": occasion.ref.name, "uid": occasion.uid, **place}
        return {
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": write.first,
            "reportingController": f"{DOMAIN}/{self._service}",
            "reportingInstance": self._instance,
            "type": occasion.type,
            "reason": occasion.reason,
            "action": occasion.action,
            "note": _cut(occasion.note),
            "regarding": regarding,
            **({"series": _series(write)} if write.count > 1 else {}),
        }

    def _drop(self, occasion: Occasion, why: str) -> None:
        self.dropped += 1
        if self.dropped.bit_count() == 1:  # 1, 2, 4, 8 …: a flood of Events makes no flood of logs
            log.warning("events.dropped", object=str(occasion.ref), reason=occasion.reason, error=why, dropped=self.dropped)


def _series(write: Write) -> Mapping[str, Any]:
    return {"count": write.count, "lastObservedTime": write.last}


def _cut(note: str) -> str:
    """At most as many bytes as the API allows."""
    data = note.encode()
    return note if len(data) <= NOTE else data[: NOTE - 3].decode(errors="ignore") + "…"
