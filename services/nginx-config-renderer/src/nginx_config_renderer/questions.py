"""Questions: answers what operators ask this edge over the bus (`common.contracts.edge`).

Nothing is decided here: what becomes of a request nginx says itself, and what became of an Ingress the tables say. A question that is none,
or that cannot be answered now, is answered with a sentence.
"""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ValidationError

from common.backoff import Backoff
from common.bus.protocol import Bus, BusError
from common.contracts.edge import EXPLAIN, INGRESSES, Explanation, Listing, Refusal, Request
from common.contracts.objects import Service
from common.contracts.refs import ObjectRef
from common.contracts.subjects import ask_subject
from common.tries import Tries
from nginx_config_renderer.admin import Absent
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.inquiry import RefusedError, inquire
from nginx_config_renderer.verdicts import Verdicts, by_object, wildcards
from nginx_config_renderer.wanted import Wanted

BACKOFF: Final = Backoff(first=0.1, most=5, factor=2, jitter=0.5)

log = structlog.get_logger(__name__)


class Questions:
    """Who answers for one edge. `socket` is where nginx answers, `instance` how this edge is called."""

    def __init__(self, wanted: Wanted, applier: Applier, socket: Path, instance: str) -> None:
        self._wanted = wanted
        self._applier = applier
        self._socket = socket
        self._instance = instance

    async def run(self, bus: Bus, cluster: str, service: str) -> None:
        """Answers until cancelled."""
        tries = Tries(BACKOFF)
        while True:
            try:
                async with (
                    bus.answering(ask_subject(cluster, service, EXPLAIN), self.explain),
                    bus.answering(ask_subject(cluster, service, INGRESSES), self.ingresses),
                ):
                    await asyncio.Event().wait()
            except BusError as error:
                log.warning("questions.unheard", reason=str(error))
                await tries.pause()

    async def explain(self, body: bytes) -> bytes:
        """What becomes of a request."""
        try:
            request = Request.model_validate_json(body)
            seen = await inquire(self._socket, request)
        except (ValidationError, Absent, RefusedError) as error:
            return self._refuse(error)
        host = str(seen.get("host") or request.host).lower()
        verdicts = self._verdicts()
        return _bytes(
            Explanation(
                instance=self._instance,
                seen=seen,
                claimants=tuple(verdicts.claimant(*one) for one in self._wanted.named(wildcards(host))),
                complete=not self._wanted.awaited,
                settled=self._applier.settled,
                service_problems=_of_service(verdicts, str(seen.get("backend", ""))),
            )
        )

    async def ingresses(self, body: bytes) -> bytes:
        """One page of all Ingresses."""
        try:
            asked = Listing.model_validate_json(body)
        except ValidationError as error:
            return self._refuse(error)
        return _bytes(self._verdicts().page(self._wanted.all_ingresses, self._wanted.ours, asked, self._instance))

    def _verdicts(self) -> Verdicts:
        return Verdicts(self._wanted.hosts, by_object(self._wanted.problems), self._applier.ledger)

    def _refuse(self, error: Exception) -> bytes:
        said = error.errors(include_url=False, include_input=False) if isinstance(error, ValidationError) else ()
        fields = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in said)
        return _bytes(Refusal(instance=self._instance, error=f"this cannot be asked: {fields}" if said else str(error)))


def _of_service(verdicts: Verdicts, backend: str) -> tuple[str, ...]:
    """What is wrong with the Service of a backend."""
    namespace, _, name = backend.rpartition(":")[0].partition("/")
    return tuple(problem.message for problem in verdicts.problems.get(ObjectRef(Service.resource, namespace, name), ()))


def _bytes(answer: BaseModel) -> bytes:
    return answer.model_dump_json(exclude_defaults=True).encode()
