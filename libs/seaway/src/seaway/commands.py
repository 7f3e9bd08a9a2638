"""The commands that ask: `seaway state`, `seaway state get`, `seaway events`, `seaway alerts`."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from common.bus.protocol import BusError
from common.bus.settings import BusSettings
from common.contracts.refs import Resource
from common.contracts.state import ObjectApplied, ObjectDeleted
from seaway import alerts, events, replica
from seaway.local import operator
from seaway.view import COLUMNS, Format, document, dump, dump_change, dump_list, find, identity, named, row, table

Data = Annotated[Path | None, typer.Option("--data", help="Directory of the Seaway on this machine (or SEAWAY_DATA).")]
Nats = Annotated[
    str | None, typer.Option("--nats", help="The bus, such as nats://10.0.0.5:4222, instead of the one on this machine.")
]
Nkey = Annotated[Path | None, typer.Option("--nkey", help="File with the nkey seed of the user, for --nats.")]
TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="File with the authority of the bus, for --nats; turns TLS on.")]
Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]

ALERT_COLUMNS = ("SINCE", "SEVERITY", "SERVICE", "INSTANCE", "ALERT", "WHAT")

state_app = typer.Typer(help="What the bus knows of the cluster.", invoke_without_command=True)


class CommandError(Exception):
    """Why a command cannot do what it was asked to: one sentence for people."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a command; what it cannot do is one sentence on standard error and exit code 1."""
    try:
        asyncio.run(work)
    except (BusError, CommandError) as error:
        typer.echo(f"seaway: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def bus_of(data: Path | None, nats: str | None, nkey: Path | None, tls_ca: Path | None) -> BusSettings:
    """How to reach the bus that is meant."""
    try:
        return operator(data, nats, nkey, tls_ca)
    except (FileNotFoundError, ValueError) as error:
        typer.echo(f"seaway: {error}", err=True)
        raise typer.Exit(1) from None


@state_app.callback()
def state(
    context: typer.Context,
    resource: Annotated[str, typer.Option("-r", "--resource", help="Only this resource, such as `ingresses`.")] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Only this namespace.")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with every change.")] = False,  # noqa: FBT002 typer's way
    output: Output = Format.TABLE,
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """List the replica: resource, namespace, name, version and age."""
    if context.invoked_subcommand is None:
        settings = bus_of(data, nats, nkey, tls_ca)
        run(_watch(settings, resource, namespace, output) if watch else _list(settings, resource, namespace, output))


@state_app.command("get")
def get(
    resource: Annotated[str, typer.Argument(help="Such as `ingresses` or `ingresses.networking.k8s.io`.")],
    namespace: Annotated[str, typer.Argument(help="`-` for an object of the cluster.")],
    name: str,
    output: Output = Format.YAML,
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Show one object as the bus has it."""
    run(_get(bus_of(data, nats, nkey, tls_ca), resource, namespace, name, output))


def show_events(
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with every new fact.")] = False,  # noqa: FBT002 typer's way
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Show what services did, and which objects they rejected and why."""
    run(_events(bus_of(data, nats, nkey, tls_ca), watch=watch))


def show_alerts(data: Data = None, nats: Nats = None, nkey: Nkey = None, tls_ca: TlsCa = None) -> None:
    """Show what should be acted on now."""
    run(_alerts(bus_of(data, nats, nkey, tls_ca)))


async def _list(settings: BusSettings, resource: str, namespace: str, output: Format) -> None:
    async with replica.reach(settings) as bus:
        everything = await replica.snapshot(bus)
    wanted = _chosen(everything, resource, namespace)
    for seen in wanted:
        if seen.error:
            typer.echo(f"seaway: {seen.error}", err=True)
    applied = [(seen, seen.message) for seen in wanted if isinstance(seen.message, ObjectApplied)]
    if output is Format.TABLE:
        typer.echo(table(row(message, seen.stored, replica.now()) for seen, message in applied))
    else:
        typer.echo(dump_list([document(message) for _, message in applied], output))


async def _watch(settings: BusSettings, resource: str, namespace: str, output: Format) -> None:
    async with replica.reach(settings) as bus:
        known = [seen.ref.resource for seen in await replica.snapshot(bus)]
        meant = find(resource, known) if resource else None
        if resource and meant is None:
            raise CommandError(_unknown(resource, known))
        if output is Format.TABLE:
            typer.echo("   ".join(("CHANGE ", *COLUMNS)))
        async for seen in replica.follow(bus):
            if meant in {None, seen.ref.resource} and namespace in {"", seen.ref.namespace}:
                typer.echo(_change(seen, output))


def _change(seen: replica.Seen, output: Format) -> str:
    message = seen.message
    if output is Format.TABLE:
        if isinstance(message, ObjectApplied):
            return "   ".join(("applied", *row(message, seen.stored, replica.now())))
        what = "deleted" if isinstance(message, ObjectDeleted) else f"unreadable: {seen.error}"
        return f"{what}   {seen.ref.resource}   {seen.ref.namespace or '-'}   {seen.ref.name}"
    if isinstance(message, ObjectApplied):
        return dump_change("APPLIED", document(message), output)
    if isinstance(message, ObjectDeleted):
        return dump_change("DELETED", identity(seen.ref, str(message.version)), output)
    return dump_change("ERROR", identity(seen.ref, "") | {"message": seen.error}, output)


async def _get(settings: BusSettings, resource: str, namespace: str, name: str, output: Format) -> None:
    async with replica.reach(settings) as bus:
        everything = await replica.snapshot(bus)
    known = [seen.ref.resource for seen in everything]
    meant = find(resource, known)
    if meant is None:
        raise CommandError(_unknown(resource, known))
    ref = named(meant, namespace, name)
    seen = next((seen for seen in everything if seen.ref == ref), None)
    if seen is None:
        raise CommandError(f"the bus knows no {ref}; `seaway state -r {resource}` lists what it knows")
    if not isinstance(seen.message, ObjectApplied):
        raise CommandError(seen.error)
    if output is Format.TABLE:
        typer.echo(table([row(seen.message, seen.stored, replica.now())]))
    else:
        typer.echo(dump(document(seen.message), output))


async def _events(settings: BusSettings, *, watch: bool) -> None:
    async with replica.reach(settings) as bus:
        async for said in events.facts(bus, watch=watch):
            typer.echo(said.line())


async def _alerts(settings: BusSettings) -> None:
    async with replica.reach(settings) as bus:
        found = await alerts.firing(bus)
    rows = [(alert.since, alert.severity, alert.service, alert.instance, alert.name, alert.summary) for alert in found]
    typer.echo(table(rows, ALERT_COLUMNS))


def _chosen(everything: list[replica.Seen], resource: str, namespace: str) -> list[replica.Seen]:
    known = [seen.ref.resource for seen in everything]
    meant = find(resource, known) if resource else None
    if resource and meant is None:
        raise CommandError(_unknown(resource, known))
    return [seen for seen in everything if meant in {None, seen.ref.resource} and namespace in {"", seen.ref.namespace}]


def _unknown(resource: str, known: list[Resource]) -> str:
    names = ", ".join(sorted({one.plural for one in known})) or "nothing yet"
    return f"the bus holds no resource {resource!r}; it holds {names}"
