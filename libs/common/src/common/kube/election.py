"""Who may lead, as decisions without I/O.

Candidates share one Lease object (coordination.k8s.io/v1). Its holder renews it; when the others have seen it unchanged for as long as it
says that it lasts, one of them may claim it, and compare-and-set lets one claim through. Clocks are never compared: each candidate
measures on its own monotonic clock how long it has seen no change, so only the pace of clocks matters, and the holder stops leading
(`renew`) well before the others may begin (`duration`). These are the rules of client-go's `tools/leaderelection`.

A holder that was frozen learns of its loss when it wakes, perhaps after it has acted once more. So leading is a hint that keeps work from
being done twice; what must never be done twice is fenced where it is written, by compare-and-set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.contracts.refs import Resource
from common.kube import Raw

LEASES: Final = Resource("coordination.k8s.io", "leases")
JITTER: Final = 0.2  # by how much of itself a wait between tries is stretched, at most


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a lease lasts without a sign of life, how long its holder tries to renew it, and how often; in seconds."""

    duration: int = 15
    renew: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew > self.retry * (1 + JITTER) > 0:
            raise ValueError(f"{self}: duration must be above renew, and renew above {1 + JITTER} times retry")


def lasting(seconds: int) -> Terms:
    """Terms of a lease that lasts so long, in the proportions that Kubernetes' own controllers have."""
    return Terms(seconds, seconds * 2 / 3, seconds * 2 / 15)


class Election:
    """What one candidate knows of a lease. Times are on its own monotonic clock; `stamp` is the wall clock's, for people."""

    def __init__(self, identity: str, terms: Terms) -> None:
        self._identity = identity
        self._terms = terms
        self._lease: Raw | None = None
        self._seen = 0.0
        self._renewed: float | None = None

    @property
    def holder(self) -> str:
        """Who held the lease when it was last seen; empty for nobody."""
        return str(self._spec.get("holderIdentity") or "")

    @property
    def term(self) -> int:
        """How often leadership had changed when the lease was last seen."""
        return int(self._spec.get("leaseTransitions") or 0)

    @property
    def ours(self) -> bool:
        """Whether the lease, as it was last seen, names us."""
        return self.holder == self._identity

    @property
    def _spec(self) -> Mapping[str, Any]:
        return (self._lease or {}).get("spec") or {}

    def see(self, lease: Raw | None, now: float) -> None:
        """The lease was read, and arrived at `now`. None: there is no lease yet."""
        before = self._spec
        self._lease = lease
        if self._spec != before:
            self._seen = now

    def may_claim(self, now: float) -> bool:
        """Whether nobody else holds the lease as far as we can know."""
        lasts = float(self._spec.get("leaseDurationSeconds") or self._terms.duration)
        return not self.holder or self.ours or now >= self._seen + lasts

    def leads(self, now: float) -> bool:
        """Whether we hold the lease and may act."""
        return self.left(now) > 0

    def left(self, now: float) -> float:
        """For how many more seconds we lead if nothing is renewed."""
        return 0.0 if self._renewed is None else max(0.0, self._renewed + self._terms.renew - now)

    def claim(self, stamp: str, now: float) -> Raw:
        """The lease as it is to be written so that we lead from now on, or lead on."""
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": self._terms.duration, "renewTime": stamp}
        if not self.leads(now):
            spec |= {"acquireTime": stamp, "leaseTransitions": 0 if self._lease is None else self.term + 1}
        return self._with(spec)

    def won(self, lease: Raw, sent: float) -> None:
        """Our claim, sent at `sent`, was accepted, and the lease is now `lease`."""
        self.see(lease, sent)
        self._renewed = sent

    def lost(self) -> None:
        """We lead no more, whatever the lease says."""
        self._renewed = None

    def release(self, stamp: str) -> Raw:
        """The lease as it is to be written so that another may lead at once."""
        return self._with({"holderIdentity": None, "leaseDurationSeconds": 1, "renewTime": stamp})

    def _with(self, spec: Mapping[str, Any]) -> Raw:
        return {**(self._lease or {}), "spec": {**self._spec, **spec}}
