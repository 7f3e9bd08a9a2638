"""Records: what the leader writes down is what the next one reads."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from haproxy_lb.book import Reservation
from haproxy_lb.claims import ServiceName
from haproxy_lb.records import read, write

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,5}[a-z0-9]", fullmatch=True)
RESERVATIONS = st.lists(
    st.builds(
        Reservation,
        st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
        st.builds(ServiceName, NAMES, NAMES),
        st.sampled_from(["", "k", "a.b/c_d-e"]),
        st.integers(0, 4_000_000_000),
    ),
    max_size=5,
    unique_by=lambda one: (one.address, one.service),
)


@given(RESERVATIONS)
def test_what_is_written_is_read(reservations: list[Reservation]) -> None:
    found, faults = read(write(reservations))
    assert set(found) == set(reservations)
    assert faults == ()
    assert write(found) == write(reservations)


def test_a_line_that_says_nothing_is_told_and_the_others_are_read() -> None:
    text = (
        "192.0.2.1 shop/web - in-use\n\n192.0.2.2 shop in-use\n192.0.2.300 shop/a - in-use\nfd00::1 shop/a k 2026-01-02T03:04:05Z\n"
    )
    found, faults = read(text)
    assert found == (
        Reservation(ipaddress.ip_address("192.0.2.1"), ServiceName("shop", "web")),
        Reservation(ipaddress.ip_address("fd00::1"), ServiceName("shop", "a"), "k", 1767323045),
    )
    assert [fault.split(" is ")[0] for fault in faults] == ["line 2", "line 3", "line 4"]


def test_an_address_stands_once_for_a_service() -> None:
    found, _ = read("192.0.2.1 shop/web - in-use\n192.0.2.1 shop/web - 2026-01-02T03:04:05Z\n")
    assert [one.released for one in found] == [0]
