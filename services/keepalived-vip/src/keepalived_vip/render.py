"""The text of keepalived.conf (keepalived.conf(5)), constant in form: numbers, addresses and names of interfaces are all that varies.

Each of these was checked before: an address is an `ipaddress` value, a name of an interface has passed `INTERFACE`, and a node's name
appears in no line. Why it is as it is:

- `virtual_ipaddress` holds one address that never changes, of the loopback interface, since it is what an advertisement carries, and a
  backup that knows other addresses than the master discards its advertisements and becomes a second master. What is really wanted stands in
  `virtual_ipaddress_excluded`, which nobody compares; `vrrp_skip_check_adv_addr` is the second lock on that door. And an instance without
  any address is an error on which keepalived ends.
- The hop limit is 255 when sent and demanded when received, which no router lets through (RFC 9568 §5.1.1.3). For IPv6 it must be said:
  keepalived 2.2.7 sends 64 by unicast.
- Who is alone says nothing of unicast, which keepalived would refuse without a peer, and speaks by multicast: to a group of our own, where
  nobody is. In the usual one a router of the network with the same VRID would take us for its master, or we would obey it.
- Announcements are repeated soon and sent again when a lower master was heard, which is how the network learns of the end of a partition.
- Real-time priority is given by whoever starts keepalived, and nothing is said of it here: of one that takes it itself the kernel makes an
  end when a reload takes more than 10 ms (2.2.7, whatever `vrrp_rlimit_rttime` says). `vrrp_priority` is for where it is not permitted.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from keepalived_vip.model import Address, Instance, Layout

INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)  # dev_valid_name() of Linux without its rarer characters
_INTERFACE_LINE: Final = re.compile(rf"^    interface ({INTERFACE.pattern})$", re.ASCII | re.MULTILINE)
_ANCHOR_4: Final = int(IPv4Address("127.107.0.0"))
_GROUP_4: Final = "239.255.107.107"  # of this site (RFC 2365 §6.1)
_GROUP_6: Final = "ff12::6b:6b"  # of this link, and assigned to nobody (RFC 4291 §2.7)
_ANCHOR_6: Final = int(IPv6Address("fe80::6b:0:0"))


@dataclass(frozen=True, slots=True)
class Style:
    """What holds for all instances of a node. Times are in seconds; a `preempt_delay` of None is "never"."""

    interface: str
    track_file: str
    advert_interval: float = 0.2
    preempt_delay: int | None = 300

    def __post_init__(self) -> None:
        if not INTERFACE.fullmatch(self.interface):
            raise ValueError(f"{self.interface!r} is no name of an interface")
        if not re.fullmatch(r"/[A-Za-z0-9_./-]+", self.track_file):
            raise ValueError(f"{self.track_file!r} is no plain absolute path")


def anchor(instance: Instance) -> Address:
    """The address that an instance advertises: one of the loopback interface, a constant of its family and VRID."""
    return IPv4Address(_ANCHOR_4 + instance.vrid) if instance.family == 4 else IPv6Address(_ANCHOR_6 + instance.vrid)


def interface_of(text: str) -> str | None:
    """The interface of a text that `render` made; None if it has no instance."""
    found = _INTERFACE_LINE.search(text)
    return found and found[1]


def render(layout: Layout, style: Style) -> str:
    """The whole file. The same arguments give the same bytes."""
    return "\n".join([*_head(style), *(line for instance in layout.instances for line in _instance(instance, style))]) + "\n"


def _head(style: Style) -> Iterator[str]:
    yield "# Written by keepalived-vip; what is changed here is written over."
    yield "global_defs {"
    yield "    enable_script_security"
    yield "    script_user nobody"
    yield "    vrrp_skip_check_adv_addr"
    yield f"    vrrp_mcast_group4 {_GROUP_4}"
    yield f"    vrrp_mcast_group6 {_GROUP_6}"
    yield "    vrrp_garp_master_delay 1"
    yield "    vrrp_garp_master_repeat 3"
    yield "    vrrp_garp_master_refresh 60"
    yield "    vrrp_garp_master_refresh_repeat 1"
    yield "    vrrp_garp_lower_prio_delay 1"
    yield "    vrrp_garp_lower_prio_repeat 3"
    yield "    vrrp_higher_prio_send_advert true"
    yield "    max_auto_priority -1"
    yield "    vrrp_priority -20"
    yield "}"
    yield "track_file edge {"
    yield f'    file "{style.track_file}"'
    yield "    weight 1"
    yield "}"


def _instance(instance: Instance, style: Style) -> Iterator[str]:
    width, scope = (32, " scope host") if instance.family == 4 else (128, "")
    yield f"vrrp_instance {instance.name} {{"
    yield "    state BACKUP"
    yield "    version 3"
    yield f"    interface {style.interface}"
    yield f"    virtual_router_id {instance.vrid}"
    yield f"    priority {instance.priority}"
    yield f"    advert_int {style.advert_interval:g}"
    yield "    nopreempt" if style.preempt_delay is None else f"    preempt_delay {style.preempt_delay}"
    if instance.peers:
        yield "    unicast_ttl 255"
        yield f"    unicast_src_ip {instance.source}"
        yield "    unicast_fault_no_peer"
        yield "    unicast_peer {"
        for peer in instance.peers:
            yield f"        {peer.address} min_ttl 255 max_ttl 255"
        yield "    }"
    yield "    track_file {"
    yield "        edge"
    yield "    }"
    yield "    virtual_ipaddress {"
    yield f"        {anchor(instance)}/{width} dev lo{scope} no_track"
    yield "    }"
    if instance.addresses:
        yield "    virtual_ipaddress_excluded {"
        for address in instance.addresses:
            yield f"        {address}/{width} dev {style.interface}" + ("" if instance.family == 4 else " preferred_lft 0")
        yield "    }"
    yield "}"
