"""The renderer: makes nginx serve the Ingresses of a cluster. This module wires it and decides nothing."""

from common.bus.facts import FactPublisher
from common.runtime.app import App, Fatal, Stage, run
from common.runtime.reports import Reports
from nginx_config_renderer import nginx
from nginx_config_renderer.admin import Admin
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.follow import follow, tell_applied
from nginx_config_renderer.journal import Journal
from nginx_config_renderer.settings import Settings
from nginx_config_renderer.wanted import Wanted

SERVICE = "nginx-config-renderer"


async def compose(app: App[Settings]) -> None:
    """Wires the service. nginx gets its configuration before the bus is there, since it serves without it."""
    settings = app.settings
    try:
        fingerprint = await nginx.install(settings.edge(), settings.nginx)
    except (nginx.BadConfigurationError, OSError) as error:
        raise Fatal(f"nginx cannot be configured in {settings.state}: {error}") from error
    admin = await app.enter(Admin(settings.admin_socket))
    app.spawn("configuration", nginx.keep(admin, fingerprint))

    wanted = Wanted(settings.cluster, settings.ours)
    journal = Journal(settings.state / "journal")
    applier = Applier(admin, journal, wanted.entries)
    app.health.ready_when("replica", lambda: "not complete yet" if wanted.awaited else None)
    app.health.ready_when("nginx", lambda: applier.trouble)
    app.spawn("apply", applier.run())

    bus = await app.bus()
    facts = FactPublisher(bus)
    reports = Reports(facts, service=SERVICE, cluster=settings.cluster, instance=settings.instance)
    app.spawn("facts", facts.run())
    app.spawn("follow", follow(bus, settings.cluster, wanted, applier, reports))
    app.spawn("tell", tell_applied(applier, wanted, reports))
    app.at_stop(Stage.FLUSH, "facts", facts.flush)


def main() -> None:
    """The program `seaway-nginx-config-renderer`."""
    run(SERVICE, Settings, compose)


if __name__ == "__main__":
    main()
