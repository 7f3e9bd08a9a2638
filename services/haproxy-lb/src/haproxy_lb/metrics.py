"""What a balancer counts."""

from prometheus_client import Counter, Gauge

REJECTED = Gauge("seaway_lb_rejected_objects", "Problems of objects, by which they, or parts of them, are not in force.")
TABLE = Gauge("seaway_lb_table_size", "Entries of what is wanted.", ["kind"])
POOL_SIZE = Gauge("seaway_lb_pool_addresses", "Addresses of a pool.", ["pool", "family"])
POOL_USED = Gauge(
    "seaway_lb_pool_addresses_used", "Addresses of a pool that Services have; told by the leader.", ["pool", "family"]
)
POOL_WAITING = Gauge("seaway_lb_pool_addresses_waiting", "Addresses in quarantine; told by the leader.", ["pool", "family"])
STATUS_WRITES = Counter("seaway_lb_status_writes_total", "Statuses of Services that were written.", ["result"])
ALLOCATION_SECONDS = Gauge("seaway_lb_allocation_seconds", "How long the last allocation took.")
