"""The renderer: makes nginx serve the Ingresses of a cluster. This module wires it and decides nothing."""

import datetime as dt
import resource

from common.runtime.app import App, Fatal, run
from nginx_config_renderer.admin import Admin
from nginx_config_renderer.apply import Applier
from nginx_config_renderer.cluster import secrets_of
from nginx_config_renderer.configure import Configurator
from nginx_config_renderer.emergencies import Emergencies
from nginx_config_renderer.follow import Intake
from nginx_config_renderer.journal import journals
from nginx_config_renderer.keyring import Keyring
from nginx_config_renderer.limits import look
from nginx_config_renderer.log_files import LogFiles
from nginx_config_renderer.names import DNS, Names
from nginx_config_renderer.nginx import Configuration
from nginx_config_renderer.questions import Questions
from nginx_config_renderer.scrape import Scrape
from nginx_config_renderer.settings import Settings
from nginx_config_renderer.stream_files import StreamFiles
from nginx_config_renderer.tell import Teller
from nginx_config_renderer.trial import BadConfigurationError
from nginx_config_renderer.wanted import Wanted

SERVICE = "nginx-config-renderer"


async def compose(app: App[Settings]) -> None:
    """Wires the service. nginx gets its configuration before the bus is there, since it serves without it."""
    settings = app.settings
    look(open_files=settings.open_files, connections=settings.worker_connections, workers=settings.workers)
    try:
        nginx = await Configuration.of(settings.edge(), settings.nginx)
        configurator = Configurator(nginx, settings.options, settings.state / "options.json")
        await configurator.begin()
        kept = journals(settings.state, settings.key_journal)
    except (BadConfigurationError, OSError) as error:
        raise Fatal(f"nginx cannot be configured in {settings.state}: {error}") from error
    admin = await app.enter(Admin(settings.admin_socket))
    app.spawn("configuration", configurator.keep(admin))
    if settings.log_directory is not None and settings.log_rotate:
        app.spawn("logs", LogFiles(settings.log_directory, settings.rotation, admin).run())
    wanted = Wanted(
        settings.cluster, settings.ours, settings.options_ref, settings.entrances, settings.switches, around=settings.around
    )
    applier = Applier(admin, kept, wanted)
    app.health.ready_when("replica", lambda: "not complete yet" if wanted.awaited else None)
    app.health.ready_when("nginx", lambda: applier.trouble)
    app.health.also_expose(Scrape(admin, wanted, lambda: not wanted.awaited).text)
    app.spawn("apply", applier.run())

    bus = await app.bus()
    reports = app.reports(bus)
    files = StreamFiles(settings.stream_files, wanted.entering)
    app.spawn("streams", files.run())
    intake = Intake(wanted, applier, files, reports)
    keyring = Keyring(await secrets_of(app, wanted, intake), intake, reports, lambda: dt.datetime.now(dt.UTC))
    app.spawn("follow", intake.follow(bus, settings.cluster, settings.configmaps))
    app.spawn("configure", intake.configure(configurator))
    app.spawn("listen", intake.listen(configurator))
    app.spawn("secure", intake.secure(configurator))
    app.spawn("keyring", keyring.run())
    app.spawn("names", Names(DNS(), intake).run())
    emergencies = Emergencies(lambda: wanted.standings, intake, admin, reports, complete=lambda: intake.complete)
    app.spawn("emergencies", emergencies.run())
    questions = Questions(wanted, applier, settings.inquiry_socket, settings.instance)
    app.spawn("questions", questions.run(bus, settings.cluster, SERVICE))
    app.spawn("tell", Teller(wanted, applier, files, intake, reports, configurator=configurator).run())


def main() -> None:
    """The program `seaway-nginx-config-renderer`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold keys
    run(SERVICE, Settings, compose)


if __name__ == "__main__":
    main()
