"""The record: who has which address, in a ConfigMap that the leader writes.

An address is given when it stands here, and shown in a status after that. It has to outlive restarts, Services and statuses that were lost,
so it belongs where Kubernetes keeps everything else: it is backed up and restored with it, `kubectl` shows it, and the bus may be lost
without harm. Each write names the version that it replaces, so of two balancers that both think to lead only one can give addresses: the
other gets Superseded, and reads again. (Kubernetes API concepts, "Server-Side Apply" and optimistic concurrency.)

The pools in force are written down too: a balancer that starts while the operator's ConfigMap is bad goes on with them.
"""

from typing import Any, Final

import structlog

from common.contracts.refs import ObjectRef
from common.kube import Raw
from common.kube.errors import Conflict, KubeError, NotFound
from common.kube.session import KubeSession
from common.kube.status import Writer
from common.pools import KEY
from haproxy_lb import records
from haproxy_lb.book import Reservation

RESERVATIONS: Final = "reservations"

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """Somebody else has written the record since it was read."""


class NoNamespace(KubeError):
    """The record cannot be made where it is to be. `ref` is the record."""

    def __init__(self, ref: ObjectRef) -> None:
        super().__init__(
            f"the record of addresses cannot be made, since there is no namespace {ref.namespace!r}, so no address is given; "
            "create the namespace, or name a ConfigMap of another one by --reservations-configmap"
        )
        self.ref = ref


class Record:
    """The ConfigMap `ref`. `read` it before it is written."""

    def __init__(self, session: KubeSession, writer: Writer, ref: ObjectRef) -> None:
        self._session = session
        self._writer = writer
        self._ref = ref
        self._version = ""
        self._data: dict[str, str] = {}
        self.reservations: tuple[Reservation, ...] = ()
        self.faults: tuple[str, ...] = ()

    async def read(self) -> None:
        """Learns what stands there now; nothing, if there is no such ConfigMap. Raises KubeError."""
        try:
            found = await self._session.get(self._ref)
        except NotFound:
            found = {}
        self._version = str(found.get("metadata", {}).get("resourceVersion", ""))
        self._data = {str(key): str(value) for key, value in (found.get("data") or {}).items()}
        self.reservations, self.faults = records.read(self._data.get(RESERVATIONS, ""))
        if self.faults:
            log.error("record.unreadable", configmap=str(self._ref), lines=len(self.faults), first=self.faults[0])

    async def write(self, reservations: tuple[Reservation, ...], pools: str | None) -> None:
        """Makes the record say so, if it does not. `pools` of None leaves those that stand there. Raises Superseded, KubeError."""
        kept = {KEY: self._data[KEY]} if KEY in self._data else {}
        data = {**kept, **({KEY: pools} if pools is not None else {}), RESERVATIONS: records.write(reservations)}
        if data != self._data:
            written = await self._write(data)
            self._version, self._data = str(written["metadata"]["resourceVersion"]), data
        self.reservations, self.faults = reservations, ()

    async def _write(self, data: dict[str, str]) -> Any:
        try:
            if not self._version:
                body = {"metadata": {"name": self._ref.name}, "data": data}
                return await self._create(body)
            fields = {"metadata": {"resourceVersion": self._version}, "data": data}
            return await self._writer.apply(self._ref, fields, force=True)
        except (Conflict, NotFound) as error:
            raise Superseded(str(error)) from error

    async def _create(self, body: Raw) -> Any:
        try:
            return await self._session.create(self._ref.resource, body, namespace=self._ref.namespace)
        except NotFound:
            raise NoNamespace(self._ref) from None
