"""Runs benches, shows the rows of each as a table and keeps all in `.run/bench.json`, as soon as they are there. See the package."""

import argparse
import asyncio
import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.runtime.logging import quiet
from seaway.view import table
from tests.bench.effort import FULL, TINY, CannotRun, Effort
from tests.bench.rows import COLUMNS, Row

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / ".run" / "bench.json"


def benches() -> list[str]:
    """The names of all benches."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


async def run(names: Sequence[str], effort: Effort) -> tuple[list[Row], list[str]]:
    """The rows of these benches, and why some could not run."""
    rows: list[Row] = []
    failures: list[str] = []
    for name in names:
        module = importlib.import_module(f"tests.bench.bench_{name}")
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        began = time.monotonic()
        try:
            made = _shown(await module.bench(effort), effort)
            rows += made
            print(table((row.cells() for row in made), COLUMNS), flush=True)
            keep(rows)
        except CannotRun as error:
            failures.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 the figures of the other benches are still worth something
            failures.append(f"{name}: {error!r}")
        print(f"{name}: {time.monotonic() - began:.0f} s\n", flush=True)
    return rows, failures


def _shown(rows: list[Row], effort: Effort) -> list[Row]:
    """Without goals where so little was done: they are for figures that mean something."""
    return [replace(row, goal="") for row in rows] if effort is TINY else rows


def keep(rows: Sequence[Row]) -> None:
    """Keeps these rows, and no others."""
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n")


def main() -> int:
    """0 if every goal was met, 1 if one was missed or a bench could not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Seaway against peers and physical limits.")
    parser.add_argument("bench", nargs="*", metavar="BENCH", help=f"which of {', '.join(benches())}; without one, all")
    parser.add_argument("--tiny", action="store_true", help="only see whether the benches work; the figures mean nothing")
    given = parser.parse_args()
    unknown = sorted(set(given.bench) - set(benches()))
    if unknown:
        parser.error(f"there is no bench {', '.join(unknown)}; there are {', '.join(benches())}")
    quiet()
    rows, failures = asyncio.run(run(given.bench or benches(), TINY if given.tiny else FULL))
    keep(rows)
    if len(given.bench) != 1:
        print(table((row.cells() for row in rows), COLUMNS))
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    missed = [row.name for row in rows if row.ok is False]
    if missed:
        print(f"bench: missed: {', '.join(missed)}", file=sys.stderr)
    return int(bool(failures or missed))


if __name__ == "__main__":
    sys.exit(main())
