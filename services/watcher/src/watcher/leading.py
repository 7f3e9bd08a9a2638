"""Leading: of several watchers on a cluster one holds the Lease and keeps the replica; the others stand by."""

from common.bus.protocol import Bus
from common.kube.session import KubeSession
from common.runtime.app import App
from common.runtime.reports import Reports
from watcher.office import Office
from watcher.settings import Settings
from watcher.sources import cluster, models


async def lead(app: App[Settings], bus: Bus, reports: Reports) -> None:
    """Wires a watcher of an API server."""
    settings = app.settings
    session = await app.enter(KubeSession.auto(str(settings.kubeconfig) if settings.kubeconfig else None, agent="seaway-watcher"))
    followed = await models(session, settings.resources)
    office = Office(bus, settings, cluster(session, followed), reports)
    app.health.ready_when("replica", lambda: office.trouble)
    app.spawn("office", office.hold(transitions=0))
