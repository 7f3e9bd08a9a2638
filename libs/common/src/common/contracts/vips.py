"""Who holds which floating address: the plan on which the nodes agree, and what each of them has in force.

Both stand among the wishes (`wanted.v1`), where only the newest of each stays:

    wanted.v1.<cluster>.keepalived-vip.plan             the plan, by compare-and-set, of whichever node sees first that it must change
    wanted.v1.<cluster>.keepalived-vip.node=2F<name>    what a node has in force, said again every few seconds for as long as it lives
"""

from ipaddress import ip_address
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict

from common.contracts.events import CloudEvent
from common.contracts.facts import Fact

SERVICE: Final = "keepalived-vip"
PLAN: Final = "plan"
_TYPES: Final = "dev.seaway.vip"


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class PlannedNode(_Said):
    """A node that takes part; its own addresses; 0 well, 1 not ready, 2 cordoned, 3 excluded."""

    name: str
    v4: str = ""
    v6: str = ""
    standing: int = 0


class PlannedAddress(_Said):
    """An address, its group, and who wants it."""

    ip: str
    group: int
    owner: str = ""


class Home(_Said):
    """The node that should hold the addresses of a group."""

    group: int
    node: str


class VipPlan(_Said):
    """The plan. `revision` grows by one each time; it was made by `instance`, who had seen STATE (`created`) up to `through`. `former` are
    addresses that are wanted no more, and get their old group if they are wanted again.
    """

    instance: str
    revision: int
    created: str = ""
    through: int = 0
    nodes: tuple[PlannedNode, ...] = ()
    addresses: tuple[PlannedAddress, ...] = ()
    homes: tuple[Home, ...] = ()
    former: tuple[PlannedAddress, ...] = ()


def instance_name(family: int, group: int) -> str:
    """As keepalived calls the VRRP instance of a group in a family, 4 or 6."""
    return f"seaway-{family}-{group}"


class HeldAddress(_Said):
    """An address that a node has on its interface; its group, and since when (RFC 3339)."""

    ip: str
    group: int
    since: str

    @property
    def instance(self) -> str:
        """The VRRP instance that holds it."""
        return instance_name(ip_address(self.ip).version, self.group)


class VipNode(_Said):
    """What a node has in force: the revision of the plan, the nodes that it hears (itself too; none without a configuration), what it
    holds, and why it holds nothing if it may not.
    """

    node: str
    revision: int
    peers: tuple[str, ...] = ()
    held: tuple[HeldAddress, ...] = ()
    held_back: str = ""


class VipMoved(Fact):
    """A node came to hold an address, or holds it no more. `place` is the VRRP instance, such as `seaway-4-1`."""

    instance: str
    node: str
    ip: str
    place: str
    held: bool


class VipError(ValueError):
    """An event that is not what stands there."""


S = TypeVar("S", VipPlan, VipNode)


def node_what(name: str) -> str:
    """The last token, before encoding, of the subject where a node speaks."""
    return f"node/{name}"


def vip_event(said: VipPlan | VipNode, *, id: str, time: str) -> CloudEvent:  # noqa: A002 the attribute's name
    """`said` in its envelope."""
    return CloudEvent(id=id, source=f"/services/{SERVICE}", type=_type(type(said)), time=time, data=said.model_dump(mode="json"))


def read_vip(model: type[S], event: CloudEvent) -> S:
    """What `event` says. Raises VipError."""
    if event.type != _type(model):
        raise VipError(f"{event.type} is not {_type(model)}")
    try:
        return model.model_validate(event.data)
    except ValueError as error:
        raise VipError(f"{event.type} is not valid: {error}") from error


def _type(model: type[BaseModel]) -> str:
    return f"{_TYPES}.{'plan' if model is VipPlan else 'node'}.v1"
