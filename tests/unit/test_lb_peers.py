"""Peers: which nodes share clients' affinity, and what that changes for HAProxy."""

from typing import Any

import pytest
from pydantic import ValidationError

from common.contracts.objects import Node
from haproxy_lb.derive.peers import MOST, peers
from haproxy_lb.frame import Frame
from haproxy_lb.model import Peer
from haproxy_lb.settings import Settings


def node(name: str, address: str = "", **labels: str) -> Node:
    addresses: list[dict[str, str]] = [{"type": "Hostname", "address": name}]
    addresses += [{"type": "InternalIP", "address": address}] if address else []
    raw: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    return Node.project(raw | {"status": {"addresses": addresses}})


NODES = [node("c", "10.0.0.3", edge="no"), node("a", "10.0.0.1", edge="yes"), node("b", "fd00::2", edge=""), node("d", edge="yes")]


@pytest.mark.parametrize(
    ("label", "names"), [("", ""), ("*", "abc"), ("edge", "abc"), ("edge=yes", "a"), ("edge=", "b"), ("other", "")]
)
def test_peers_are_the_nodes_with_the_label_and_an_address(label: str, names: str) -> None:
    found = peers(NODES, label, 7)
    assert "".join(peer.name for peer in found) == names
    assert all(peer.port == 7 and peer.address for peer in found)


def test_of_many_nodes_the_first_share_and_each_of_them_knows_the_same_ones() -> None:
    many = [node(f"n{number:03}", f"10.0.1.{number}") for number in range(100)]
    assert peers(many, "*", 7) == peers(reversed(many), "*", 7)
    assert [peer.name for peer in peers(many, "*", 7)] == [f"n{number:03}" for number in range(MOST)]


def test_haproxy_listens_for_peers_at_its_node_s_address_and_only_where_there_are_some() -> None:
    frame = Frame("/run", "/run", name="a")
    own, other = Peer("a", "10.0.0.1", 7), Peer("b", "fd00::2", 7)
    assert frame.among(()) == frame.among((own,)) == frame.among((other,)) == frame
    met = frame.among((other, own))
    assert (met.peer_address, met.peer_port, met.peers) == ("10.0.0.1", 7, (other,))


def test_a_label_that_is_none_is_refused() -> None:
    assert Settings(peer_nodes="seaway.dev/edge=yes").peers_among(NODES) == ()
    with pytest.raises(ValidationError):
        Settings(peer_nodes="edge in (a, b)")
