"""A row of a benchmark, and how rows are shown and kept. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("NAME", "VALUE", "UNIT", "PEER", "PEER VALUE", "RATIO", "GOAL", "OK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `goal` reads `<= 10` or `>= 0.8`; with `of_ratio` it is held against the ratio instead of the value."""

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    goal: str = ""
    of_ratio: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's."""
        return self.value / self.peer_value if self.peer_value else None

    @property
    def ok(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if not self.goal:
            return None
        sign, limit = self.goal.split()
        measured = self.ratio if self.of_ratio else self.value
        if measured is None:
            return False
        return measured <= float(limit) if sign == "<=" else measured >= float(limit)

    def as_dict(self) -> dict[str, Any]:
        """The row as it is kept."""
        kept = asdict(self) | {"ratio": self.ratio, "ok": self.ok, "goal": self._goal}
        del kept["of_ratio"]
        return kept

    def cells(self) -> tuple[str, ...]:
        """The row as it is shown."""
        ok = {None: "", True: "yes", False: "NO"}[self.ok]
        return (self.name, _number(self.value), self.unit, self.peer, _number(self.peer_value), _number(self.ratio), self._goal, ok)

    @property
    def _goal(self) -> str:
        return f"ratio {self.goal}" if self.goal and self.of_ratio else self.goal


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency_rows(
    name: str,
    seconds: Sequence[float],
    *,
    p50: float | None = None,
    p99: float | None = None,
    peer: str = "",
    peer_seconds: Sequence[float] = (),
) -> list[Row]:
    """Median and 99th percentile in milliseconds, with goals in milliseconds."""
    return [
        Row(
            name=f"{name}, {label}",
            value=percentile(seconds, share) * 1000,
            unit="ms",
            goal=f"<= {goal:g}" if goal else "",
            peer=peer,
            peer_value=percentile(peer_seconds, share) * 1000 if peer_seconds else None,
        )
        for label, share, goal in (("p50", 0.5, p50), ("p99", 0.99, p99))
    ]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
