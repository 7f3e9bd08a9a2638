"""The command `seaway up`: what an operator may ask for, and how what cannot be is told."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from seaway.commands import Data
from seaway.ground import CannotStart
from seaway.local import PORT, Home, default_root, vault_of
from seaway.parts import Balancing, Options
from seaway.up import up


def run_up(
    manifests: Annotated[
        Path | None, typer.Option(help="Serve the manifests in this folder.", exists=True, file_okay=False)
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Serve the cluster of this kubeconfig (or KUBECONFIG).", exists=True, dir_okay=False)
    ] = None,
    http: Annotated[int, typer.Option(min=1, max=65535, help="Port of HTTP.")] = 80,
    https: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTPS; 0 is none.")] = 443,
    ingress_class: Annotated[
        str, typer.Option("--class", help="The annotation kubernetes.io/ingress.class that is ours.")
    ] = "nginx",
    controller: Annotated[str, typer.Option(help="IngressClasses with this spec.controller are ours.")] = "k8s.io/ingress-nginx",
    workers: Annotated[int, typer.Option(min=0, max=1024, help="Worker processes of nginx; 0 is one a processor.")] = 0,
    publish_status_address: Annotated[
        list[str] | None, typer.Option(help="Address or name that Ingresses show in their status; may be given several times.")
    ] = None,
    ssl_passthrough: Annotated[  # noqa: FBT002 typer's way
        bool, typer.Option("--ssl-passthrough", help="Pass TLS connections on unopened, to the Ingresses that ask for it.")
    ] = False,
    lb: Annotated[bool, typer.Option("--lb", help="Balance Services of type LoadBalancer too (needs --lb-pool).")] = False,  # noqa: FBT002 typer's way
    lb_pool: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Addresses for Services: a network, FIRST-LAST, or one; may be given several times."),
    ] = None,
    lb_default: Annotated[bool, typer.Option("--lb-default", help="Services without a loadBalancerClass are ours too.")] = False,  # noqa: FBT002 typer's way
    lb_port: Annotated[int, typer.Option(min=1, max=65534, help="Port of HAProxy; it has the next one too.")] = 14480,
    vip_interface: Annotated[
        str | None, typer.Option(metavar="IF", help="Hold the addresses on this interface; unless given, others lead them here.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Name of this machine's Node; its host name unless given.")] = None,
    nats_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the bus, on 127.0.0.1.")] = PORT,
    data: Data = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show all that the parts say.")] = False,  # noqa: FBT002 typer's way
) -> None:
    """Run a Seaway on this machine until Ctrl-C: the bus, the watcher, the renderer and nginx; with --lb the balancer and HAProxy."""
    kubeconfig = kubeconfig or _kubeconfig_of_environment(manifests)
    if (manifests is None) == (kubeconfig is None):
        typer.echo("seaway: name one source of objects: --manifests DIR or --kubeconfig FILE", err=True)
        raise typer.Exit(2)
    if complaint := _complaint(lb, manifests, lb_pool, lb_default or vip_interface is not None):
        typer.echo(f"seaway: {complaint}", err=True)
        raise typer.Exit(2)
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
        balancing=Balancing(
            pools=tuple(lb_pool or ()),
            node=node or os.uname().nodename,
            default=lb_default,
            interface=vip_interface,
            port=lb_port,
        )
        if lb
        else None,
        verbose=verbose,
    )
    try:
        asyncio.run(up(options, typer.echo, _warn))
    except CannotStart as error:
        typer.echo(f"seaway: {error}", err=True)
        raise typer.Exit(1) from None


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
        typer.echo(f"seaway: KUBECONFIG is {named}, and there is no such file; name one, or use --kubeconfig FILE", err=True)
        raise typer.Exit(2)
    return Path(named)


def _warn(text: str) -> None:
    typer.echo(text, err=True)
