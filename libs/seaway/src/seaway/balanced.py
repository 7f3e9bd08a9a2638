"""The parts of a Seaway on one machine that balance connections: HAProxy with its service, and what holds the addresses. Pure."""

import json
from pathlib import Path
from typing import Any, Final

from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.pools import KEY, read_pools
from seaway.nats_conf import BALANCER, VIP
from seaway.parts import Balancers, Balancing, Options, Part, Programs, confined, service

HAPROXY: Final = "haproxy"
POOLS: Final = ObjectRef(ConfigMap.resource, "seaway-edge", "lb-pools")
HOSTNAME: Final = "kubernetes.io/hostname"
_POOL: Final = "seaway-up"


def pools(addresses: tuple[str, ...]) -> dict[str, str]:
    """The data of the ConfigMap of the pools. Raises ValueError for what is no pool, with the mend."""
    data = {KEY: json.dumps({"pools": [{"name": _POOL, "addresses": list(addresses)}]}) + "\n"}
    read = read_pools(ConfigMap.read({"metadata": {"namespace": POOLS.namespace, "name": POOLS.name}, "data": data}))
    if read.problems:
        raise ValueError(read.problems[0].message.removeprefix(f"key {KEY!r}: ").removeprefix("pools[0].addresses: "))
    return data


def haproxy_lb(options: Options, balancing: Balancing, programs: Programs, found: Balancers) -> Part:
    """The service that gives addresses and drives HAProxy."""
    settings = {
        "KUBECONFIG": str(options.kubeconfig),
        "NODE": balancing.node,
        "LEASE_NAME": "",  # nobody else gives addresses
        "DEFAULT_CLASS": str(balancing.default),
        "STATE": str(options.home.balancer),
        "SOCKETS": str(options.home.balancer / "run"),
        "HAPROXY": found.haproxy,
        "PORT": str(balancing.port),
        "PEER_PORT": str(balancing.port + 1),
        "LEAVE_AFTER": "0",  # there is no other machine that addresses could go to
    }
    whose = "that name no class, and those of class" if balancing.default else "of class"
    says = f"gives Services {whose} seaway.dev/haproxy addresses of {', '.join(balancing.pools)}"
    return service(options, BALANCER, (programs.python, "-m", "haproxy_lb"), says, settings)


def haproxy(options: Options, balancing: Balancing, programs: Programs, found: Balancers) -> Part:
    """HAProxy: as its own user, which has no capability."""
    home = options.home.balancer
    command = (found.haproxy, "-W", "-S", f"{home}/run/master.sock,mode,600", "-f", f"{home}/haproxy.cfg")
    says = f"takes their connections, which the kernel sends to port {balancing.port}"
    return Part(HAPROXY, (*confined(programs, found.user), *command), says)


def keepalived_vip(options: Options, balancing: Balancing, programs: Programs, found: Balancers, node: Any) -> Part:
    """What holds the addresses, by keepalived, while the balancer is ready. Of the nodes of the cluster, only `node` takes part."""
    label = node.get("metadata", {}).get("labels", {}).get(HOSTNAME)
    settings = {
        "NODE": balancing.node,
        "NODE_SELECTOR": f"{HOSTNAME}={label}" if label else "",
        "INTERFACE": str(balancing.interface),
        "RUN": str(options.home.floating),
        "STATE": str(options.home.floating),
        "KEEPALIVED": str(found.keepalived),
        "EDGES": json.dumps([f"tcp:127.0.0.1:{balancing.port}", f"unix:{options.home.run / BALANCER}"]),
    }
    return service(options, VIP, (programs.python, "-m", "keepalived_vip"), f"holds them on {balancing.interface}", settings)


def configuration(options: Options) -> Path:
    """What HAProxy waits for."""
    return options.home.balancer / "haproxy.cfg"
