"""What the balancer of a node finds: which endpoints are unwell, and whether it does what it should.

It stands among the wishes (`wanted.v1`), where only the newest of each node stays, and is said again now and then for as long as the node's
balancer lives:

    wanted.v1.<cluster>.haproxy-lb.node=2F<name>
"""

from typing import Final

from pydantic import BaseModel, ConfigDict

from common.contracts.events import CloudEvent

SERVICE: Final = "haproxy-lb"
FOUND: Final = "dev.seaway.balancer.found.v1"


class UnwellEndpoint(BaseModel):
    """An endpoint (ADDRESS:PORT) of a port of a Service, which does not answer its checks."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    namespace: str
    service: str
    port: int
    endpoint: str


class BalancerFound(BaseModel):
    """What the balancer of a node finds. `trouble`: why it does not do what it should; `unwell` are sorted, and `more` are not listed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    node: str
    trouble: str = ""
    unwell: tuple[UnwellEndpoint, ...] = ()
    more: int = 0


class FindingError(ValueError):
    """An event that is not what stands there."""


def node_what(name: str) -> str:
    """The last token, before encoding, of the subject where a node's balancer speaks."""
    return f"node/{name}"


def found_event(found: BalancerFound, *, id: str, time: str) -> CloudEvent:  # noqa: A002 the attribute's name
    """`found` in its envelope."""
    return CloudEvent(id=id, source=f"/services/{SERVICE}", type=FOUND, time=time, data=found.model_dump(mode="json"))


def read_found(event: CloudEvent) -> BalancerFound:
    """What `event` says. Raises FindingError."""
    if event.type != FOUND:
        raise FindingError(f"{event.type} is not {FOUND}")
    try:
        return BalancerFound.model_validate(event.data)
    except ValueError as error:
        raise FindingError(f"{event.type} is not valid: {error}") from error
