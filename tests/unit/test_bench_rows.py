"""The arithmetic of the benchmarks."""

import pytest
from tests.bench.rows import Row, latency_rows, percentile


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_measured_value(share: float, value: int) -> None:
    assert percentile(range(100, 0, -1), share) == value


@pytest.mark.parametrize(
    ("value", "peer", "goal", "of_ratio", "ok"),
    [
        (9.0, None, "<= 10", False, True),
        (11.0, None, "<= 10", False, False),
        (80.0, 100.0, ">= 0.8", True, True),
        (79.0, 100.0, ">= 0.8", True, False),
        (79.0, None, ">= 0.8", True, False),
        (79.0, None, "", False, None),
    ],
)
def test_a_goal_is_held_against_the_value_or_the_ratio(
    value: float, peer: float | None, goal: str, of_ratio: bool, ok: bool | None
) -> None:
    assert Row(name="x", value=value, unit="ms", peer_value=peer, goal=goal, of_ratio=of_ratio).ok is ok


def test_latencies_become_two_rows_in_milliseconds() -> None:
    rows = latency_rows("change", [0.001, 0.002, 0.003], p50=10, peer="Traefik", peer_seconds=[0.1, 0.2, 0.4])
    assert [(row.name, row.value, row.peer_value, row.ok) for row in rows] == [
        ("change, p50", 2, 200, True),
        ("change, p99", 3, 400, None),
    ]
