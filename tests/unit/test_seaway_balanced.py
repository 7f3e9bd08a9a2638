"""What `seaway up --lb` runs: each part is told what it knows, and a bad pool is told with the mend."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.packaging import read_settings

from haproxy_lb.settings import Settings as BalancerSettings
from keepalived_vip.settings import Settings as VipSettings
from seaway.balanced import HOSTNAME, POOLS, haproxy, haproxy_lb, keepalived_vip, pools
from seaway.local import Home
from seaway.parts import Balancers, Balancing, Options, Programs, User

BALANCING = Balancing(pools=("192.0.2.0/28",), node="edge-1", default=True, interface="eth0", port=15000)
OPTIONS = Options(
    home=Home(Path("/data")),
    manifests=None,
    kubeconfig=Path("/kubeconfig"),
    http=80,
    https=443,
    ingress_class="nginx",
    controller="c",
    workers=0,
    nats=4222,
    balancing=BALANCING,
)
FOUND = Balancers("/usr/sbin/haproxy", User("haproxy", 101, 102), "/usr/sbin/keepalived")
PROGRAMS = Programs("nats-server", "nginx", "python3", "/usr/bin/setpriv", User("www-data", 33, 33), FOUND)


def test_every_variable_of_the_balancer_is_a_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    part = haproxy_lb(OPTIONS, BALANCING, PROGRAMS, FOUND)
    settings = read_settings(BalancerSettings, part.environment, monkeypatch)
    assert isinstance(settings, BalancerSettings)
    assert (settings.port, settings.peer_port, settings.default_class, settings.node) == (15000, 15001, True, "edge-1")
    assert settings.pools == POOLS
    command = " ".join(haproxy(OPTIONS, BALANCING, PROGRAMS, FOUND).command)
    assert f"-S {settings.sockets}/master.sock,mode,600 -f {settings.state}/haproxy.cfg" in command


def test_every_variable_of_what_holds_addresses_is_a_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"metadata": {"labels": {HOSTNAME: "edge-1.example.org"}}}
    part = keepalived_vip(OPTIONS, BALANCING, PROGRAMS, FOUND, node)
    settings = read_settings(VipSettings, part.environment, monkeypatch)
    assert isinstance(settings, VipSettings)
    assert (settings.node, settings.interface, settings.run_keepalived) == ("edge-1", "eth0", True)
    assert settings.scope.selector == {HOSTNAME: "edge-1.example.org"}
    assert settings.pools_configmap == f"{POOLS.namespace}/{POOLS.name}"
    assert f"unix:{haproxy_lb(OPTIONS, BALANCING, PROGRAMS, FOUND).probes}" in settings.edges


def test_haproxy_is_not_root_and_has_no_capability() -> None:
    command = haproxy(OPTIONS, BALANCING, PROGRAMS, FOUND).command
    assert command[0] == "/usr/bin/setpriv"
    assert {"--reuid=101", "--regid=102", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"} <= set(command)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (("192.0.2.0/33",), "'192.0.2.0/33': this is no address; write a network 192.0.2.0/28"),
        (("192.0.2.7/28",), "'192.0.2.7/28': this is an address within a network; write 192.0.2.0/28"),
        (("192.0.2.0/28", "192.0.2.8"), "overlap"),
    ],
)
def test_a_bad_pool_is_told_with_the_mend(addresses: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        pools(addresses)


def test_pools_are_as_the_configmap_has_them() -> None:
    (text,) = pools(("192.0.2.0/28", "2001:db8::/120")).values()
    assert json.loads(text)["pools"][0]["addresses"] == ["192.0.2.0/28", "2001:db8::/120"]


def test_what_is_not_asked_for_is_not_told() -> None:
    """Without an interface others hold the addresses, and without a label all nodes may."""
    bare = keepalived_vip(OPTIONS, replace(BALANCING, interface="eth1"), PROGRAMS, FOUND, {})
    assert bare.environment["SEAWAY_NODE_SELECTOR"] == ""
