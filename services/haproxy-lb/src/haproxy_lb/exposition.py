"""What HAProxy counted, in the words of Prometheus (text format 0.0.4). Pure.

HAProxy counts for its slots and their servers, and is asked in CSV (management.txt §9.1); here that becomes what people know: ports of
Services and their endpoints. Only ports that there are have series. Endpoints are told one by one as long as there are no more than a
given number of them, those of the first Services in the order of their names; of the others the port's own series remain.

A server that was replaced by another at the same address is one endpoint with it. A slot that had another Service before goes on counting
from there, which is nothing to a rate.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from haproxy_lb.model import BackendKey
from haproxy_lb.slots import Slot

_BACKEND: Final = "BACKEND"
_HELP: Final = {
    "seaway_lb_connections": ("gauge", "Connections that a port of a Service has."),
    "seaway_lb_connections_total": ("counter", "Connections that a port of a Service had."),
    "seaway_lb_received_bytes_total": ("counter", "Bytes that came from clients."),
    "seaway_lb_sent_bytes_total": ("counter", "Bytes that went to clients."),
    "seaway_lb_failed_connections_total": ("counter", "Connections to endpoints that could not be made, or were cut off."),
    "seaway_lb_retries_total": ("counter", "Tries beyond the first, at the same endpoint or at another."),
    "seaway_lb_endpoints": ("gauge", "Endpoints of a port, by how they are: up, down, or leaving."),
    "seaway_lb_endpoint_up": ("gauge", "Whether an endpoint is well; 1 if nobody asks it."),
    "seaway_lb_endpoint_connections": ("gauge", "Connections that an endpoint has."),
    "seaway_lb_endpoint_connections_total": ("counter", "Connections that an endpoint had."),
    "seaway_lb_endpoint_failed_checks_total": ("counter", "Checks that an endpoint did not pass."),
    "seaway_lb_endpoints_untold": ("gauge", "Endpoints that have no series of their own, since there are too many."),
    "seaway_lb_refused_connections_total": (
        "counter",
        "Connections from networks that may not ask, or above a rate, or to no Service.",
    ),
}
_OF_PORTS: Final = {
    "seaway_lb_connections": ("scur",),
    "seaway_lb_connections_total": ("stot",),
    "seaway_lb_received_bytes_total": ("bin",),
    "seaway_lb_sent_bytes_total": ("bout",),
    "seaway_lb_failed_connections_total": ("econ", "eresp"),
    "seaway_lb_retries_total": ("wretr",),
}
_OF_ENDPOINTS: Final = {
    "seaway_lb_endpoint_connections": "scur",
    "seaway_lb_endpoint_connections_total": "stot",
    "seaway_lb_endpoint_failed_checks_total": "chkfail",
}
_Fields = Mapping[str, str]


@dataclass(slots=True)
class _Endpoint:
    """An address and port, with what its servers counted together."""

    state: str = "leaving"
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def exposition(hall: str, counts: str, slots: Mapping[BackendKey, Slot], most: int) -> str:
    """The text, from HAProxy's answers to `show stat`, of its hall and of its slots. Of endpoints at most `most` are told one by one."""
    ports, servers = _read(counts)
    refused = _refused(hall)
    series: dict[str, list[str]] = {name: [] for name in _HELP}
    told = untold = 0
    for key, slot in sorted(slots.items()):
        if slot not in ports:
            continue
        labels = f'namespace="{key.namespace}",service="{key.service}",port="{key.port}"'
        for name, line in _of_port(labels, ports[slot], servers[slot]):
            series[name].append(line)
        if told + len(servers[slot]) > most:
            untold += len(servers[slot])
            continue
        told += len(servers[slot])
        for endpoint, one in sorted(servers[slot].items()):
            for name, line in _of_endpoint(f'{labels},endpoint="{endpoint}"', one):
                series[name].append(line)
    series["seaway_lb_endpoints_untold"].append(f"seaway_lb_endpoints_untold {untold}")
    for cause, count in sorted(refused.items()):
        series["seaway_lb_refused_connections_total"].append(f'seaway_lb_refused_connections_total{{cause="{cause}"}} {count}')
    return "".join(_block(name, lines) for name, lines in sorted(series.items()) if lines)


def _rows(answer: str) -> Iterator[_Fields]:
    return csv.DictReader(answer.removeprefix("# ").splitlines())


def _refused(hall: str) -> dict[str, int]:
    """How many connections were refused, by the cause: who is refused has come to the hall."""
    refused: dict[str, int] = defaultdict(int)
    for row in _rows(hall):
        refused["rule"] += _number(row, "dcon") + _number(row, "dses")
        refused["limit"] += _number(row, "dreq")
    return refused


def _read(answer: str) -> tuple[dict[str, _Fields], dict[str, dict[str, _Endpoint]]]:
    """The slots and their endpoints."""
    ports: dict[str, _Fields] = {}
    servers: dict[str, dict[str, _Endpoint]] = defaultdict(lambda: defaultdict(_Endpoint))
    for row in _rows(answer):
        if row["svname"] == _BACKEND:
            ports[row["pxname"]] = row
        else:
            endpoint = servers[row["pxname"]][row["svname"].rpartition("_")[0] or row["svname"]]
            for name in _OF_ENDPOINTS.values():
                endpoint.counts[name] += _number(row, name)
            state = _state(row["status"])
            endpoint.state = state if endpoint.state == "leaving" else endpoint.state
    return ports, servers


def _state(status: str) -> str:
    """HAProxy's word, such as `UP 1/3`, `no check`, `DOWN (agent)` or `DRAIN`, as one of three."""
    word = status.split(" ", 1)[0]
    if word in {"MAINT", "DRAIN", "NOLB"}:
        return "leaving"
    return "down" if word == "DOWN" else "up"


def _of_port(labels: str, row: _Fields, servers: Mapping[str, _Endpoint]) -> Iterator[tuple[str, str]]:
    for name, columns in _OF_PORTS.items():
        yield name, f"{name}{{{labels}}} {sum(_number(row, column) for column in columns)}"
    for state in ("up", "down", "leaving"):
        count = sum(one.state == state for one in servers.values())
        yield "seaway_lb_endpoints", f'seaway_lb_endpoints{{{labels},state="{state}"}} {count}'


def _of_endpoint(labels: str, one: _Endpoint) -> Iterator[tuple[str, str]]:
    yield "seaway_lb_endpoint_up", f"seaway_lb_endpoint_up{{{labels}}} {int(one.state == 'up')}"
    for name, column in _OF_ENDPOINTS.items():
        yield name, f"{name}{{{labels}}} {one.counts[column]}"


def _number(row: _Fields, column: str) -> int:
    """A count; 0 where HAProxy has none, such as the failed checks of who is not checked."""
    text = row.get(column) or ""
    return int(text) if text.isdigit() else 0


def _block(name: str, lines: list[str]) -> str:
    kind, text = _HELP[name]
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "".join(f"{line}\n" for line in lines)
