"""The API server as a balancer needs it: to lead, to record who has which address, and to tell Services."""

from typing import Final

from common.bus.protocol import Bus
from common.contracts.refs import ObjectRef
from common.kube.errors import Misconfigured
from common.kube.events import Recorder
from common.kube.lease import LEASES, Candidate, LeaseLost, unique_identity
from common.kube.session import KubeSession
from common.kube.status import Writer
from common.runtime.app import App, Fatal, Stage
from common.runtime.reports import Reports
from haproxy_lb.display import Display
from haproxy_lb.follow import Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.office import Office
from haproxy_lb.proclaim import Proclaimer
from haproxy_lb.record import Record
from haproxy_lb.settings import Settings

SERVICE: Final = "haproxy-lb"
_LAST_EVENTS: Final = 1.0  # seconds


async def join(app: App[Settings], bus: Bus, knowledge: Knowledge, intake: Intake, reports: Reports) -> Office:
    """Wires what needs the cluster that the settings name. Raises Fatal if they name none."""
    settings = app.settings
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    try:
        session = await app.enter(KubeSession.auto(kubeconfig, agent=f"seaway-{SERVICE}"))
    except Misconfigured as error:
        raise Fatal(str(error)) from error
    recorder = Recorder(session, SERVICE, settings.instance)
    writer = Writer(session, SERVICE)
    office = Office(
        knowledge,
        intake,
        Record(session, writer, settings.reservations),
        display=Display(writer),
        recorder=recorder,
        reports=reports,
        proclaimer=Proclaimer(bus, cluster=settings.cluster, service=SERVICE, instance=settings.instance),
        instance=settings.instance,
    )
    app.spawn("events", recorder.run())
    app.at_stop(Stage.FLUSH, "events", lambda: recorder.drain(within=_LAST_EVENTS))
    app.spawn("office", _lead(session, settings, office))
    return office


async def _lead(session: KubeSession, settings: Settings, office: Office) -> None:
    """Gives addresses while we lead; stands by again when we do not any more, since serving goes on."""
    if not settings.lease_name:
        return await office.hold()
    while True:
        lease = ObjectRef(LEASES, settings.lease_namespace, settings.lease_name)
        try:
            await Candidate(session, lease, unique_identity(), settings.lease_terms).lead(office.hold)
        except LeaseLost:
            continue
