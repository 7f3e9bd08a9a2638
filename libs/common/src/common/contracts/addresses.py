"""Floating addresses: which ones must be held by a node of the cluster, as a wish that stands on the bus until it is replaced.

The wish of a service is one message at `wanted.v1.<cluster>.<service>.addresses`, where only the newest stays: it is the whole wish, so a
reader that comes late has all of it, and there is no question whether it is complete. No message means that the service has never said
anything, which is not the same as an empty wish. Who holds addresses checks them against the pools: whoever can write here has skipped
the API server.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict

from common.contracts.events import CloudEvent

WANTED: Final = "dev.seaway.addresses.wanted.v1"
WHAT: Final = "addresses"


class WantedAddress(BaseModel):
    """An address, without brackets, the pool that it is from, and the Services (`namespace/name`) that are reached at it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ip: str
    pool: str = ""
    services: tuple[str, ...] = ()


class AddressesWanted(BaseModel):
    """All addresses that a service wants to be held, sorted. `instance` says so, and `revision` grows with each of its wishes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    instance: str
    revision: int = 0
    addresses: tuple[WantedAddress, ...] = ()


class WishError(ValueError):
    """An event that is no wish for addresses."""


def wanted_event(wish: AddressesWanted, *, service: str, id: str, time: str) -> CloudEvent:  # noqa: A002 the attribute's name
    """`wish` in its envelope. `id` must be unique for this service, `time` is RFC 3339."""
    return CloudEvent(id=id, source=f"/services/{service}", type=WANTED, time=time, data=wish.model_dump(mode="json"))


def read_wanted(event: CloudEvent) -> AddressesWanted:
    """The wish that `event` carries. Raises WishError."""
    if event.type != WANTED:
        raise WishError(f"{event.type} is no wish for addresses")
    try:
        return AddressesWanted.model_validate(event.data)
    except ValueError as error:
        raise WishError(f"the wish for addresses is not valid: {error}") from error
