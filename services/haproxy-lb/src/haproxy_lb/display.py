"""Display: makes the status of Services show the addresses that they have. Only what differs is written, some at the same time."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from common.contracts.objects import Service
from common.kube.errors import Conflict, KubeError, NotFound
from common.kube.status import Writer
from haproxy_lb import metrics
from haproxy_lb.book import Granted
from haproxy_lb.claims import ServiceName
from haproxy_lb.status import StatusWrite, status_write

AT_ONCE: Final = 16  # statuses that are written at the same time
DEADLINE: Final = 10.0  # seconds for one write

log = structlog.get_logger(__name__)


class Display:
    """Writes with `writer`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._sent: dict[ServiceName, StatusWrite] = {}

    def forget(self) -> None:
        """What was sent is of no interest any more: somebody else may have led meanwhile."""
        self._sent.clear()

    async def show(self, services: Iterable[Service], assignments: Mapping[ServiceName, tuple[Granted, ...]]) -> None:
        """Writes the statuses that differ. Raises KubeError or TimeoutError if one could not be written, after the others."""
        wanted: dict[ServiceName, StatusWrite] = {}
        for service in services:
            name = ServiceName(service.metadata.namespace, service.metadata.name)
            write = status_write(service, assignments.get(name, ()))
            if write is not None:
                wanted[name] = write
        # What was written is not seen at once. Only a new version of the Service is a reason to write the same again.
        self._sent = {name: write for name, write in self._sent.items() if wanted.get(name) == write}
        gate = asyncio.Semaphore(AT_ONCE)
        failures: list[Exception] = []
        async with asyncio.TaskGroup() as group:
            for name, write in wanted.items():
                if name not in self._sent:
                    group.create_task(self._one(gate, name, write, failures))
        if failures:
            raise failures[0]

    async def _one(self, gate: asyncio.Semaphore, name: ServiceName, write: StatusWrite, failures: list[Exception]) -> None:
        async with gate:
            try:
                async with asyncio.timeout(DEADLINE):
                    await self._writer.patch_status(name.ref, write.status, uid=write.service.metadata.uid)
            except (NotFound, Conflict):
                return  # it was deleted a moment ago, and maybe made again
            except (KubeError, TimeoutError) as error:
                metrics.STATUS_WRITES.labels("failed").inc()
                log.warning("status.not_written", service=str(name), reason=str(error) or "no answer in time")
                failures.append(error)
                return
        metrics.STATUS_WRITES.labels("written").inc()
        log.info("status.written", service=str(name), addresses=[one.get("ip") for one in write.ingress])
        self._sent[name] = write
