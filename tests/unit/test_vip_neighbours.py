"""What is said on a link about who has an address."""

from ipaddress import IPv4Address, IPv6Address

from keepalived_vip.neighbours import (
    Claim,
    Rival,
    Sighting,
    arp_announcement,
    arp_claim,
    arp_question,
    ndp_announcement,
    ndp_claim,
    ndp_question,
    rivals,
    solicited_node,
)

OURS = bytes.fromhex("020000000001")
THEIRS = bytes.fromhex("020000000002")
# As tcpdump -x shows the answers of a Linux machine.
ARP_REPLY = bytes.fromhex("00010800060400020200000000020a09006402000000000100000000")
ADVERTISEMENT = bytes.fromhex("8800abcd60000000fd0900000000000000000000000001000201020000000002")


def test_a_probe_of_arp_names_no_sender() -> None:
    probe = arp_question(IPv4Address("10.9.0.100"), OURS)
    assert probe == bytes.fromhex("0001080006040001020000000001000000000000000000000a090064")
    assert arp_claim(probe) is None


def test_an_answer_claims_the_address_for_its_sender() -> None:
    assert arp_claim(ARP_REPLY) == Claim(IPv4Address("10.9.0.100"), THEIRS)
    assert ndp_claim(ADVERTISEMENT) == Claim(IPv6Address("fd09::100"), THEIRS)


def test_an_announcement_claims_the_address_for_whoever_makes_it() -> None:
    assert arp_claim(arp_announcement(IPv4Address("10.9.0.1"), OURS)) == Claim(IPv4Address("10.9.0.1"), OURS)
    assert ndp_claim(ndp_announcement(IPv6Address("fd09::1"), OURS)) == Claim(IPv6Address("fd09::1"), OURS)


def test_what_is_cut_off_or_of_another_kind_claims_nothing() -> None:
    for length in range(len(ARP_REPLY)):
        assert arp_claim(ARP_REPLY[:length]) is None
    for length in range(len(ADVERTISEMENT)):
        assert ndp_claim(ADVERTISEMENT[:length]) is None
    assert arp_claim(b"\x00\x06" + ARP_REPLY[2:]) is None
    assert ndp_claim(ndp_question(IPv6Address("fd09::100"), OURS)) is None
    assert ndp_claim(ADVERTISEMENT[:-8] + b"\x05\x00" + bytes(6)) is None  # an option without a length


def test_a_solicitation_goes_to_the_group_of_its_address() -> None:
    assert solicited_node(IPv6Address("4037::01:800:200e:8c6c")) == "ff02::1:ff0e:8c6c"  # RFC 4291 §2.7.1
    question = ndp_question(IPv6Address("fd09::100"), OURS)
    assert question[:1] == b"\x87"
    assert question.endswith(bytes.fromhex("fd0900000000000000000000000001000101020000000001"))


def test_a_rival_is_who_claims_for_longer_than_a_move_takes_and_still_does() -> None:
    moved, stays, former = (Rival(IPv4Address(f"10.9.0.{number}"), THEIRS) for number in (1, 2, 3))
    seen = {stays: Sighting(10, 20), moved: Sighting(18, 18.5), former: Sighting(1, 6)}
    assert list(rivals(seen, 21, forget=10)) == [stays]
    assert str(stays) == "10.9.0.2 (at 02:00:00:00:00:02)"
