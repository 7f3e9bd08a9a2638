"""Kernel: which addresses and ports are sent to HAProxy, as a table of nftables that is ours alone.

One transaction changes it, so no packet sees half of a change. The chains stand before those of kube-proxy (priority dstnat, -100): a
connection that one of them has sent on is not looked at by the next. Connections that are under way belong to the connection tracker and
stay as they are.

A connection is sent to HAProxy's port at an address of a network that a route of ours makes this machine's: for IPv4 the door of a slot or
the hall (`doors`), for IPv6 one by which HAProxy sees where the connection was meant to go. HAProxy cannot listen at doors before the
route is there.

Of these networks, packets are taken only if they were sent there by us, and the first one of a connection to a door only while a front
leads there. Connections that have been taken go on, whatever becomes of the front.

The maps are declared by `typeof`: a map that nft 1.1 made by `type` ends nft 1.0 (Debian 12), whatever that was asked for, and so would an
operator's on a node whose pods are newer than itself.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from common.contracts.ip import read_address
from common.process import Outcome, validate
from haproxy_lb.doors import HALL, NETWORK, is_door
from haproxy_lb.model import FrontKey

_TABLE: Final = "seaway_lb"
_DEADLINE: Final = 30.0  # seconds for a thousand fronts on a machine that is starved
_PROTOCOL: Final = "83"  # of our routes, so that they can be told from others (ip-route(8))
_CLOSED: Final = 5  # rules
_CHAINS: Final = {"arriving": "prerouting", "leaving": "output"}
_GONE: Final = """\
add table inet {table}
delete table inet {table}
"""
_FRAME: Final = (
    _GONE
    + """\
table inet {table} {{
  map fronts4 {{ typeof ip daddr . tcp dport : ip daddr . tcp dport; }}
  map fronts6 {{ typeof ip6 daddr . tcp dport : ip6 daddr . tcp dport; }}
  set doors {{ typeof ip daddr; }}
{chains}
  chain closed {{
    type filter hook input priority filter - 10; policy accept;
    ip daddr {network} tcp flags & (fin | syn | rst | ack) == syn ip daddr != {hall} ip daddr != @doors reject with tcp reset
    ip daddr {network} ct status dnat accept
    ip daddr {network} drop
    ip6 daddr {inside} ct status dnat accept
    ip6 daddr {inside} drop
  }}
}}
"""
)
_CHAIN: Final = """\
  chain {name} {{
    type nat hook {hook} priority -110; policy accept;
    meta nfproto ipv4 meta l4proto tcp dnat ip to ip daddr . tcp dport map @fronts4
    meta nfproto ipv6 meta l4proto tcp dnat ip6 to ip6 daddr . tcp dport map @fronts6
  }}"""

Fronts = Mapping[FrontKey, str]  # the address to which each leads


class KernelError(Exception):
    """The kernel does not take it, or a program that talks to it is missing."""


class Kernel:
    """The fronts of a network namespace: this one, or that in which `prefix` runs a program."""

    def __init__(self, port: int, inside: IPv6Network, prefix: Sequence[str] = ()) -> None:
        self._port = port
        self._inside = inside
        self._prefix = tuple(prefix)

    async def held(self) -> dict[FrontKey, str] | None:
        """The fronts that are there; None if our table is not, or lacks something, or our routes are not."""
        outcome = await self._run(["nft", "--json", "list", "table", "inet", _TABLE])
        if outcome.code or not await self._routed():
            return None
        try:
            return _read(json.loads(outcome.output)["nftables"], self._port)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise KernelError(f"what nft says of table {_TABLE} cannot be read: {error!r}") from error

    async def route(self) -> None:
        """Makes the addresses to which fronts lead this machine's."""
        await self._must(["ip", "-4", "route", "replace", *self._local(NETWORK)])
        if await self._has_ipv6():
            await self._must(["ip", "-6", "route", "replace", *self._local(self._inside)])

    async def replace(self, fronts: Fronts) -> None:
        """Makes our table anew, with these fronts."""
        await self.route()
        chains = "\n".join(_CHAIN.format(name=name, hook=hook) for name, hook in _CHAINS.items())
        frame = _FRAME.format(table=_TABLE, chains=chains, network=NETWORK, hall=HALL, inside=self._inside)
        await self._feed(frame + _doors("add", set(fronts.values())) + self._elements("add", fronts.items()))

    async def remove(self) -> None:
        """Takes all that is ours away, and connections go where they went without us."""
        await self._feed(_GONE.format(table=_TABLE))
        # They may not be there, and that of IPv6 is not where there is none.
        await self._run(["ip", "-4", "route", "delete", *self._local(NETWORK)])
        await self._run(["ip", "-6", "route", "delete", *self._local(self._inside)])

    async def change(self, held: Fronts, wanted: Fronts) -> None:
        """Makes a table that has `held` have `wanted`."""
        gone = {key: inside for key, inside in held.items() if wanted.get(key) != inside}
        come = {key: inside for key, inside in wanted.items() if held.get(key) != inside}
        if gone or come:
            before, after = set(held.values()), set(wanted.values())
            await self._feed(
                self._elements("delete", gone.items())
                + _doors("delete", before - after)
                + _doors("add", after - before)
                + self._elements("add", come.items())
            )

    @staticmethod
    def _local(network: IPv4Network | IPv6Network) -> list[str]:
        return ["local", str(network), "dev", "lo", "proto", _PROTOCOL]

    async def _routed(self) -> bool:
        four = await self._run(["ip", "-4", "route", "show", "table", "local", "proto", _PROTOCOL])
        six = await self._run(["ip", "-6", "route", "show", "table", "local", "proto", _PROTOCOL])
        return str(NETWORK) in four.output and (str(self._inside) in six.output or not await self._has_ipv6())

    async def _has_ipv6(self) -> bool:
        return (await self._run(["ip", "-6", "route", "show", "table", "local"])).output.strip() != ""

    def _elements(self, verb: str, fronts: Iterable[tuple[FrontKey, str]]) -> str:
        lines = []
        for key, inside in sorted(fronts):
            # Once more, since this becomes text that nft reads.
            address, port = read_address(key.address), int(key.port)
            leads = f" : {read_address(inside)} . {self._port}" if verb == "add" else ""
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


def _doors(verb: str, addresses: Iterable[str]) -> str:
    return "".join(f"{verb} element inet {_TABLE} doors {{ {address} }}\n" for address in sorted(filter(is_door, addresses)))


def _read(items: Sequence[Mapping[str, Any]], port: int) -> dict[FrontKey, str] | None:
    """The fronts in nft's JSON (libnftables-json(5)), pairs of `{"concat": [address, port]}`. None if the table must be made anew: it lacks
    chains or rules, fronts lead to another port, or other doors are open than those to which fronts lead.
    """
    chains = sum("chain" in one for one in items)
    rules = sum("rule" in one for one in items)
    if (chains, rules) != (len(_CHAINS) + 1, 2 * len(_CHAINS) + _CLOSED):
        return None
    found: dict[FrontKey, str] = {}
    opened: set[str] = set()
    for one in items:
        opened.update(one.get("set", {}).get("elem", ()))
        for key, leads in one.get("map", {}).get("elem", ()):
            inside, to = leads["concat"]
            if to != port:
                return None
            found[FrontKey(*key["concat"])] = inside
    return found if opened == set(filter(is_door, found.values())) else None
