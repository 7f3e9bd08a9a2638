"""What the bus counts about itself, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge

RECONNECTS: Final = Counter("seaway_bus_reconnects_total", "Times that the connection to the bus was made again.")
DENIED: Final = Counter("seaway_bus_denied_total", "Times that the bus refused for want of a permission.")
SILENT: Final = Counter("seaway_bus_silent_total", "Times that the bus did not answer a ping and the connection was dropped.")
READERS_LOST: Final = Counter("seaway_bus_readers_lost_total", "Readers that had to be made again.", ["reader"])
SNAPSHOTS: Final = Counter("seaway_bus_snapshots_total", "Snapshots that a follower completed.", ["follower"])
FOLLOWER_SYNCED: Final = Gauge("seaway_bus_follower_synced", "1 while the follower is complete.", ["follower"])
FOLLOWER_BEHIND: Final = Gauge("seaway_bus_follower_behind", "Messages that the follower knows to be ahead of it.", ["follower"])
PUBLISHED: Final = Counter("seaway_bus_published_total", "Messages stored.", ["stream"])
PUBLISH_RETRIES: Final = Counter("seaway_bus_publish_retries_total", "Publishes that have to be tried again.", ["stream", "why"])
PUBLISH_PENDING: Final = Gauge("seaway_bus_publish_pending", "Subjects whose newest message is not stored yet.", ["stream"])
FACTS_LOST: Final = Counter("seaway_bus_facts_lost_total", "Facts and alerts that found the queue full.")
JOBS_ENDED: Final = Counter("seaway_bus_jobs_total", "Jobs handled, by what came of them.", ["queue", "outcome"])
