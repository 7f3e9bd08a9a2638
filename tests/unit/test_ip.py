"""Addresses and networks are read as such, and never carry anybody's text."""

import pytest

from common.contracts.ip import read_address, read_network


@pytest.mark.parametrize("text", ["fe80::1%eth0", "::1%; shutdown", "2001:db8::1%a\nb", "fe80::%x/64"])
def test_an_address_with_a_zone_is_none(text: str) -> None:
    for read in (read_address, read_network):
        with pytest.raises(ValueError, match=r"zone|does not appear|no address|not permitted"):
            read(text)


def test_addresses_and_networks_are_canonical() -> None:
    assert str(read_address("2001:DB8::1")) == "2001:db8::1"
    assert str(read_network("10.1.2.3/8")) == "10.0.0.0/8"
