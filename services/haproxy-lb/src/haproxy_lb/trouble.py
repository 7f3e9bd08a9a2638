"""Trouble: why HAProxy or the kernel is not as it should be, and whether connections should go to another node for that.

A command that is refused, or a HAProxy that has just made way for another one, is read back and mended within a moment, while connections
are carried as before. A node that was not ready for that moment would lose its addresses, and get them back minutes later. So trouble
counts when it has lasted; at once if it is grave, as when HAProxy is gone.
"""

from typing import Final

LASTING: Final = 2.0  # seconds


class Trouble:
    """What is wrong, if anything is; `reason` is a sentence. `now` is any clock's. It begins with grave trouble."""

    def __init__(self, reason: str) -> None:
        self.reason: str | None = reason
        self._since = float("-inf")

    def begin(self, reason: str, now: float, *, grave: bool) -> None:
        """Something is wrong. It is as grave as it was, and lasts for as long as it did, until it is over."""
        if grave:
            self._since = float("-inf")
        elif self.reason is None:
            self._since = now
        self.reason = reason

    def over(self) -> None:
        """Nothing is wrong any more."""
        self.reason = None

    def counts(self, now: float) -> str | None:
        """What is wrong, if connections should go to another node for that."""
        return self.reason if now - self._since >= LASTING else None
