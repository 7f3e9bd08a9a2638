"""Signals: the first SIGTERM or SIGINT asks for an orderly end, the second one is one no longer."""

import asyncio
import signal

_ASKING = (signal.SIGTERM, signal.SIGINT)


def asked_to_stop() -> asyncio.Event:
    """An event that the first signal sets. After it, signals do again what they do by themselves: they kill."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for number in _ASKING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _ASKING:
        loop.add_signal_handler(number, stop)
    return stopping
