"""What a machine is told that permits too little."""

from collections.abc import Mapping

import pytest

from nginx_config_renderer.machine import too_low

GOOD = {
    "net.core.somaxconn": "4096\n",
    "net.ipv4.ip_local_port_range": "32768\t60999\n",
    "net.ipv4.tcp_max_syn_backlog": "128\n",
    "net.ipv4.tcp_syncookies": "1\n",
}


def told(other: Mapping[str, str], *, open_files: int = 65536, connections: int = 16384, workers: int = 4) -> tuple[str, ...]:
    return too_low((GOOD | dict(other)).get, open_files=open_files, connections=connections, workers=workers)


def test_a_machine_as_linux_makes_it_is_told_nothing() -> None:
    assert told({}) == ()
    assert too_low(lambda _: None, open_files=65536, connections=16384, workers=1) == ()


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ({"net.core.somaxconn": "128"}, "sysctl -w net.core.somaxconn=4096"),
        ({"net.ipv4.ip_local_port_range": "40000\t50000"}, 'sysctl -w net.ipv4.ip_local_port_range="1024 65535"'),
        ({"net.ipv4.tcp_syncookies": "0"}, "sysctl -w net.ipv4.tcp_max_syn_backlog=1024"),
    ],
)
def test_what_is_too_low_is_said_with_the_value_to_set(setting: dict[str, str], mend: str) -> None:
    (sentence,) = told(setting)
    name = next(iter(setting))
    assert mend in sentence
    assert name.rpartition(".")[0] in sentence


def test_too_few_open_files_are_said_with_the_number_that_is_needed() -> None:
    (sentence,) = told({}, open_files=1024)
    assert "1024" in sentence
    assert "LimitNOFILE=32768" in sentence


def test_few_connections_need_few_ports() -> None:
    assert told({"net.ipv4.ip_local_port_range": "40000\t41000"}, connections=512, workers=1) == ()
