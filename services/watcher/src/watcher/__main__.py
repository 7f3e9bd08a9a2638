"""The watcher: keeps a provably complete replica of Kubernetes objects on the bus. This module wires it and decides nothing."""

from common.runtime.app import App, Stage, run
from watcher.folder import folder
from watcher.leading import lead
from watcher.office import Office
from watcher.settings import Settings

SERVICE = "watcher"


async def compose(app: App[Settings]) -> None:
    """Wires the service."""
    settings = app.settings
    bus = await app.bus()
    reports = app.reports(bus)
    if settings.manifests is not None:
        office = Office(bus, settings, folder(settings), reports)
        app.health.ready_when("replica", lambda: office.trouble)
        app.at_stop(Stage.DRAIN, "replica", office.flush)
        app.spawn("office", office.hold(transitions=0))
    else:
        await lead(app, bus, reports)


def main() -> None:
    """The program `seaway-watcher`."""
    run(SERVICE, Settings, compose)


if __name__ == "__main__":
    main()
