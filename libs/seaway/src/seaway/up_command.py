"""The command `seaway up`: what an operator may ask for, and how what cannot be is told."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from seaway.commands import Data
from seaway.ground import CannotStart
from seaway.local import PORT, Home, default_root, vault_of
from seaway.parts import Balancing, Options
from seaway.up import up

# An option is a type: its name, its bounds and its help stand here, and a function that takes it fits a screen.
Manifests = Annotated[Path | None, typer.Option(help="Serve the manifests in this folder.", exists=True, file_okay=False)]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Serve the cluster of this kubeconfig (or KUBECONFIG).", exists=True, dir_okay=False)
]
Http = Annotated[int, typer.Option(min=1, max=65535, help="Port of HTTP.")]
Https = Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTPS; 0 is none.")]
IngressClass = Annotated[str, typer.Option("--class", help="The annotation kubernetes.io/ingress.class that is ours.")]
Controller = Annotated[str, typer.Option(help="IngressClasses with this spec.controller are ours.")]
Workers = Annotated[int, typer.Option(min=0, max=1024, help="Worker processes of nginx; 0 is one a processor.")]
StatusAddresses = Annotated[
    list[str] | None, typer.Option(help="Address or name that Ingresses show in their status; may be given several times.")
]
Passthrough = Annotated[
    bool, typer.Option("--ssl-passthrough", help="Pass TLS connections on unopened, to the Ingresses that ask for it.")
]
Lb = Annotated[bool, typer.Option("--lb", help="Balance Services of type LoadBalancer too (needs --lb-pool).")]
LbPools = Annotated[
    list[str] | None,
    typer.Option(metavar="CIDR", help="Addresses for Services: a network, FIRST-LAST, or one; may be given several times."),
]
LbDefault = Annotated[bool, typer.Option("--lb-default", help="Services without a loadBalancerClass are ours too.")]
LbPort = Annotated[int, typer.Option(min=1, max=65534, help="Port of HAProxy; it has the next one too.")]
Interface = Annotated[
    str | None, typer.Option(metavar="IF", help="Hold the addresses on this interface; unless given, others lead them here.")
]
Node = Annotated[str | None, typer.Option(help="Name of this machine's Node; its host name unless given.")]
NatsPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the bus, on 127.0.0.1.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show all that the parts say.")]


def run_up(
    manifests: Manifests = None,
    kubeconfig: Kubeconfig = None,
    http: Http = 80,
    https: Https = 443,
    ingress_class: IngressClass = "nginx",
    controller: Controller = "k8s.io/ingress-nginx",
    workers: Workers = 0,
    publish_status_address: StatusAddresses = None,
    ssl_passthrough: Passthrough = False,  # noqa: FBT002 typer's way
    lb: Lb = False,  # noqa: FBT002
    lb_pool: LbPools = None,
    lb_default: LbDefault = False,  # noqa: FBT002
    lb_port: LbPort = 14480,
    vip_interface: Interface = None,
    node: Node = None,
    nats_port: NatsPort = PORT,
    data: Data = None,
    verbose: Verbose = False,  # noqa: FBT002
) -> None:
    """Run a Seaway on this machine until Ctrl-C: the bus, the watcher, the renderer and nginx; with --lb the balancer and HAProxy."""
    kubeconfig = kubeconfig or _kubeconfig_of_environment(manifests)
    if (manifests is None) == (kubeconfig is None):
        _refuse("name one source of objects: --manifests DIR or --kubeconfig FILE")
    if complaint := _complaint(lb, manifests, lb_pool, lb_default or vip_interface is not None):
        _refuse(complaint)
    pools, node = tuple(lb_pool or ()), node or os.uname().nodename
    balancing = Balancing(pools=pools, node=node, default=lb_default, interface=vip_interface, port=lb_port)
    root = (data or default_root()).absolute()
    options = Options(
        home=Home(root),
        vault=vault_of(root),
        manifests=manifests.absolute() if manifests else None,
        kubeconfig=kubeconfig.absolute() if kubeconfig else None,
        http=http,
        https=https,
        ingress_class=ingress_class,
        controller=controller,
        workers=workers,
        nats=nats_port,
        addresses=tuple(publish_status_address or ()),
        ssl_passthrough=ssl_passthrough,
        balancing=balancing if lb else None,
        verbose=verbose,
    )
    _run(options)


def _run(options: Options) -> None:
    try:
        asyncio.run(up(options, typer.echo, _warn))
    except CannotStart as error:
        typer.echo(f"seaway: {error}", err=True)
        raise typer.Exit(1) from None


def _refuse(sentence: str) -> NoReturn:
    typer.echo(f"seaway: {sentence}", err=True)
    raise typer.Exit(2)


def _complaint(lb: bool, manifests: Path | None, pools: list[str] | None, more: bool) -> str:  # noqa: FBT001 as typer has them
    """What is wrong with the options of load balancers; empty if nothing is."""
    if not lb:
        return "--lb-pool, --lb-default and --vip-interface are for load balancers; give --lb too" if pools or more else ""
    if manifests is not None:
        return "--lb gives addresses to Services of a cluster, and a folder of manifests is none; use --kubeconfig FILE"
    return "" if pools else "--lb needs addresses to give; name a network with --lb-pool CIDR, such as 192.0.2.16/28"


def _kubeconfig_of_environment(manifests: Path | None) -> Path | None:
    """What KUBECONFIG names, where no other source is named."""
    named = os.environ.get("KUBECONFIG", "")
    if manifests is not None or not named:
        return None
    if not Path(named).is_file():
        _refuse(f"KUBECONFIG is {named}, and there is no such file; name one, or use --kubeconfig FILE")
    return Path(named)


def _warn(text: str) -> None:
    typer.echo(text, err=True)
