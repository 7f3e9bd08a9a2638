"""`seaway failover`: sends the requests of an Ingress to its stand-by Service, and back."""

import datetime as dt
import getpass
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from common.bus.settings import BusSettings
from common.contracts.objects import ConfigMap, Ingress
from common.contracts.state import ObjectApplied
from common.kube.errors import KubeError, Misconfigured
from common.kube.session import KubeSession
from seaway import replica
from seaway.alerts import firing
from seaway.commands import CommandError, Data, Nats, Nkey, TlsCa, bus_of, run
from seaway.local import Home, default_root
from seaway.switches import STANDBY, SWITCHES, ClusterSwitches, FolderSwitches, Switches, read_switch, switch
from seaway.view import table

COLUMNS = ("NAMESPACE", "INGRESS", "STAND-BY", "MODE", "STATE", "WHY")

failover_app = typer.Typer(help="Send the requests of an Ingress to its stand-by Service, and back.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="NAMESPACE/INGRESS", metavar="NAMESPACE/INGRESS")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="The cluster, instead of what the Seaway on this machine serves (or KUBECONFIG).", dir_okay=False),
]


@failover_app.command("on")
def switch_on(
    ingress: Which,
    reason: Annotated[str, typer.Option(help="Why, for those who see it later.")] = "",
    kubeconfig: Kubeconfig = None,
    data: Data = None,
) -> None:
    """Send all requests of an Ingress to its stand-by Service, until `off`."""
    run(_put(ingress, reason, kubeconfig, data, on=True))


@failover_app.command("off")
def switch_off(ingress: Which, kubeconfig: Kubeconfig = None, data: Data = None) -> None:
    """Send them to its own Services again."""
    run(_put(ingress, "", kubeconfig, data, on=False))


@failover_app.command("list")
def show(data: Data = None, nats: Nats = None, nkey: Nkey = None, tls_ca: TlsCa = None) -> None:
    """List the Ingresses that have a stand-by Service, and where their requests go."""
    run(_show(bus_of(data, nats, nkey, tls_ca)))


async def _put(which: str, reason: str, kubeconfig: Path | None, data: Path | None, *, on: bool) -> None:
    namespace, _, name = which.partition("/")
    if not namespace or not name:
        raise CommandError(f"{which!r} names no Ingress; write NAMESPACE/INGRESS")
    try:
        async with _switches(kubeconfig, data) as switches:
            found = await switches.ingress(namespace, name)
            if on and found is None:
                raise CommandError(f"there is no Ingress {which}")
            standby = found.metadata.annotations.get(STANDBY, "") if found is not None else ""
            if on and not standby:
                raise CommandError(f"Ingress {which} has no stand-by Service; annotate it with {STANDBY}: NAME or NAME:PORT")
            since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            await switches.put(f"{namespace}.{name}", switch(_who(), reason, since) if on else None)
    except (KubeError, OSError) as error:
        raise CommandError(f"{which} could not be switched: {error}") from error
    typer.echo(f"{which}: requests go to Service {standby}" if on else f"{which}: requests go to its own Services")


@asynccontextmanager
async def _switches(kubeconfig: Path | None, data: Path | None) -> AsyncIterator[Switches]:
    """Where the switches are: of the cluster that is named, else of what the Seaway on this machine serves, else of KUBECONFIG."""
    home = Home(data or default_root())
    folder = home.served_folder() if kubeconfig is None else None
    if folder is not None:
        yield FolderSwitches(folder)
        return
    named = kubeconfig or home.served_kubeconfig()
    try:
        session = KubeSession.auto(str(named) if named else None, agent="seaway-command")
    except Misconfigured as error:
        raise CommandError(f"{error}; name a cluster with --kubeconfig FILE") from error
    async with session:
        yield ClusterSwitches(session)


def _who() -> str:
    """Who runs this command, for the record."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


async def _show(settings: BusSettings) -> None:
    async with replica.reach(settings) as bus:
        seen = [one.message.object for one in await replica.snapshot(bus) if isinstance(one.message, ObjectApplied)]
        alerts = {alert.name: alert.summary for alert in await firing(bus)}
    switched = next((one.data for one in seen if isinstance(one, ConfigMap) and one.ref == SWITCHES), {})
    rows = [_row(one, switched, alerts) for one in seen if isinstance(one, Ingress) and STANDBY in one.metadata.annotations]
    typer.echo(table(sorted(rows), COLUMNS))


def _row(ingress: Ingress, switched: Mapping[str, str], alerts: dict[str, str]) -> tuple[str, ...]:
    namespace, name = ingress.metadata.namespace, ingress.metadata.name
    mode = ingress.metadata.annotations.get("seaway.dev/emergency-mode", "manual")
    key, alert = f"{namespace}.{name}", alerts.get(f"EmergencyService-{namespace}/{name}")
    if key in switched:
        said = read_switch(switched[key])
        state, why = "stand-by", " ".join(part for part in (said["reason"], f"({said['by']}, {said['since']})") if part)
    else:
        state, why = ("stand-by", alert.partition(": ")[2]) if alert else ("normal", "")
    return namespace, name, ingress.metadata.annotations[STANDBY], mode, state, why
