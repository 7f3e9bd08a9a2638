"""Records the bytes of one message of each kind, as a release writes them: `python -m tests.contract.record`.

A recorded file is never written again: it stands for a release that somebody runs.
"""

import base64
import json
from pathlib import Path
from typing import Any

from common.codec import digest, encode
from common.contracts.addresses import AddressesWanted, WantedAddress, wanted_event
from common.contracts.balancers import BalancerFound, UnwellEndpoint, found_event
from common.contracts.events import CloudEvent
from common.contracts.facts import (
    AddressGiven,
    Alert,
    Applied,
    Firing,
    alert_event,
    fact_event,
    firing_event,
    object_name,
    rejected,
)
from common.contracts.objects import BY_KIND
from common.contracts.problems import Problem
from common.contracts.refs import ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted, SyncMarker, applied_event, deleted_event, marker_event

RELEASED = Path(__file__).parent / "v1"
SAMPLES = Path(__file__).parent / "objects.json"
TIME = "2026-01-02T03:04:05Z"
SOURCE = "/clusters/prod/watcher"


def messages() -> dict[str, CloudEvent]:
    """One event of each kind by the name of its file."""
    events: dict[str, CloudEvent] = {}
    samples: list[dict[str, Any]] = json.loads(SAMPLES.read_text())
    for raw in samples:
        projected = BY_KIND[raw["apiVersion"], raw["kind"]].project(raw)
        message = ObjectApplied(projected, ResourceVersion(raw["metadata"]["resourceVersion"]), digest(projected.to_data()))
        events[raw["kind"].lower()] = applied_event(message, source=SOURCE, time=TIME)
    gone = ObjectDeleted(projected.ref, "7c0f", ResourceVersion("99"))
    events["tombstone"] = deleted_event(gone, source=SOURCE, time=TIME)
    marker = SyncMarker(watcher="watcher-0", transitions=2, version="90", count=3, hash="0f" * 16, through=41, time=TIME)
    events["sync"] = marker_event(projected.ref.resource, marker, source=SOURCE)
    applied = Applied(instance="edge-1", revision=7, changed=2, counts={"hosts": 3})
    events["applied-fact"] = fact_event(applied, service="nginx-config-renderer", what="applied", id="1", time=TIME)
    problem = Problem(projected.ref, "BadPath", 'spec.rules[0].path "x" does not begin with /; write "/x"')
    fact = rejected(problem, instance="edge-1")
    events["rejected-fact"] = fact_event(fact, service="nginx-config-renderer", what="rejected", id="2", time=TIME)
    given = AddressGiven(instance="lb-1", object=object_name(projected.ref), ip="192.0.2.1", pool="public", given=True)
    events["address-fact"] = fact_event(given, service="haproxy-lb", what="address", id="4", time=TIME)
    wish = AddressesWanted(
        instance="lb-1", revision=3, addresses=(WantedAddress(ip="192.0.2.1", pool="public", services=("shop/web",)),)
    )
    events["wanted-addresses"] = wanted_event(wish, service="haproxy-lb", id="5", time=TIME)
    finds = BalancerFound(
        node="edge-1",
        trouble="HAProxy is away",
        unwell=(UnwellEndpoint(namespace="shop", service="web", port=80, endpoint="10.0.0.1:8080"),),
        more=2,
    )
    events["balancer-found"] = found_event(finds, id="6", time=TIME)
    alert = Alert(
        name="BusFull",
        service="watcher",
        instance="w-0",
        severity="critical",
        status="firing",
        summary="the stream is full",
        since=TIME,
    )
    events["alert"] = alert_event(alert, id="3", time=TIME)
    events["firing"] = firing_event(Firing(instance="w-0", alerts=(alert,)), service="watcher", id="7", time=TIME)
    return events


def main() -> None:
    """Writes what is not there yet."""
    for name, event in messages().items():
        file = RELEASED / f"{name}.json"
        if file.exists():
            continue
        encoded = encode(event)
        recorded = {"headers": encoded.headers, "body": base64.b64encode(encoded.body).decode(), "data": event.data}
        file.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
