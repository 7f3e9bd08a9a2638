"""Addresses that an operator names himself, such as that of the HTTP edge: a ConfigMap whose keys are names and whose values are addresses.

data:
  edge: 192.0.2.10, 2001:db8::10
"""

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from common.contracts.objects import ConfigMap
from common.contracts.problems import Problem
from keepalived_vip.model import Address, order

_BETWEEN: Final = re.compile(r"[\s,]+")
_SHOWN: Final = 80


def unfit(address: Address, own: Collection[str]) -> str | None:
    """Why no node can hold `address`; `own` are the addresses of the nodes themselves."""
    if str(address) in own:
        return "is a node's own address; choose another one"
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local or int(address) == 2**32 - 1:
        return "is not one that a single machine of a network can have; choose another one"
    return None


def statics(found: ConfigMap | None, own: Collection[str]) -> tuple[dict[Address, str], tuple[Problem, ...]]:
    """The addresses of the ConfigMap with their names, and what is wrong with others. A bad one is left out alone."""
    if found is None:
        return {}, ()
    named: dict[Address, str] = {}
    problems: list[Problem] = []
    for key, text in sorted(found.data.items()):
        for word in filter(None, _BETWEEN.split(text)):
            address, fault = _read(word, own)
            if address is not None and address in named:
                fault = f"is that of {named[address]} too; one name is enough"
            elif address is not None and fault is None:
                named[address] = key
            if fault is not None:
                problems.append(Problem(found.ref, "BadAddress", f"data.{key}: {word[:_SHOWN]!r} {fault}"))
    return dict(sorted(named.items(), key=lambda item: order(item[0]))), tuple(sorted(problems))


def _read(word: str, own: Collection[str]) -> tuple[Address | None, str | None]:
    try:
        address = ip_address(word)
    except ValueError:
        return None, "is no address; write it without a prefix length, such as 192.0.2.10"
    if getattr(address, "scope_id", None):
        return None, "has a zone; write it without"
    return address, unfit(address, own)
