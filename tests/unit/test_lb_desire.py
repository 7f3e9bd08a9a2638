"""What HAProxy and the kernel should hold: sources are found by their prefix, and nothing that anybody wrote becomes a command."""

import ipaddress
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from haproxy_lb import render
from haproxy_lb.desire import Desires, hexadecimal
from haproxy_lb.frame import INSIDE, Frame
from haproxy_lb.model import Backend, BackendKey, Check, Endpoint, Frontend, FrontKey, Treatment, Wanted
from haproxy_lb.plan import plan
from haproxy_lb.rules import Drop, Held, Put
from haproxy_lb.slots import Kind, allot, kind_of

NETWORKS = st.one_of(
    st.builds(lambda address, bits: ipaddress.ip_network((address, bits), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda address, bits: ipaddress.ip_network((address, bits), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
)
PLAIN = re.compile(r"[A-Za-z0-9 /:._|\[\]?=&%+~@,-]+")  # nothing that parts commands, begins a payload, or leaves a line
LAYOUT = {Kind(): 4}


@given(NETWORKS, st.data())
@example(ipaddress.ip_network("0.0.0.0/0"), None)
@example(ipaddress.ip_network("2001:db8::/33"), None)
def test_an_address_has_a_prefix_of_a_network_exactly_if_it_is_inside(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, data: st.DataObject | None
) -> None:
    prefixes = hexadecimal(network)
    assert len(prefixes) == len(set(prefixes)) <= 8
    first, last, digits = int(network[0]), int(network[-1]), network.max_prefixlen // 4
    near = {first, last, max(0, first - 1), min(2**network.max_prefixlen - 1, last + 1)}
    drawn = {data.draw(st.integers(0, 2**network.max_prefixlen - 1)), data.draw(st.integers(first, last))} if data else set()
    for address in near | drawn:
        found = any(f"{address:0{digits}X}".startswith(prefix) for prefix in prefixes)
        assert found == (first <= address <= last)


ANY = st.one_of(st.text(max_size=30), st.sampled_from(["10.0.0.1", "a;b", "a\nshutdown", "<<", "fd00::1%eth0; del map", "/a b"]))


@settings(max_examples=150)
@given(st.lists(ANY, min_size=6, max_size=6), st.integers(-5, 70000))
def test_whatever_anybody_wrote_commands_and_files_hold_plain_words(words: list[str], port: int) -> None:
    namespace, name, address, source, path, word = words
    key = BackendKey(namespace, name, port)
    treatment = Treatment(balance=word, send_proxy=word, accept_proxy=(source,), check=Check(http_path=path))
    backend = Backend(key, (Endpoint(address, port), Endpoint("10.0.0.9", 80, node=word)), treatment)
    fronts = {FrontKey(one, 80): Frontend(FrontKey(one, 80), key, (source, "10.0.0.0/8")) for one in (address, "192.0.2.1")}
    wanted = Wanted(fronts, {key: backend})
    layout = {kind_of(treatment): 4}
    desired = Desires(INSIDE, 14480).of(wanted, allot({key: kind_of(treatment)}, {}, (), layout).slots)
    held = Held(slots={kind.slot(number): {} for kind, count in layout.items() for number in range(count)})
    made = plan(held, desired)
    lines = [one.line("/x.map") if isinstance(one, Put | Drop) else one.text for one in (*made.first, *made.last)]
    assert lines
    assert all(PLAIN.fullmatch(line) for line in lines), lines
    texts = render.files(Frame("/run", "/run"), layout, desired)
    bare = render.files(Frame("/run", "/run"), layout, Desires(INSIDE, 14480).of(Wanted(), {}))[render.CONFIGURATION]
    added = set(texts.pop(render.CONFIGURATION).splitlines()) - set(bare.splitlines())
    assert all(PLAIN.fullmatch(line) for text in (*texts.values(), "\n".join(added)) for line in text.splitlines())


def test_the_slots_that_have_servers_can_be_read_from_haproxy_s_configuration() -> None:
    affine = Treatment(affinity=77)
    backends = [
        Backend(BackendKey("shop", "web", 80), (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80))),
        Backend(BackendKey("shop", "none", 80), ()),
        Backend(BackendKey("shop", "api", 80), (Endpoint("fd00::1", 80),), affine),
    ]
    wanted = Wanted({}, {backend.key: backend for backend in backends})
    layout = {Kind(): 4, Kind(affinity=77): 4}
    slots = allot({backend.key: kind_of(backend.treatment) for backend in backends}, {}, (), layout).slots
    text = render.configuration(Frame("/run", "/run"), layout, Desires(INSIDE, 14480).of(wanted, slots))
    assert render.given(text) == {slots[backends[0].key], slots[backends[2].key]}
