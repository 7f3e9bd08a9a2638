"""What `seaway vip` shows: who holds which floating address and since when, who should, and what keeps a node from it.

Pure: it reads the plan and what each node said last. What a silent node said is shown with a question mark.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from common.contracts.vips import HeldAddress
from seaway.view import age
from seaway.wished import Heard, Wished

ADDRESSES: Final = ("ADDRESS", "WANTED BY", "HOLDER", "INSTANCE", "SINCE", "HOME", "NOTE")
NODES: Final = ("NODE", "HEARD", "STANDING", "HOLDS", "HOME TO", "NOTE")
_STANDINGS: Final = ("well", "not ready", "cordoned", "excluded")
_NOBODY: Final = "-"


def addresses(seen: Wished) -> Iterator[tuple[str, ...]]:
    """A row an address and holder; one that nobody holds has a row too, and so has one that is held though nobody wants it."""
    homes = {home.group: home.node for home in seen.plan.homes}
    wanted = {one.ip: one for one in seen.plan.addresses}
    held = seen.holders
    for ip in sorted({*wanted, *held}, key=lambda text: (ip_address(text).version, ip_address(text))):
        planned = wanted.get(ip)
        owner = (planned.owner or _NOBODY) if planned is not None else _NOBODY
        home = homes.get(planned.group, _NOBODY) if planned is not None else _NOBODY
        holders = held.get(ip, {})
        if not holders:
            yield (ip, owner, _NOBODY, _NOBODY, _NOBODY, home, "nobody holds it")
        for node, one in sorted(holders.items()):
            mark = "?" if seen.silent(node) else ""
            note = _note(seen, node, holders, wanted=planned is not None)
            yield (ip, owner, node + mark, one.instance, _since(one, seen.now), home, note)


def nodes(seen: Wished) -> Iterator[tuple[str, ...]]:
    """A row a node: of the plan, or heard."""
    planned = {node.name: node for node in seen.plan.nodes}
    for name in sorted({*planned, *seen.nodes}):
        heard = seen.nodes.get(name)
        standing = _STANDINGS[planned[name].standing] if name in planned else "takes no part"
        yield (
            name,
            "never" if heard is None else f"{age(seen.now - heard.at)} ago",
            standing,
            _NOBODY if heard is None else str(len(heard.said.held)),
            str(sum(home.node == name for home in seen.plan.homes)),
            _complaint(seen, heard),
        )


def _note(seen: Wished, node: str, holders: Mapping[str, HeldAddress], *, wanted: bool) -> str:
    sure = [other for other in holders if not seen.silent(other)]
    notes = []
    if len(sure) > 1 and node in sure:
        notes.append("held twice")
    if seen.silent(node):
        notes.append("the node is silent")
    if not wanted:
        notes.append("nobody wants it")
    return ", ".join(notes) or _NOBODY


def _complaint(seen: Wished, heard: Heard | None) -> str:
    if heard is None:
        return "it has never said anything: does keepalived-vip run there?"
    if seen.silent(heard.said.node):
        return "silent: it is down, or cut off from the bus"
    if heard.said.held_back:
        return heard.said.held_back
    if heard.said.revision != seen.plan.revision:
        return f"plan {seen.plan.revision} is not in force there yet"
    return _NOBODY


def _since(one: HeldAddress, now: float) -> str:
    try:
        began = datetime.fromisoformat(one.since).timestamp()
    except ValueError:
        return one.since
    return f"{age(now - began)} ago"
