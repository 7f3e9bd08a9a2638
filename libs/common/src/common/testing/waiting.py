"""Waiting for a condition, the only way in which a test waits."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def wait_until(condition: Callable[[], object | Awaitable[object]], *, within: float = 10.0, every: float = 0.02) -> None:
    """Returns when `condition` is true; it may be a coroutine function. Raises AssertionError, which names it, after `within` seconds."""
    try:
        async with asyncio.timeout(within):
            while True:
                result = condition()
                if await result if inspect.isawaitable(result) else result:
                    return
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"{getattr(condition, '__qualname__', condition)} did not become true within {within:g} s") from None
