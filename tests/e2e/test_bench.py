"""The benches work: each of them runs, and what they keep can be read."""

import json
import subprocess
import sys

import pytest

from tests.bench.__main__ import KEPT, benches
from tests.packaging import ROOT

COLUMNS = {"name", "value", "unit", "peer", "peer_value", "ratio", "goal", "ok"}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_bench_runs_and_keeps_its_rows() -> None:
    kept = KEPT.read_bytes() if KEPT.exists() else None
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.bench", "--tiny"], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        rows = json.loads(KEPT.read_text())
    finally:
        if kept is not None:
            KEPT.write_bytes(kept)
    assert all(row.keys() == COLUMNS for row in rows)
    assert not [row for row in rows if row["goal"] or row["ok"] is not None], "so little work can neither meet nor miss a goal"
    assert {f"{name}:" for name in benches()} <= set(ran.stdout.split())
    assert any("Traefik" in row["peer"] for row in rows)
    assert any("bare nginx" in row["peer"] for row in rows)


def test_an_unknown_bench_is_refused_with_those_that_there_are() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert f"there is no bench speed; there are {', '.join(benches())}" in ran.stderr
