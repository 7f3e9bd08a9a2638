"""The last resort: a service whose orderly end does not come is ended all the same, and says what held it up.

A task may swallow its cancellation, a thread cannot be cancelled at all, and a busy event loop runs no timeout. So a thread of its own
watches the end.
"""

import asyncio
import contextvars
import os
import threading

import structlog

log = structlog.get_logger(__name__)


class LastResort:
    """Ends the process with code 1 some time after `begin`, unless `over` was called before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """The end begins. To be called in the event loop; only the first call counts."""
        if self._timer is None:
            loop, context = asyncio.get_running_loop(), contextvars.copy_context()
            self._timer = threading.Timer(self._seconds, lambda: context.run(_give_up, loop))
            self._timer.daemon = True
            self._timer.start()

    def over(self) -> None:
        """The end came by itself."""
        if self._timer is not None:
            self._timer.cancel()


def _give_up(loop: asyncio.AbstractEventLoop) -> None:
    tasks = [task.get_name() for task in asyncio.all_tasks(loop)]
    threads = [thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    log.error("shutdown.forced", tasks=sorted(tasks), threads=sorted(threads))
    os._exit(1)
