"""The API server as a balancer needs it: to lead, to record who has which address, and to tell Services."""

from typing import Final

from common.bus.protocol import Bus
from common.kube.status import Writer
from common.runtime.app import App
from common.runtime.cluster import hold, recorder_of, session_of
from common.runtime.reports import Reports
from haproxy_lb.display import Display
from haproxy_lb.follow import Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.office import Office
from haproxy_lb.proclaim import Proclaimer
from haproxy_lb.record import Record
from haproxy_lb.settings import Settings

SERVICE: Final = "haproxy-lb"


async def join(app: App[Settings], bus: Bus, knowledge: Knowledge, intake: Intake, reports: Reports) -> Office:
    """Wires what needs the cluster that the settings name. Raises Fatal if they name none."""
    settings = app.settings
    session = await session_of(app, settings.kubeconfig)
    writer = Writer(session, SERVICE)
    office = Office(
        knowledge,
        intake,
        Record(session, writer, settings.reservations),
        display=Display(writer),
        recorder=recorder_of(app, session),
        reports=reports,
        proclaimer=Proclaimer(bus, cluster=settings.cluster, service=SERVICE, instance=settings.instance),
        instance=settings.instance,
    )
    app.spawn("office", hold(session, settings.lease, settings.lease_terms, office.hold))
    return office
