"""Backends that must prove who they are: what nginx gets of it in its configuration is hashes and numbers, whatever somebody writes."""

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.messages import message
from tests.unit.test_edge_wanted import EDGE

from common.testing.authority import Authority
from common.testing.objects import ingress, ingress_class, opaque_secret, rule, service
from nginx_config_renderer import keypairs
from nginx_config_renderer.annotations import PREFIX
from nginx_config_renderer.configuration import configuration
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.locations import as_data, secure_locations
from nginx_config_renderer.options import Options
from nginx_config_renderer.wanted import Wanted

CA = {"ca.crt": Authority().certificate}
WORDS = ["on", "off", "1", "3", "ca", "default/ca", "a.example", "ca; } server {", "../../ca", '"', "${x}", "evil\nssl_engine x;"]
HOSTILE = st.one_of(st.text(max_size=30), st.sampled_from(WORDS))
ASKED = st.fixed_dictionaries({}, optional=dict.fromkeys(("secret", "verify", "verify-depth", "name", "server-name"), HOSTILE))
PLAIN = re.compile(r"@(https|grpcs)-[a-z0-9-]+-[0-9a-f]{24}")


def wanted_of(asked: dict[str, str], protocol: str) -> Wanted:
    """One Ingress that asks so, and every Secret that it could mean."""
    annotations = {f"{PREFIX}proxy-ssl-{name}": value for name, value in asked.items()} | {f"{PREFIX}backend-protocol": protocol}
    shop = ingress("shop", rule("shop.example", "/", "web:443"), annotations=annotations)
    wanted = Wanted("local", Class())
    objects = (ingress_class(), shop, service("web", 443), opaque_secret("ca", CA))
    wanted.change([message(raw, at) for at, raw in enumerate(objects, 1)])
    for key in wanted.needs:
        wanted.learn(keypairs.read(key.namespace, key.name, CA if key.name == "ca" else {}))
    return wanted


def lines(wanted: Wanted) -> frozenset[str]:
    """The lines of the configuration, but for hashes and depths. The one that names all such locations is as long as there are some."""
    text = configuration(replace(EDGE, secured=wanted.secured, authorities="/s/authorities"), Options(), "p")
    return frozenset(re.sub(r"[0-9a-f]{64}|[0-9a-f]{24}", "HASH", re.sub(r"verify_depth \d+", "verify_depth N", text)).splitlines())


KNOWN = frozenset().union(
    *(
        lines(wanted_of({"secret": "ca", "verify": verify, "server-name": named}, protocol))
        for protocol in ("HTTP", "HTTPS", "GRPCS")
        for verify in ("on", "off")
        for named in ("on", "off")
    )
)


@settings(max_examples=150)
@given(ASKED, st.sampled_from(["HTTPS", "GRPCS", "HTTP", "GRPC"]))
def test_no_text_of_an_ingress_is_in_the_configuration_and_who_asks_for_proof_never_goes_without(
    asked: dict[str, str], protocol: str
) -> None:
    wanted = wanted_of(asked, protocol)
    for one in wanted.secured:
        assert PLAIN.fullmatch(one.name)
        assert re.fullmatch(r"[0-9a-f]{64}|", one.authority)
        assert 1 <= one.depth <= 100
    assert lines(wanted) <= KNOWN
    policy = wanted.entries.get(("policies", "default/shop"), "{}")
    if asked.get("verify", "").strip() == "on" and protocol in {"HTTPS", "GRPCS"}:
        proves = any(one.authority for one in wanted.secured)
        assert proves or '"deny":true' in policy


def test_what_nginx_has_is_read_again_as_it_was_and_what_is_nothing_of_that_kind_is_left() -> None:
    have = wanted_of({"secret": "ca", "verify": "on", "verify-depth": "2"}, "HTTPS").secured
    assert len(have) == 1
    assert secure_locations(as_data(have)) == have
    (row,) = as_data(have)
    bad = [
        [*row[:2], "../../etc/passwd", *row[3:]],
        ["@nowhere", *row[1:]],
        [*row[:3], "2", row[4]],
        row[:4],
        None,
        "x",
        [[], *row[1:]],
    ]
    assert secure_locations(bad) == ()


def test_ingresses_that_ask_for_the_same_share_a_location_and_others_do_not() -> None:
    def names(**asked: str) -> set[str]:
        return {one.name for one in wanted_of({key.replace("_", "-"): value for key, value in asked.items()}, "HTTPS").secured}

    same = {"secret": "ca", "verify": "on"}
    assert names(**same) == names(**same, verify_depth="1") == names(secret="default/ca", verify="on")
    different = [
        names(**same, verify_depth="2"),
        names(**same, name="a.example"),
        names(**same, server_name="off"),
        names(secret="ca"),
    ]
    assert len({*map(frozenset, different), frozenset(names(**same))}) == 5
