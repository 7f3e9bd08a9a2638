"""The command `seaway`: runs a Seaway on this machine, and asks one that runs."""

import typer

from common.runtime.logging import quiet
from seaway.commands import show_alerts, show_events, state_app
from seaway.edge import explain, ingress_app
from seaway.failover import failover_app
from seaway.lb import lb_app
from seaway.up_command import run_up
from seaway.vip import vip_app

app = typer.Typer(
    help="What a cloud would give a Kubernetes cluster, on your own machines.", no_args_is_help=True, add_completion=False
)
app.add_typer(state_app, name="state")
app.add_typer(failover_app, name="failover")
app.add_typer(ingress_app, name="ingress")
app.add_typer(lb_app, name="lb")
app.add_typer(vip_app, name="vip")
app.command("alerts")(show_alerts)
app.command("events")(show_events)
app.command("explain")(explain)
app.command("up")(run_up)


def main() -> None:
    """The program `seaway`."""
    quiet()
    app()


if __name__ == "__main__":
    main()
