"""Benchmarks: ratios against a peer or a physical limit, measured in the same run on the same machine.

`python -m tests.bench` runs them all, `python -m tests.bench edge requests` the named ones. A bench is a module `bench_NAME.py` whose
docstring's first line says what is measured, with `async def bench(effort: Effort) -> list[Row]`. What it starts it ends.
"""
