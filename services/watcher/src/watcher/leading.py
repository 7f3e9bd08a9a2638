"""Leading: of several watchers on a cluster one holds the Lease and keeps the replica; the others stand by.

A leader that ends gives the Lease back, so a stand-by takes over at its next look. One that dies is followed when the Lease has run out.
One that was frozen and wakes up finds the Lease lost, or its writes refused by the bus because a newer leader wrote meanwhile; either way
it ends, and is started again as a stand-by.
"""

from typing import Final

import structlog

from common.backoff import Backoff
from common.bus.protocol import Bus
from common.bus.publisher import Fenced
from common.contracts.objects import Projection
from common.kube.errors import KubeError, UnknownResource
from common.kube.lease import Candidate, LeaseLost, unique_identity
from common.kube.session import KubeSession
from common.runtime.app import App, Fatal, Stage
from common.runtime.cluster import session_of
from common.runtime.reports import Reports
from common.tries import Tries
from watcher.cluster import cluster, models
from watcher.office import Office
from watcher.settings import Settings

BACKOFF: Final = Backoff(first=0.2, most=5)

log = structlog.get_logger(__name__)


async def lead(app: App[Settings], bus: Bus, reports: Reports) -> None:
    """Wires a watcher of an API server. Raises Fatal if no cluster is named, or if it has not what is to be followed."""
    settings = app.settings
    session = await session_of(app, settings.kubeconfig)
    followed = await _followed(session, settings.resources)
    office = Office(bus, settings, cluster(session, followed), reports)
    app.at_stop(Stage.DRAIN, "replica", office.flush)
    lease = settings.lease
    if lease is None:
        app.health.ready_when("replica", lambda: office.trouble)
        app.spawn("office", _end_if_fenced(office, 0))
        return
    candidate = Candidate(session, lease, unique_identity(), settings.lease_terms)
    app.health.ready_when("replica", lambda: office.trouble if candidate.leading else candidate.last_error)
    app.spawn("office", _stand(candidate, office))


async def _stand(candidate: Candidate, office: Office) -> None:
    """Stands by, then leads. Raises Fatal when it leads no more."""
    try:
        await candidate.lead(lambda: _end_if_fenced(office, candidate.term))
    except LeaseLost as error:
        raise Fatal(f"{error}; this watcher ends, so that only one keeps the replica") from error


async def _end_if_fenced(office: Office, transitions: int) -> None:
    try:
        await office.hold(transitions)
    except Fenced as error:
        raise Fatal(f"{error}; this watcher ends, so that only one keeps the replica") from error


async def _followed(session: KubeSession, resources: tuple[str, ...]) -> tuple[type[Projection], ...]:
    """What is to be followed. An API server that is away is waited for."""
    tries = Tries(BACKOFF)
    while True:
        try:
            return await models(session, resources)
        except UnknownResource as error:
            raise Fatal(f"--resources: {error}") from error
        except KubeError as error:
            log.warning("resources.unknown", reason=str(error))
            await tries.pause()
