"""Following the replica: what a service reads of the bus, and what is said of a copy that does not agree with the watcher's.

async with Follower(bus, STATE.name, replica_filters(cluster, FOLLOWED, configmaps), name="zone-renderer") as updates:
async for update in updates:
...
if not agreement.holds(comparisons):
break  # and take the replica anew
"""

from collections.abc import Iterable
from typing import Final

import structlog
from prometheus_client import Counter

from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef, Resource
from common.contracts.subjects import state_filter, state_subject, sync_subject
from common.replica import Comparison
from common.runtime.reports import Reports

DRIFT: Final = Counter(
    "seaway_replica_drift_total",
    "Times that the replica of a resource differed from the watcher's, and was taken anew.",
    ["resource"],
)

log = structlog.get_logger(__name__)


def replica_filters(cluster: str, resources: Iterable[Resource], configmaps: Iterable[ObjectRef] = ()) -> tuple[str, ...]:
    """The subjects of all objects of `resources` and of their markers. Of ConfigMaps those that are named: others may be many and large."""
    filters = [subject for one in resources for subject in (state_filter(cluster, one), sync_subject(cluster, one))]
    named = sorted(set(configmaps))
    if named:
        filters += [*(state_subject(cluster, ref) for ref in named), sync_subject(cluster, ConfigMap.resource)]
    return tuple(filters)


class Agreement:
    """Tells when a replica differs from the watcher's, and when it does not any more."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def holds(self, comparisons: Iterable[Comparison]) -> bool:
        """Whether all of these found the same on both sides."""
        found = [self._told(comparison) for comparison in comparisons]  # each is told, also behind one that differs
        return all(found)

    def _told(self, comparison: Comparison) -> bool:
        if not comparison.equal:
            DRIFT.labels(str(comparison.resource)).inc()
            log.error("replica.drifted", resource=str(comparison.resource), held=comparison.count, marked=comparison.marker.count)
        self._reports.alert(f"ReplicaDrift-{comparison.resource}", "critical", _drift(comparison))
        return comparison.equal


def _drift(comparison: Comparison) -> str | None:
    if comparison.equal:
        return None
    there = comparison.marker.count
    return (
        f"our replica of {comparison.resource} holds {comparison.count} objects and differs from the watcher's {there}; "
        "it is being taken anew, and if this lasts, somebody but the watcher writes on the bus"
    )
