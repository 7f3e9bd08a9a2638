"""What the service counts, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge

RELOADS: Final = Counter("seaway_vip_reloads_total", "Configurations that were given to keepalived, by cause.", ["cause"])
REFUSED: Final = Counter("seaway_vip_refused_total", "Configurations that keepalived's own check refused.")
HELD: Final = Gauge("seaway_vip_held", "Addresses that this node holds.")
WANTED: Final = Gauge("seaway_vip_wanted", "Addresses that the cluster's nodes should hold together.")
MASTERS: Final = Gauge("seaway_vip_masters", "VRRP instances of which this node is master.")
MOVES: Final = Counter("seaway_vip_moves_total", "Addresses that came to this node or went from it.", ["to"])
SWEPT: Final = Counter("seaway_vip_swept_total", "Stale addresses that were taken off an interface.")
DUPLICATES: Final = Counter("seaway_vip_duplicates_total", "Times that somebody else answered for an address that this node holds.")
HELD_BACK: Final = Gauge("seaway_vip_held_back", "1 while this node may hold nothing.")
PROPOSALS: Final = Counter("seaway_vip_proposals_total", "Plans that this node proposed, by what came of them.", ["outcome"])
EDGE_READY: Final = Gauge("seaway_vip_edge_ready", "Whether an edge of this node is ready.", ["edge"])
