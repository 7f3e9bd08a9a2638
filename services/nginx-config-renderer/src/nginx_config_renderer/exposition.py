"""What nginx counted, in the words of Prometheus (text format 0.0.4). Pure.

A series belongs to an Ingress that there is, or to a backend of one: what a client sends makes no new one. What no Ingress claims is
counted under an empty name.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

_NOBODY: Final = "-"
_CELLS: Final = {
    "in": "seaway_edge_request_bytes_total",
    "out": "seaway_edge_response_bytes_total",
    "r": "seaway_edge_retries_total",
}
_HISTOGRAMS: Final = {"t": "seaway_edge_request_seconds", "u": "seaway_edge_upstream_seconds"}
_HELP: Final = {
    "seaway_edge_connections": ("gauge", "Connections of clients, by state."),
    "seaway_edge_ejections_total": ("counter", "Endpoints that got no requests for a while, since they did not answer."),
    "seaway_edge_endpoints": ("gauge", "Endpoints of a backend that get requests."),
    "seaway_edge_request_bytes_total": ("counter", "Bytes of requests."),
    "seaway_edge_request_seconds": ("histogram", "From the first byte of a request to the last of its answer."),
    "seaway_edge_requests_total": ("counter", "Requests, by the class of the answer's status."),
    "seaway_edge_response_bytes_total": ("counter", "Bytes of answers."),
    "seaway_edge_retries_total": ("counter", "Tries beyond the first."),
    "seaway_edge_upstream_seconds": ("histogram", "Until the backend began to answer, in the last try."),
    "seaway_edge_uncounted_total": ("counter", "What was not counted, for want of shared memory."),
}


def exposition(
    numbers: Mapping[str, float], buckets: tuple[float, ...], connections: Mapping[str, int], known: Callable[[str], bool]
) -> tuple[str, tuple[str, ...]]:
    """The text, and the keys of what is not there any more. `known` says which Ingresses and backends there are."""
    cells: dict[str, dict[str, float]] = defaultdict(dict)
    for key, number in numbers.items():
        about, _, cell = key.partition(" ")
        cells[about][cell] = number
    lost = cells.pop("lost", {}).get("", 0)
    gone = tuple(sorted(f"{about} {cell}" for about, each in cells.items() if not _there(about, known) for cell in each))
    series: dict[str, list[str]] = defaultdict(list)
    limits = (*(f"{bucket:g}" for bucket in buckets), "+Inf")
    for about in sorted(cells):
        if _there(about, known):
            _add(series, about, cells[about], limits)
    for state, number in sorted(connections.items()):
        series["seaway_edge_connections"].append(f'seaway_edge_connections{{state="{state}"}} {number}')
    series["seaway_edge_uncounted_total"].append(f"seaway_edge_uncounted_total {lost:g}")
    return "".join(_block(name, lines) for name, lines in sorted(series.items())), gone


def endpoints(counts: Mapping[str, int]) -> str:
    """How many endpoints each backend has, `namespace/service:port` → number."""
    name = "seaway_edge_endpoints"
    return _block(name, [f"{name}{{{_backend(backend)}}} {count}" for backend, count in sorted(counts.items())])


def _backend(about: str) -> str:
    namespace, _, rest = about.partition("/")
    service, _, port = rest.partition(":")
    return f'namespace="{namespace}",service="{service}",port="{port}"'


def _there(about: str, known: Callable[[str], bool]) -> bool:
    return about == _NOBODY or known(about)


def _block(name: str, lines: list[str]) -> str:
    kind, text = _HELP[name]
    return "\n".join((f"# HELP {name} {text}\n# TYPE {name} {kind}", *lines, ""))


def _add(series: dict[str, list[str]], about: str, cells: Mapping[str, float], limits: tuple[str, ...]) -> None:
    """Adds what was counted under `about`. Thousands of these make a scrape, so little is done for each line."""
    if "e" in cells:
        name = "seaway_edge_ejections_total"
        series[name].append(f"{name}{{{_backend(about)}}} {cells['e']:g}")
        return
    namespace, _, ingress = ("", "", "") if about == _NOBODY else about.partition("/")
    labels = f'namespace="{namespace}",ingress="{ingress}"'
    for code in "12345":
        if f"c{code}" in cells:
            name = "seaway_edge_requests_total"
            series[name].append(f'{name}{{{labels},code="{code}xx"}} {int(cells[f"c{code}"])}')
    for cell, name in _CELLS.items():
        if cell in cells:
            series[name].append(f"{name}{{{labels}}} {int(cells[cell])}")
    for letter, name in _HISTOGRAMS.items():
        if lines := _histogram(name, labels, letter, cells, limits):
            series[name] += lines


def _histogram(name: str, labels: str, letter: str, cells: Mapping[str, float], limits: tuple[str, ...]) -> list[str]:
    """Nothing where nothing was counted. A sum that is nothing is not kept: of requests that took less than a millisecond."""
    total = 0
    begin = f'{name}_bucket{{{labels},le="'
    lines = []
    for index, limit in enumerate(limits, start=1):
        total += int(cells.get(f"{letter}{index}", 0))
        lines.append(f'{begin}{limit}"}} {total}')
    lines.append(f"{name}_sum{{{labels}}} {cells.get(f'{letter}s', 0.0):.6f}")
    lines.append(f"{name}_count{{{labels}}} {total}")
    return lines if total else []
