"""Pools: what an operator may write, what each mistake is answered with, and whom a pool permits."""

import ipaddress

import pytest

from common.contracts.objects import ConfigMap
from common.pools import KEY, Pool, Pools, Selector, read_pools


def configmap(text: str, key: str = KEY) -> ConfigMap:
    return ConfigMap.project({"metadata": {"namespace": "seaway-edge", "name": "lb-pools"}, "data": {key: text}})


def pools(text: str) -> Pools:
    read = read_pools(configmap(text))
    assert read.pools is not None, read.problems
    return read.pools


def faults(text: str, key: str = KEY) -> list[str]:
    read = read_pools(configmap(text, key))
    assert read.pools is None
    return [problem.message for problem in read.problems]


def test_a_pool_has_networks_ranges_and_single_addresses_of_both_families() -> None:
    read = pools(
        """
        pools:
          - name: spare
            addresses: [10.0.0.0/30]
            priority: 200
            autoAssign: false
            quarantine: 1h
          - name: public
            addresses: [192.0.2.7, 192.0.2.32-192.0.2.40, "2001:db8::/64", 1:2:3:4:5:6:7:8]
            sharing: cluster
        """
    )
    assert [pool.name for pool in read.pools] == ["public", "spare"], "the least priority first"
    public, spare = read.pools
    assert [len(one) for one in public.ranges] == [1, 9, 1, 2**63 - 1]
    assert (spare.auto_assign, spare.quarantine, public.sharing, public.quarantine) == (False, 3600.0, "cluster", 300.0)
    for text, pool in {
        "192.0.2.7": public,
        "192.0.2.40": public,
        "192.0.2.41": None,
        "192.0.2.6": None,
        "10.0.0.3": spare,
        "2001:db8::ffff": public,
        "2001:db8:0:1::": None,
        "::ffff:192.0.2.7": None,
        "0.0.0.1": None,
    }.items():
        assert read.of(ipaddress.ip_address(text)) is pool, text


@pytest.mark.parametrize(
    ("addresses", "mend"),
    [
        ("[192.0.2.1/28]", "write 192.0.2.0/28"),
        ("[192.0.2.9-192.0.2.1]", "first address of a range must not be above the last"),
        ("[192.0.2.1-2001:db8::1]", "both be of one family"),
        ("[192.0.2.300]", "this is no address"),
        ("[fe80::/64]", "link-local"),
        ("[127.0.0.0/8]", "loopback"),
        ("[0.0.0.0/0]", "unspecified"),
        ("[]", "at least 1"),
        ("[192.0.2.0/28, 192.0.2.15]", "overlap"),
    ],
)
def test_bad_addresses_are_told_with_their_mend(addresses: str, mend: str) -> None:
    (fault,) = faults(f"pools: [{{name: a, addresses: {addresses}}}]")
    assert mend in fault, fault
    assert KEY in fault


def test_every_fault_is_told_and_names_its_entry() -> None:
    told = faults(
        """
        pools:
          - {name: A b, addresses: [10.0.0.1]}
          - {name: b, addresses: [10.0.0.2], autoAsign: true}
          - {name: c, addresses: [10.0.0.3], quarantine: soon}
        """
    )
    assert [fault.split(":")[1].split()[0] for fault in told] == ["pools[0].name", "pools[1].autoAsign", "pools[2].quarantine"]


def test_what_is_no_document_of_pools_is_told() -> None:
    assert "no YAML" in faults("pools: [")[0]
    assert "pools" in faults("- 1")[0]
    assert len(faults("pools: []", key="pools")) == 2, "the unknown key, and the missing one"
    assert "is there twice" in faults("pools: [{name: a, addresses: [10.0.0.1]}, {name: a, addresses: [10.0.0.2]}]")[0]


def test_ranges_that_overlap_are_told_though_others_lie_between() -> None:
    told = faults("pools: [{name: a, addresses: [10.0.0.0/24]}, {name: b, addresses: [10.0.0.1, 10.0.0.9-10.0.1.9]}]")
    assert len(told) == 2
    assert all("'a' and 'b'" in fault for fault in told)


def test_a_pool_permits_namespaces_by_name_or_label_and_services_by_label() -> None:
    team = Selector((("team", "web"),), (("stage", "In", ("prod", "test")), ("old", "DoesNotExist", ())))
    pool = Pool(
        "p", (), namespaces=frozenset({"shop"}), namespace_selectors=(team,), service_selectors=(Selector((("lb", "yes"),)),)
    )
    yes = {"lb": "yes"}
    assert pool.permits("shop", {}, yes)
    assert pool.permits("other", {"team": "web", "stage": "prod"}, yes)
    assert not pool.permits("other", {"team": "web", "stage": "dev"}, yes)
    assert not pool.permits("other", {"team": "web", "stage": "prod", "old": ""}, yes)
    assert not pool.permits("shop", {}, {})
    assert Pool("q", ()).permits("any", {}, {})


def test_only_ipv4_addresses_that_end_in_0_or_255_are_avoided() -> None:
    pool = Pool("p", (), avoid_buggy=True)
    avoided = [text for text in ("10.0.0.0", "10.0.0.255", "10.0.0.1", "fd00::ff") if pool.avoids(ipaddress.ip_address(text))]
    assert avoided == ["10.0.0.0", "10.0.0.255"]
