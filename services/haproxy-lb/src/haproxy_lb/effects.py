"""What the data path counts about itself, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

RELOADS: Final = Counter("seaway_lb_reloads_total", "Times that HAProxy was told to begin again, by the reason.", ["cause"])
COMMANDS: Final = Counter("seaway_lb_commands_total", "Commands that HAProxy was given, by what came of them.", ["outcome"])
COMPARISONS: Final = Counter("seaway_lb_comparisons_total", "Times that all was read back and compared with what should be.")
DRIFT: Final = Counter(
    "seaway_lb_drift_total", "Times that HAProxy or the kernel held something else than they were told to.", ["where"]
)
LATENCY: Final = Histogram("seaway_lb_apply_seconds", "From the arrival of a change to its being in force.", buckets=_BUCKETS)
SLOTS: Final = Gauge("seaway_lb_slots", "HAProxy's backends, by what they are: taken or there in all.", ["state"])
LEAVING: Final = Gauge(
    "seaway_lb_leaving_servers", "Servers that get no connections any more, and still have some or are to be deleted."
)
WAITING: Final = Gauge("seaway_lb_waiting_slots", "Slots with servers that get no connections before a check has passed.")
