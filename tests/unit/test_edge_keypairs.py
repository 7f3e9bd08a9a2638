"""What a Secret's data amounts to: a key pair, or the sentence that says why not."""

import time

import pytest

from common.testing.authority import Authority
from nginx_config_renderer.keypairs import at, read

AUTHORITY = Authority()
NOW = time.time()
GOOD = AUTHORITY.issue("shop.example", "*.shop.example")


def problem(data: dict[str, bytes]) -> str:
    pair = at(read("default", "cert", data), NOW)
    assert (pair.key, pair.chain) == ("", "")
    return pair.problem


@pytest.mark.parametrize("algorithm", ["ECDSA", "RSA"])
def test_a_good_secret_is_a_key_pair_for_its_hosts(algorithm: str) -> None:
    issued = AUTHORITY.issue("shop.example", "*.Shop.example", algorithm=algorithm)
    pair = read("default", "cert", issued.data)
    assert at(pair, NOW) == pair
    assert (pair.problem, pair.algorithm, pair.names) == ("", algorithm, ("*.shop.example", "shop.example"))
    assert pair.chain.encode() == issued.certificate
    assert "PRIVATE" in pair.key
    assert "PRIVATE" not in repr(pair)
    assert [
        host for host in ("shop.example", "a.shop.example", "a.b.shop.example", "other.example", "example") if pair.covers(host)
    ] == [
        "shop.example",
        "a.shop.example",
    ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "has no tls.crt; put the certificate and its chain there, as PEM"),
        ({"tls.crt": GOOD.certificate}, "has no tls.key; put the private key there, as PEM"),
        ({**GOOD.data, "tls.crt": b"hello"}, "tls.crt holds no PEM certificate"),
        ({**GOOD.data, "tls.crt": b"x" * 300_000}, "tls.crt has 300000 bytes; keep only"),
        ({**GOOD.data, "tls.key": b"hello"}, "tls.key holds no PEM private key"),
        ({**GOOD.data, "tls.key": AUTHORITY.issue("x", password=b"p").key}, "tls.key is encrypted"),
        ({**GOOD.data, "tls.key": AUTHORITY.issue("shop.example").key}, "tls.key does not belong to the first certificate"),
        (AUTHORITY.issue("x", begins=2, days=-1).data, "tls.crt expired on "),
    ],
)
def test_a_bad_secret_says_what_is_wrong_with_it(data: dict[str, bytes], sentence: str) -> None:
    assert sentence in problem(data)


def test_a_certificate_whose_time_has_not_come_is_one_and_says_so() -> None:
    pair = at(read("default", "cert", AUTHORITY.issue("shop.example", begins=-1).data), NOW)
    assert pair.key
    assert pair.early.startswith("tls.crt is not valid before ")
    assert pair.early.endswith(" UTC; use one that is, or set the clock")


def test_the_common_name_counts_where_a_certificate_names_no_hosts() -> None:
    assert read("default", "cert", AUTHORITY.issue().data).names == ("nobody",)


def test_authorities_are_read_beside_a_key_pair_and_without_one() -> None:
    ca, good = AUTHORITY.certificate, AUTHORITY.issue("shop.example")
    alone = read("default", "ca", {"ca.crt": b"words between\n" + ca + ca})
    assert (alone.authorities, alone.authorities_problem) == (ca.decode(), "")
    assert alone.problem, "and it is no key pair"
    both = read("default", "both", good.data | {"ca.crt": ca})
    assert (both.problem, both.authority) == ("", alone.authority)
    over = at(both, both.expires)
    assert (over.key, over.authority) == ("", both.authority), "authorities outlive a certificate that has expired"
    bad = read("default", "bad", {"ca.crt": b"nonsense"})
    assert bad.authorities == "" == bad.authority
    assert bad.authorities_problem.startswith("ca.crt holds no PEM certificate; write")
