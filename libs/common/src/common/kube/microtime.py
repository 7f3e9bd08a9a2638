"""MicroTime: how Kubernetes writes moments that matter to the microsecond (RFC 3339, in UTC)."""

from datetime import UTC, datetime


def now() -> str:
    """The moment by the wall clock: `2026-11-23T10:42:00.000001Z`."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
