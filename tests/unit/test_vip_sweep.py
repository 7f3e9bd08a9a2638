"""Addresses that are on a node and should not be, or should be and are not; and the kernel's own words of them."""

import struct
from ipaddress import ip_address

from keepalived_vip.model import Address, Instance, Layout
from keepalived_vip.render import Style, anchor, interface_of, render
from keepalived_vip.rtnetlink import Answered, Place, Told, delete, read
from keepalived_vip.sweep import Scene, missing, stale

FIRST, SECOND, THIRD = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
MASTER = Instance(0, 4, 100, 240, "10.0.0.1", (), (FIRST,))
BACKUP = Instance(1, 4, 101, 200, "10.0.0.1", (), (SECOND,))
LAYOUT = Layout((MASTER, BACKUP))


LOOPBACK, OURS, KUBE_IPVS = 1, 2, 9


def here(*addresses: Address, prefix: int = 32, interface: int = OURS) -> tuple[Place, ...]:
    return tuple(Place(interface, address, prefix) for address in addresses)


def scene(*places: Place, alive: bool = True, interface: int | None = OURS) -> Scene:
    return Scene((*places, Place(LOOPBACK, anchor(MASTER), 32)), interface, LAYOUT, alive, {FIRST, SECOND, THIRD})


def test_what_a_master_has_is_right_and_what_a_backup_has_is_stale() -> None:
    assert stale(scene(*here(FIRST, SECOND))) == frozenset(here(SECOND))


def test_what_was_ours_once_is_stale_and_what_never_was_is_nobodys_business() -> None:
    assert stale(scene(*here(FIRST, THIRD, ip_address("198.51.100.1")))) == frozenset(here(THIRD))


def test_an_address_with_a_network_was_given_by_somebody_else() -> None:
    assert not stale(scene(*here(FIRST), *here(SECOND, prefix=24)))


def test_all_is_stale_where_keepalived_does_not_run() -> None:
    found = stale(scene(*here(FIRST, SECOND), alive=False))
    assert found == {*here(FIRST, SECOND), Place(LOOPBACK, anchor(MASTER), 32)}


def test_an_address_is_missing_only_from_a_master() -> None:
    assert missing(scene()) == (FIRST,)
    assert missing(scene(*here(FIRST))) == ()
    assert missing(scene(alive=False)) == ()


def test_an_address_on_another_interface_is_neither_held_nor_stale_nor_found_instead_of_a_missing_one() -> None:
    """kube-proxy in its IPVS mode has addresses of Services on an interface of its own, on every node, with our prefix."""
    shown = scene(*here(FIRST, SECOND, THIRD, interface=KUBE_IPVS))
    assert not shown.held
    assert not stale(shown)
    assert missing(shown) == (FIRST,)
    assert stale(scene(*here(FIRST, SECOND, interface=KUBE_IPVS), *here(SECOND))) == frozenset(here(SECOND))


def test_nothing_but_what_is_on_the_loopback_interface_is_an_anchor() -> None:
    assert not Scene(here(anchor(MASTER)), OURS, LAYOUT, alive=True, ours=()).masters


def test_nothing_is_taken_off_while_nobody_knows_which_interface_is_ours() -> None:
    assert not stale(scene(*here(FIRST, SECOND), interface=None))


def test_the_interface_is_known_from_what_keepalived_was_told() -> None:
    assert interface_of(render(LAYOUT, Style("br-lan.7", "/run/health"))) == "br-lan.7"
    assert interface_of(render(Layout(), Style("br-lan.7", "/run/health"))) is None


def test_what_the_kernel_tells_is_read_and_what_is_cut_off_is_left_out() -> None:
    body = struct.pack("=BBBBi", 2, 32, 0, 0, 7) + struct.pack("=HH4s", 8, 2, FIRST.packed)
    told = struct.pack("=IHHII", 16 + len(body), 20, 0, 5, 0) + body
    done = struct.pack("=IHHIIi", 20, 3, 0, 5, 0, 0)
    assert list(read(told + done)) == [Told(Place(7, FIRST, 32), here=True, sequence=5), Answered(5, 0)]
    for length in range(len(told)):
        assert not list(read(told[:length]))


def test_a_removal_names_interface_prefix_and_address() -> None:
    request = delete(Place(7, ip_address("2001:db8::1"), 128), 9)
    length, kind, _, sequence, _ = struct.unpack_from("=IHHII", request)
    assert (length, kind, sequence) == (len(request), 21, 9)
    assert struct.unpack_from("=BBBBi", request, 16) == (10, 128, 0, 0, 7)
    assert request.endswith(ip_address("2001:db8::1").packed)
