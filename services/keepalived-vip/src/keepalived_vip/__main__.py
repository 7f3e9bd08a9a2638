"""keepalived-vip: keeps floating addresses on the nodes of a cluster. This module wires it and decides nothing."""

import asyncio

from common.runtime.app import App, Fatal, Stage, run
from keepalived_vip.detector import Detector
from keepalived_vip.edges import Edges, parse_edge
from keepalived_vip.follow import Intake, kept
from keepalived_vip.keepalived import Keepalived
from keepalived_vip.keeper import Keeper
from keepalived_vip.kernel import Kernel
from keepalived_vip.known import Known
from keepalived_vip.settings import Settings
from keepalived_vip.speak import Speaker
from keepalived_vip.station import Station
from keepalived_vip.tell import Teller

SERVICE = "keepalived-vip"


async def compose(app: App[Settings]) -> None:
    """Wires the service. Addresses are held before the bus is there, as the plan says that was kept."""
    settings = app.settings
    try:
        for directory in (settings.run, settings.state):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise Fatal(f"{error.filename} cannot be made: {error.strerror}; name others with --run and --state") from error
    plan_file = settings.state / "plan.json"
    known = Known(settings.scope, kept(plan_file))
    keepalived = Keepalived(settings.keepalived, settings.run)
    keeper = Keeper(keepalived, settings.run / "layout.json", settings.reload_pause)
    kernel = await app.enter(Kernel())
    edges = Edges(map(parse_edge, settings.edges), settings.patience)
    station = Station(settings, known, keeper, kernel, edges)
    news = asyncio.Event()
    app.health.ready_when("plan", lambda: station.trouble)
    app.health.ready_when("keepalived", lambda: keeper.trouble)
    app.spawn("kernel", kernel.run())
    app.spawn("edges", edges.run())
    app.spawn("judge", station.judge())
    app.spawn("plan", station.plan(news))
    app.spawn("watch", station.watch())
    detector = Detector(lambda: station.interface, station.held.keys, lambda: station.own, settings.probe_interval)
    app.spawn("detector", detector.run())
    app.spawn("keeper", keeper.run(station.missing))
    if settings.run_keepalived:
        app.spawn("keepalived", keepalived.keep())
        app.at_stop(Stage.DRAIN, "keepalived", keepalived.stop)

    bus = app.lasting_bus()
    reports = app.reports(bus)
    speaker = Speaker(bus, known, settings.cluster, settings.instance, settings.node)
    waiting = (news, speaker.plan_news)
    intake = Intake(known, settings.scope, reports, kept=plan_file, instance=settings.instance, news=waiting)
    app.spawn("state", intake.follow_state(bus))
    app.spawn("wishes", intake.follow_wishes(bus))
    app.spawn("propose", speaker.propose())
    app.spawn("report", speaker.report(lambda: station.report, station.changed))
    app.spawn("tell", Teller(settings, known, station, detector, reports).run())


def main() -> None:
    """The program `seaway-keepalived-vip`."""
    run(SERVICE, Settings, compose)


if __name__ == "__main__":
    main()
