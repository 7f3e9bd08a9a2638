"""Kernel: which addresses and ports are sent to HAProxy, as a table of nftables that is ours alone.

One transaction changes it, so no packet sees half of a change. The chains stand before those of kube-proxy (priority dstnat, -100): a
connection that one of them has sent on is not looked at by the next. Connections that are under way belong to the connection tracker and
stay as they are.

An IPv4 connection is sent to HAProxy's port on this machine; an IPv6 one to an address inside a network that a route of ours makes local,
so that HAProxy sees by the address where it was meant to go.

The maps are declared by `typeof`: a map that nft 1.1 made by `type` ends nft 1.0 (Debian 12), whatever that was asked for, and so would an
operator's on a node whose pods are newer than itself.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv6Network
from typing import Any, Final

from common.contracts.ip import read_address
from common.process import Outcome, validate
from haproxy_lb.model import FrontKey

_TABLE: Final = "seaway_lb"
_DEADLINE: Final = 30.0  # seconds for a thousand fronts on a machine that is starved
_PROTOCOL: Final = "83"  # of our routes, so that they can be told from others (ip-route(8))
_ELSEWHERE: Final = "elsewhere"
_CHAINS: Final = {"arriving": "prerouting", "leaving": "output"}
_GONE: Final = """\
add table inet {table}
delete table inet {table}
"""
_FRAME: Final = (
    _GONE
    + """\
table inet {table} {{
  map fronts4 {{ typeof ip daddr . tcp dport : tcp dport; }}
  map fronts6 {{ typeof ip6 daddr . tcp dport : ip6 daddr . tcp dport; }}
{chains}
}}
"""
)
_CHAIN: Final = """\
  chain {name} {{
    type nat hook {hook} priority -110; policy accept;
    meta nfproto ipv4 meta l4proto tcp redirect to :ip daddr . tcp dport map @fronts4
    meta nfproto ipv6 meta l4proto tcp dnat ip6 to ip6 daddr . tcp dport map @fronts6
  }}"""

Fronts = Mapping[FrontKey, str]  # where each leads: an address inside for IPv6, nothing for IPv4


class KernelError(Exception):
    """The kernel does not take it, or a program that talks to it is missing."""


class Kernel:
    """The fronts of a network namespace: this one, or that in which `prefix` runs a program."""

    def __init__(self, port: int, inside: IPv6Network, prefix: Sequence[str] = ()) -> None:
        self._port = port
        self._inside = inside
        self._prefix = tuple(prefix)

    async def held(self) -> dict[FrontKey, str] | None:
        """The fronts that are there; None if our table is not."""
        outcome = await self._run(["nft", "--json", "list", "table", "inet", _TABLE])
        if outcome.code:
            return None
        try:
            return _read(json.loads(outcome.output)["nftables"], self._port)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise KernelError(f"what nft says of table {_TABLE} cannot be read: {error!r}") from error

    async def replace(self, fronts: Fronts) -> None:
        """Makes our table anew, with these fronts."""
        if await self._has_ipv6():
            await self._must(["ip", "-6", "route", "replace", "local", str(self._inside), "dev", "lo", "proto", _PROTOCOL])
        chains = "\n".join(_CHAIN.format(name=name, hook=hook) for name, hook in _CHAINS.items())
        await self._feed(_FRAME.format(table=_TABLE, chains=chains) + self._elements("add", fronts.items()))

    async def remove(self) -> None:
        """Takes all that is ours away, and connections go where they went without us."""
        await self._feed(_GONE.format(table=_TABLE))
        # It is not there where there is no IPv6.
        await self._run(["ip", "-6", "route", "delete", "local", str(self._inside), "dev", "lo", "proto", _PROTOCOL])

    async def change(self, held: Fronts, wanted: Fronts) -> None:
        """Makes a table that has `held` have `wanted`."""
        gone = {key: inside for key, inside in held.items() if wanted.get(key) != inside}
        come = {key: inside for key, inside in wanted.items() if held.get(key) != inside}
        if gone or come:
            await self._feed(self._elements("delete", gone.items()) + self._elements("add", come.items()))

    async def _has_ipv6(self) -> bool:
        return (await self._run(["ip", "-6", "route", "show", "table", "local"])).output.strip() != ""

    def _elements(self, verb: str, fronts: Iterable[tuple[FrontKey, str]]) -> str:
        lines = []
        for key, inside in sorted(fronts):
            # Once more, since this becomes text that nft reads.
            address, port, leads = read_address(key.address), int(key.port), ""
            if verb == "add":
                leads = f" : {read_address(inside)} . {self._port}" if inside else f" : {self._port}"
            lines.append(f"{verb} element inet {_TABLE} fronts{address.version} {{ {address} . {port}{leads} }}\n")
        return "".join(lines)

    async def _feed(self, text: str) -> None:
        await self._must(["nft", "--file", "-"], text)

    async def _must(self, command: Sequence[str], text: str = "") -> None:
        outcome = await self._run(command, text)
        if outcome.code:
            raise KernelError(f"{' '.join(command)} failed: {outcome.output.strip()[:500]}")

    async def _run(self, command: Sequence[str], text: str = "") -> Outcome:
        try:
            return await validate([*self._prefix, *command], timeout=_DEADLINE, told=text.encode())
        except TimeoutError as error:
            raise KernelError(f"{command[0]} did not end within {_DEADLINE:g} s") from error
        except OSError as error:
            raise KernelError(f"{command[0]} cannot be run: {error}; install the Debian packages nftables and iproute2") from error


def _read(items: Sequence[Mapping[str, Any]], port: int) -> dict[FrontKey, str] | None:
    """The fronts in nft's JSON (libnftables-json(5)): `[{"concat": [address, port]}, leads]`. None if chains or rules are missing."""
    chains = sum("chain" in one for one in items)
    rules = sum("rule" in one for one in items)
    if (chains, rules) != (len(_CHAINS), 2 * len(_CHAINS)):
        return None
    found: dict[FrontKey, str] = {}
    for one in items:
        for key, leads in one.get("map", {}).get("elem", ()):
            inside, to = leads["concat"] if isinstance(leads, dict) else ("", leads)
            found[FrontKey(*key["concat"])] = inside if to == port else _ELSEWHERE
    return found
