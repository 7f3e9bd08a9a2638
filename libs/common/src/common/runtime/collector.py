"""The collector of cycles, kept from looking at what it can never free.

What a service knows of a cluster is values without cycles, which go when nobody refers to them any more. Python's collector looks at all of
them nevertheless, each time that there are a quarter more; with ten thousand hosts that stops everything for 0.3 s. So what a look found
alive that took long is put aside (`gc.freeze`), and the next one looks at what came after it. A cycle that was alive at such a moment is
not found when it ends; such moments are rare, since each needs some ten thousand new objects, and what is alive then for a short while only
is little.
"""

import gc
import time
from typing import Any, Final

LONG: Final = 0.02  # seconds that everything may be stopped
_OLDEST: Final = 2  # the generation whose collection looks at everything


class Sparing:
    """Notes how long each look at everything takes, and puts aside what is left after a long one."""

    def __init__(self, long: float = LONG) -> None:
        self._long = long
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """A callback of the collector (`gc.callbacks`)."""
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._began = time.monotonic()
        elif time.monotonic() - self._began > self._long:
            gc.freeze()


def spare() -> None:
    """Begins to do so, for this process."""
    gc.callbacks.append(Sparing())
