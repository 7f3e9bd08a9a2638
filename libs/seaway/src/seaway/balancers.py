"""What load balancers need of this machine and of the cluster, looked at and made before they start.

The pools that the operator named become the ConfigMap that a Seaway in the cluster has too, so that whoever asks the cluster, or the bus,
finds them there. One that somebody else wrote is left as it is.
"""

import asyncio
import os
import pwd
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from common.contracts.objects import Namespace, Node
from common.contracts.refs import ObjectRef
from common.kube.errors import AlreadyExists, Forbidden, KubeError, Misconfigured, NotFound, Owned, Unauthorized
from common.kube.session import KubeSession
from haproxy_lb.frame import INSIDE
from haproxy_lb.kernel import Kernel, KernelError
from seaway.balanced import HAPROXY, POOLS, pools
from seaway.ground import CannotStart, Say
from seaway.parts import Balancers, Balancing, Options, User

_WHERE: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_PACKAGES: Final = {HAPROXY: HAPROXY, "nft": "nftables", "ip": "iproute2"}
_MANAGER: Final = "seaway-up"
_DEADLINE: Final = 10.0
_AGAIN: Final = 0.5  # seconds before an API server that did not answer is asked again


def find(balancing: Balancing) -> Balancers:
    """The programs that balance. Raises CannotStart for what is missing, or cannot be."""
    try:
        pools(balancing.pools)
    except ValueError as error:
        raise CannotStart(f"--lb-pool: {error}") from None
    if os.geteuid() != 0:
        raise CannotStart("load balancers change the kernel's tables, which is for root; run this as root, or leave --lb out")
    needed = _PACKAGES | ({"keepalived": "keepalived"} if balancing.interface is not None else {})
    programs = {program: shutil.which(program, path=_WHERE) for program in needed}
    for program, path in programs.items():
        if path is None:
            raise CannotStart(f"{program} is missing; install it with: apt-get install {needed[program]}")
    names = [name for _, name in socket.if_nameindex()]
    if balancing.interface is not None and balancing.interface not in names:
        raise CannotStart(f"there is no interface {balancing.interface} here; --vip-interface may be one of {', '.join(names)}")
    return Balancers(str(programs[HAPROXY]), _user(), programs.get("keepalived"))


def _user() -> User:
    try:
        entry = pwd.getpwnam(HAPROXY)
    except KeyError:
        raise CannotStart(f"there is no user {HAPROXY}, as whom HAProxy runs; add it with: useradd --system {HAPROXY}") from None
    return User(HAPROXY, entry.pw_uid, entry.pw_gid)


def directories(options: Options, found: Balancers) -> None:
    """Makes what the parts keep their things in. HAProxy's group reads what is written in the one, and makes its sockets in the other."""
    home = options.home
    for directory, mode in ((home.balancer, 0o2750), (home.balancer / "run", 0o700), (home.floating, 0o755)):
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
    os.chown(home.balancer, 0, found.user.gid)
    home.balancer.chmod(0o2750)  # chown(2) takes the bit away
    os.chown(home.balancer / "run", found.user.uid, found.user.gid)
    (home.balancer / "haproxy.cfg").unlink(missing_ok=True)  # it may be for another port; the service writes it anew


class Ask:
    """What is asked of the cluster of a kubeconfig. `node` is this machine's Node, once that is known."""

    def __init__(self, kubeconfig: Path, balancing: Balancing) -> None:
        self.node: Any = {}
        self._kubeconfig = kubeconfig
        self._balancing = balancing

    async def missing(self) -> str | None:
        """None once the cluster has the pools, or why it has not yet. Raises CannotStart for what will not mend itself."""
        try:
            async with asyncio.timeout(_DEADLINE), KubeSession.from_kubeconfig(str(self._kubeconfig), agent=_MANAGER) as kube:
                await self._agree(kube)
        except Owned as error:
            owner = error.fields[0][1] if error.fields else "somebody else"
            raise CannotStart(
                f"ConfigMap {POOLS.namespace}/{POOLS.name} has other pools than --lb-pool says ({owner}); "
                "name the same ones, or delete it"
            ) from None
        except (Forbidden, Misconfigured, Unauthorized) as error:
            raise CannotStart(str(error)) from None
        except TimeoutError:
            return f"the API server did not answer within {_DEADLINE:g} s"
        except KubeError as error:
            await asyncio.sleep(_AGAIN)
            return str(error)
        return None

    async def _agree(self, kube: KubeSession) -> None:
        if self._balancing.interface is not None:
            try:
                self.node = await kube.get(ObjectRef(Node.resource, "", self._balancing.node))
            except NotFound:
                raise CannotStart(
                    f"the cluster has no Node {self._balancing.node}, and addresses are held by nodes; name this machine's with --node"
                ) from None
        try:
            await kube.get(ObjectRef(Namespace.resource, "", POOLS.namespace))
        except NotFound:
            with suppress(AlreadyExists):
                await kube.create(Namespace.resource, {"metadata": {"name": POOLS.namespace}})
        await kube.apply(POOLS, {"data": pools(self._balancing.pools)}, manager=_MANAGER)


async def leave_nothing(balancing: Balancing, warn: Say) -> None:
    """Takes away what the kernel was told, also by a balancer that could not do so itself."""
    try:
        await Kernel(balancing.port, INSIDE).remove()
    except KernelError as error:
        warn(f"the kernel's table for load balancers could not be removed: {error}")
