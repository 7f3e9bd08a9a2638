"""The annotations of Services that are known here: one table, from which they are read and told to people.

A value is parsed to a type before anything else sees it. A bad one is told, with the object, and stands for nothing: the Service is served
as if it were not there. An annotation that is not in the table is somebody else's.
"""

from dataclasses import dataclass, replace
from typing import Final

from common.contracts.ip import Address
from common.contracts.objects import Service
from common.contracts.problems import Problem
from common.knobs import Knob, Knobs, boolean, one_of, whole
from haproxy_lb import values
from haproxy_lb.model import DEFAULT_CHECK, DEFAULT_TIMEOUTS, DEFAULT_TREATMENT, Treatment

PREFIX: Final = "seaway.dev/"
DAY: Final = 86400.0


def _timeout(name: str, field: str, default: str, text: str) -> Knob:
    return Knob(PREFIX + name, "timeouts", field, values.seconds(0.001, 7 * DAY), default, text)


TABLE: Final = Knobs(
    Knob(
        f"{PREFIX}load-balancer-ips",
        "address",
        "requested",
        values.addresses,
        "",
        "The address that the Service shall have, or one of each family with a comma between them.",
    ),
    Knob(f"{PREFIX}address-pool", "address", "pool", values.name, "", "The pool that its addresses shall be of."),
    Knob(
        f"{PREFIX}allow-shared-ip",
        "address",
        "sharing",
        values.key,
        "",
        "Services with the same value share an address, if they have no port in common.",
    ),
    Knob(
        f"{PREFIX}udp",
        "endpoints",
        "kernel",
        one_of({"refuse": False, "kernel": True}),
        "refuse",
        "`kernel` leaves a Service with ports of UDP or SCTP to kube-proxy, its TCP ports too: the address shows `ipMode: VIP`.",
    ),
    Knob(
        f"{PREFIX}local-fallback",
        "endpoints",
        "fallback",
        boolean,
        "false",
        "With `externalTrafficPolicy: Local`: whether endpoints of other nodes answer where the own node has none.",
    ),
    Knob(
        f"{PREFIX}balance",
        "treatment",
        "balance",
        one_of({"roundrobin": "roundrobin", "leastconn": "leastconn", "source": "source"}),
        "roundrobin",
        "How an endpoint is chosen: by turns, by the least connections, or by the client's address.",
    ),
    Knob(
        f"{PREFIX}proxy-protocol",
        "treatment",
        "send_proxy",
        one_of({"v1": "v1", "v2": "v2"}),
        "",
        "Endpoints are told the client's address by the PROXY protocol of this version: v1 or v2.",
    ),
    Knob(
        f"{PREFIX}accept-proxy-protocol",
        "treatment",
        "accept_proxy",
        values.networks,
        "",
        "Networks whose connections begin with the PROXY protocol, such as those of another load balancer in front.",
    ),
    Knob(
        f"{PREFIX}max-connections",
        "treatment",
        "max_connections",
        whole(0, 10_000_000),
        "0",
        "Connections at once to a port; 0 is any number.",
    ),
    Knob(
        f"{PREFIX}connection-rate",
        "treatment",
        "rate",
        whole(0, 10_000_000),
        "0",
        "New connections a second to a port; 0 is any number.",
    ),
    Knob(f"{PREFIX}health-check", "check", "enabled", boolean, "true", "Whether endpoints are asked if they are well."),
    Knob(
        f"{PREFIX}health-check-interval",
        "check",
        "interval",
        values.seconds(0.1, 3600),
        "2s",
        "How often; such as 500ms, 5s or 1m.",
    ),
    Knob(f"{PREFIX}health-check-rise", "check", "rise", whole(1, 100), "2", "Good answers until a sick endpoint is well."),
    Knob(f"{PREFIX}health-check-fall", "check", "fall", whole(1, 100), "3", "Bad answers until an endpoint is sick."),
    Knob(
        f"{PREFIX}health-check-path",
        "check",
        "http_path",
        values.path,
        "",
        "Ask by GET of this path, where 2xx and 3xx are good; without it by a connection.",
    ),
    _timeout("timeout-connect", "connect", "5s", "For a connection to an endpoint."),
    _timeout(
        "timeout-client", "client", "", "Nothing may come from either side for this long, or for `timeout-server` if that is less."
    ),
    _timeout("timeout-server", "server", "", "The same, or `timeout-client` if that is less."),
    _timeout("timeout-tunnel", "tunnel", "", "The same, instead of both. Without any of the three it is an hour."),
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one Service asks for. `kernel`: it is left to kube-proxy; `fallback`: other nodes help where the own one has no endpoint."""

    requested: tuple[Address, ...] = ()
    pool: str = ""
    sharing: str = ""
    kernel: bool = False
    fallback: bool = False
    treatment: Treatment = DEFAULT_TREATMENT
    problems: tuple[Problem, ...] = ()


def wishes(service: Service) -> Wishes:
    """What the annotations of `service` ask for."""
    reading = TABLE.read(service.metadata.annotations)
    given = reading.given
    treatment = replace(
        DEFAULT_TREATMENT,
        check=replace(DEFAULT_CHECK, **given["check"]),
        timeouts=replace(DEFAULT_TIMEOUTS, **given["timeouts"]),
        **given["treatment"],
    )
    problems = tuple(
        Problem(service.ref, "BadAnnotation", f"annotation {bad.knob.name} is {bad.value}; {bad.mend}") for bad in reading.bad
    )
    return Wishes(**given["address"], **given["endpoints"], treatment=treatment, problems=problems)
