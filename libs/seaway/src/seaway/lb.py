"""`seaway lb`: which Services have which addresses, and why."""

from typing import Annotated, Final

import typer

from common.bus.follower import Follower
from common.bus.protocol import Bus, Message
from common.bus.settings import BusSettings
from common.bus.streams import STATE
from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.contracts.subjects import STATE as STATE_ROOT
from common.contracts.subjects import SubjectError, parse_state
from common.snapshot import Replaced
from haproxy_lb.claims import ServiceName
from haproxy_lb.derive.classes import Class
from seaway import replica
from seaway.balancing import COLUMNS, Picture, Scope, explain, picture, rows
from seaway.commands import CommandError, Data, Nats, Nkey, TlsCa, bus_of, run
from seaway.hearing import hear
from seaway.view import table

_EDGE: Final = "seaway-edge"
CONFIGMAPS: Final = (ObjectRef(ConfigMap.resource, _EDGE, "lb-pools"), ObjectRef(ConfigMap.resource, _EDGE, "lb-reservations"))
CLASS: Final = Class().name

lb_app = typer.Typer(help="Services of type LoadBalancer: their addresses, and where their connections go.", no_args_is_help=True)

OurClass = Annotated[str, typer.Option("--class", help="The loadBalancerClass that is ours.")]
Default = Annotated[bool, typer.Option("--default", help="Services without a class are ours too.")]


@lb_app.command("list")
def show(
    ours: OurClass = CLASS,
    default: Default = False,  # noqa: FBT002 typer's way
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """List the Services that are balanced: addresses, ports, pool, endpoints, and what is wrong."""
    run(_list(bus_of(data, nats, nkey, tls_ca), Class(ours, default)))


@lb_app.command("explain")
def tell(
    service: Annotated[str, typer.Argument(help="NAMESPACE/SERVICE", metavar="NAMESPACE/SERVICE")],
    ours: OurClass = CLASS,
    default: Default = False,  # noqa: FBT002 typer's way
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Say why a Service has its addresses, who is asked to hold them, and where its connections go."""
    run(_explain(bus_of(data, nats, nkey, tls_ca), Class(ours, default), service))


async def _list(settings: BusSettings, ours: Class) -> None:
    typer.echo(table(rows(await _picture(settings, ours)), COLUMNS))


async def _explain(settings: BusSettings, ours: Class, service: str) -> None:
    namespace, _, name = service.partition("/")
    if not namespace or not name:
        raise CommandError(f"{service!r} names no Service; write NAMESPACE/SERVICE")
    for line in explain(await _picture(settings, ours), ServiceName(namespace, name)):
        typer.echo(line)


async def _picture(settings: BusSettings, ours: Class) -> Picture:
    async with replica.reach(settings) as bus:
        messages = await _state(bus)
        cluster = _cluster(messages)
        said = await hear(bus, cluster)
    for fault in said.faults:
        typer.echo(f"seaway: {fault}", err=True)
    return picture(Scope(cluster, ours, *CONFIGMAPS), messages, said, int(replica.now()))


async def _state(bus: Bus) -> tuple[Message, ...]:
    async with Follower(bus, STATE.name, (f"{STATE_ROOT}.>",), name="seaway-lb") as follower:
        async for update in follower:
            if isinstance(update, Replaced):
                return update.messages
    return ()


def _cluster(messages: tuple[Message, ...]) -> str:
    """The cluster that the bus speaks of."""
    for message in messages:
        try:
            return parse_state(message.subject).cluster
        except SubjectError:
            continue
    raise CommandError("the bus knows nothing of any cluster yet; is a watcher running?")
