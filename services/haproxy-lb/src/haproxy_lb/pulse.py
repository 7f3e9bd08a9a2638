"""Pulse: what this node's balancer finds, told on the bus when it changes, and now and then, so that one knows that it lives.

HAProxy is asked over a connection of its own, so no change waits for it. What could not be told is told at the next look.
"""

import asyncio
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from common.bus.protocol import Bus, BusError
from common.codec import encode
from common.contracts.balancers import SERVICE, BalancerFound, found_event, node_what
from common.contracts.subjects import wanted_subject
from common.runtime.reports import timestamp
from haproxy_lb.finding import found
from haproxy_lb.model import BackendKey
from haproxy_lb.runtime import Lost, Runtime, servers
from haproxy_lb.slots import Slot

LOOK: Final = 3.0  # seconds between two looks, about
REPEAT: Final = 30.0  # seconds after which the same is told again

log = structlog.get_logger(__name__)


class Pulse:
    """Tells of the HAProxy that `runtime` talks to. `slots` are those in use, and `trouble` is what is wrong with all of it."""

    def __init__(
        self,
        bus: Bus,
        runtime: Runtime,
        *,
        cluster: str,
        node: str,
        slots: Callable[[], Mapping[BackendKey, Slot]],
        trouble: Callable[[], str | None],
    ) -> None:
        self._bus = bus
        self._runtime = runtime
        self._subject = wanted_subject(cluster, SERVICE, node_what(node))
        self._node = node
        self._slots = slots
        self._trouble = trouble

    async def run(self) -> None:
        """Tells until cancelled."""
        said: BalancerFound | None = None
        at = 0.0
        while True:
            now = asyncio.get_running_loop().time()
            finds = await self._look()
            if finds != said or now - at >= REPEAT:
                said, at = await self._say(finds), now
            await asyncio.sleep(LOOK * random.uniform(0.8, 1.2))  # noqa: S311 jitter

    async def _look(self) -> BalancerFound:
        trouble = self._trouble() or ""
        try:
            (state,) = await self._runtime.ask(["show servers state"])
            return found(self._node, self._slots(), servers(state), trouble)
        except Lost as error:
            return BalancerFound(node=self._node, trouble=trouble or str(error))
        finally:
            self._runtime.close()  # the process may be another one at the next time

    async def _say(self, finds: BalancerFound) -> BalancerFound | None:
        """What was said; None if it could not be."""
        encoded = encode(found_event(finds, id=str(uuid.uuid4()), time=timestamp()))
        try:
            await self._bus.publish(self._subject, encoded.body, encoded.headers)
        except BusError as error:
            log.warning("finding.delayed", reason=str(error))
            return None
        return finds
