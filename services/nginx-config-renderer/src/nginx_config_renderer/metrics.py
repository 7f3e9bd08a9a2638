"""What the renderer counts about itself, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

RELOADS: Final = Counter("seaway_edge_reloads_total", "Times that nginx read its configuration again, and took it.", ["cause"])
PUSHES: Final = Counter("seaway_edge_pushes_total", "Pushes to nginx's tables, by what came of them.", ["outcome"])
WRITES: Final = Counter("seaway_edge_writes_total", "Entries written to nginx's tables.", ["table"])
COMPARISONS: Final = Counter(
    "seaway_edge_comparisons_total", "Times that all of nginx's tables were compared with what they should hold."
)
LATENCY: Final = Histogram("seaway_edge_push_seconds", "From the arrival of a change to nginx's having it.", buckets=_BUCKETS)
PROPAGATION: Final = Histogram(
    "seaway_edge_propagation_seconds",
    "From the watcher's publishing a version of an object to nginx's having all that is different by it.",
    ["resource"],
    buckets=_BUCKETS,
)
TABLE: Final = Gauge("seaway_edge_table_entries", "What the tables hold.", ["kind"])
FREE: Final = Gauge("seaway_edge_table_free_bytes", "Shared memory that a table has left.", ["table"])
REVISION: Final = Gauge("seaway_edge_revision", "The revision of nginx's tables.")
REJECTED: Final = Gauge("seaway_edge_problems", "Problems of objects that are not, or not wholly, in force.")
TOO_LOW: Final = Gauge("seaway_edge_limits_too_low", "Limits of the machine that are too low; the log says which, and what to set.")
EXPIRY: Final = Gauge(
    "seaway_edge_certificate_expiry_timestamp_seconds",
    "When the certificate of a Secret ends, as Unix time.",
    ["namespace", "secret"],
)
ROTATIONS: Final = Counter("seaway_edge_log_rotations_total", "Times that a log gave way to a new one.", ["log"])
LOG_BYTES: Final = Gauge("seaway_edge_log_bytes", "What all logs together take.")
