"""The streams that Seaway needs, and the sentence for each option that is not a default.

`ensure_streams` creates what is missing and mends what drifted; every service that publishes calls it when it starts, so that nobody has
to prepare a server by hand.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from common.bus.protocol import ADVISORIES, Bus, StreamConfig, StreamState
from common.contracts import subjects

GIB: Final = 1024**3
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR

STATE: Final = StreamConfig(
    name="STATE",
    description="Cluster state, compacted: the newest message of each object, and the sync markers",
    subjects=(f"{subjects.STATE}.>", f"{subjects.SYNC}.>"),
    per_subject=1,
    message_ttl=True,  # tombstones go away by themselves; live objects never do, so there is no max_age
    deny_delete=True,  # a deletion is a message: without one, followers would not hear of it
    max_bytes=GIB,  # bounds the damage; full means refused, since dropping the oldest would drop a live object
)
EVENTS: Final = StreamConfig(
    name="EVENTS",
    description="Facts: what services did",
    subjects=(f"{subjects.EVENTS}.>",),
    discard="old",
    max_age=7 * DAY,
    max_bytes=GIB // 2,
)
ALERTS: Final = StreamConfig(
    name="ALERTS",
    description="What an operator should act on",
    subjects=(f"{subjects.ALERTS}.>",),
    discard="old",
    max_age=30 * DAY,
    max_bytes=GIB // 8,
)
FIRING: Final = StreamConfig(
    name="FIRING",
    description="Which alerts fire, compacted: the newest list of each instance",
    subjects=(f"{subjects.FIRING}.>",),
    discard="old",
    per_subject=1,
    max_age=30 * DAY,  # as long as the alerts themselves: an instance may never come again
    max_bytes=GIB // 64,
)
JOBS: Final = StreamConfig(
    name="JOBS",
    description="Work that must be done once",
    subjects=(f"{subjects.JOBS}.>",),
    retention="workqueue",
    max_age=7 * DAY,
    max_bytes=GIB // 2,
    duplicate_window=HOUR,  # a webhook's sender repeats itself for about that long
)
DEAD_LETTERS: Final = StreamConfig(
    name="DLQ",
    description="Jobs that were given up, with the reason",
    subjects=(f"{subjects.DEAD_LETTERS}.>",),
    discard="old",
    max_age=90 * DAY,
    max_bytes=GIB // 8,
)
GIVEN_UP: Final = StreamConfig(
    name="GIVEN_UP",
    description="The server's notices of jobs that were tried too often; the undertaker turns them into dead letters",
    subjects=(f"{ADVISORIES}.{JOBS.name}.>",),
    retention="workqueue",
    discard="old",
    max_age=7 * DAY,
    max_bytes=GIB // 64,
)
HOOKS: Final = StreamConfig(
    name="HOOKS",
    description="Webhooks as they came, to be replayed",
    subjects=(f"{subjects.HOOKS}.>",),
    discard="old",
    max_age=7 * DAY,
    max_bytes=GIB // 2,
)
WANTED: Final = StreamConfig(
    name="WANTED",
    description="What services want of each other, compacted: the newest wish of each",
    subjects=(f"{subjects.WANTED}.>",),
    per_subject=1,
    message_ttl=True,
    deny_delete=True,
    max_bytes=GIB // 16,
)
ALL: Final = (STATE, EVENTS, ALERTS, FIRING, JOBS, DEAD_LETTERS, GIVEN_UP, HOOKS, WANTED)


async def ensure_streams(bus: Bus, replicas: int, configs: Iterable[StreamConfig] = ALL) -> dict[str, StreamState]:
    """Creates or mends the streams, and says how each of them is now. Raises Unsupported if the server cannot have them so."""
    return {config.name: await bus.ensure_stream(replace(config, replicas=replicas)) for config in configs}
