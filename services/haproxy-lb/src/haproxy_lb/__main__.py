"""The balancer: answers Services of type LoadBalancer by HAProxy. This module wires it and decides nothing."""

import asyncio
from typing import Final

from common.bus.protocol import Bus
from common.runtime.app import App, Stage, run
from haproxy_lb.apply import Applier
from haproxy_lb.cluster import SERVICE, join
from haproxy_lb.configure import Configuration
from haproxy_lb.files import Files
from haproxy_lb.follow import Intake
from haproxy_lb.kernel import Kernel
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.leaving import Leaving
from haproxy_lb.pulse import Pulse
from haproxy_lb.runtime import Runtime
from haproxy_lb.scrape import Scrape
from haproxy_lb.settings import Settings
from haproxy_lb.tell import Teller

ADMIN: Final = "admin.sock"
MASTER: Final = "master.sock"


async def compose(app: App[Settings]) -> None:
    """Wires the service. HAProxy gets its configuration before the bus is there, since it serves without it."""
    settings = app.settings
    applier = data_path(settings)
    app.spawn("apply", applier.run())
    # Not ready from here on, so addresses go elsewhere; whoever comes until then is still served.
    app.at_stop(Stage.INTAKE, "addresses", lambda: asyncio.sleep(settings.leave_after))
    app.at_stop(Stage.CLOSE, "kernel", applier.leave)

    known = (settings.cluster, settings.ours, settings.node, settings.pools, settings.reservations)
    knowledge = Knowledge(*known, peers=settings.peers_among)
    app.health.ready_when("replica", lambda: "not complete yet" if knowledge.awaited else None)
    app.health.ready_when("haproxy", lambda: applier.unready)
    counts = Runtime(settings.sockets / ADMIN, str(settings.state))
    app.health.also_expose(Scrape(counts, lambda: applier.slots, settings.metric_endpoints).text)

    bus = await app.bus()
    reports = app.reports(bus)
    intake = Intake(knowledge, applier, reports)
    office = await join(app, bus, knowledge, intake, reports)
    app.spawn("follow", intake.follow(bus, settings.cluster, (settings.pools, settings.reservations)))
    app.spawn("tell", Teller(knowledge, office, applier, intake, reports).run())
    app.spawn("pulse", pulse(settings, bus, applier).run())


def data_path(settings: Settings) -> Applier:
    """The way of connections: HAProxy by its sockets, and the kernel by its table."""
    frame = settings.frame
    runtime = Runtime(settings.sockets / ADMIN, frame.tables)
    files = Files(settings.state, frame, (settings.haproxy,))
    configuration = Configuration(files, runtime, settings.sockets / MASTER)
    return Applier(runtime, Kernel(frame.port, frame.inside), configuration, Leaving(deadline=settings.drain_deadline))


def pulse(settings: Settings, bus: Bus, applier: Applier) -> Pulse:
    """What tells of endpoints that are unwell."""
    checks = Runtime(settings.sockets / ADMIN, str(settings.state))
    return Pulse(
        bus,
        checks,
        cluster=settings.cluster,
        node=settings.node,
        slots=lambda: applier.slots,
        trouble=lambda: applier.trouble,
    )


def main() -> None:
    """The program `seaway-haproxy-lb`."""
    run(SERVICE, Settings, compose)


if __name__ == "__main__":
    main()
