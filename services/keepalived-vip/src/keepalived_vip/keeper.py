"""The keeper makes keepalived have the wanted layout: by the steps that lose no address, each tried first, and not too many in a row.

keepalived takes two SIGHUPs that are close to one another as one, and a reload that lasts longer than three advertisements makes others
take over. So there is a pause after each, in which what else is wanted gathers. What keepalived or the disk does not take is told and tried
again, and keepalived goes on as it is.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from pydantic import TypeAdapter, ValidationError

from common.process import atomic_write
from keepalived_vip import metrics
from keepalived_vip.keepalived import Keepalived, Refused
from keepalived_vip.model import Address, Layout
from keepalived_vip.render import Style, render
from keepalived_vip.steps import steps

_LAYOUT: Final = TypeAdapter(Layout)
_AGAIN: Final = 30.0  # seconds until a layout that was refused is tried again

log = structlog.get_logger(__name__)


class Keeper:
    """The one writer of keepalived's configuration. `running` is what stands in the file, over restarts of ours too."""

    def __init__(self, keepalived: Keepalived, kept: Path, pause: float) -> None:
        self.running = self._stored = _read(kept)
        self.trouble: str | None = "no configuration has been written yet"
        self.ours: set[Address] = set(self.running.holders)
        self.keepalived = keepalived
        self._style: Style | None = None
        self._kept = kept
        self._pause = pause
        self._wanted: Layout | None = None
        self._mending = False
        self._news = asyncio.Event()

    @property
    def settled(self) -> bool:
        """Whether the file says what is wanted."""
        return self._wanted is not None and self._wanted == self.running and self.trouble is None

    def want(self, layout: Layout, style: Style) -> None:
        """From now on this is wanted."""
        if (layout, style) != (self._wanted, self._style):
            self._wanted, self._style = layout, style
            self._news.set()

    def mend(self) -> None:
        """Makes keepalived take all addresses anew of which it believes wrongly that it has them."""
        self._mending = True
        self._news.set()

    async def run(self, missing: Callable[[], Collection[Address]]) -> None:
        """Applies what is wanted, until cancelled. `missing` says which addresses are to be taken anew."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if self.trouble else None):
                    await self._news.wait()
            self._news.clear()
            if self._wanted is None or self._style is None:
                continue
            try:
                self._store()
                if self._mending:
                    self._mending = False
                    await self._go(_without(self.running, missing()), self._style, "mend")
                await self._change(self._wanted, self._style)
                self.trouble = None
            except Refused as error:
                self._fail(str(error))
            except OSError as error:
                self._fail(f"{error.filename or self._kept.parent} cannot be written: {error.strerror}; make room there")

    def _fail(self, reason: str) -> None:
        self.trouble = reason
        metrics.REFUSED.inc()
        log.error("configuration.refused", reason=reason)

    async def _change(self, wanted: Layout, style: Style) -> None:
        for step in steps(self.running, wanted):
            await self._go(step, style, "change")
        if self.keepalived.text != render(wanted, style):
            await self._go(wanted, style, "style")

    async def _go(self, layout: Layout, style: Style, cause: str) -> None:
        text = render(layout, style)
        await self.keepalived.check(text)
        self.ours |= layout.holders.keys()
        self.keepalived.install(text)
        self.running = layout
        self._store()
        metrics.RELOADS.labels(cause).inc()
        log.info("configuration.installed", cause=cause, instances=len(layout.instances), addresses=len(layout.holders))
        await asyncio.sleep(self._pause)

    def _store(self) -> None:
        """Keeps what stands in the file, if that is not done."""
        if self._stored != self.running:
            atomic_write(self._kept, _LAYOUT.dump_json(self.running), 0o600)
            self._stored = self.running


def _without(layout: Layout, addresses: Collection[Address]) -> Layout:
    return Layout(
        tuple(
            replace(instance, addresses=tuple(address for address in instance.addresses if address not in addresses))
            for instance in layout.instances
        )
    )


def _read(kept: Path) -> Layout:
    try:
        return _LAYOUT.validate_json(kept.read_bytes())
    except FileNotFoundError:
        return Layout()
    except (OSError, ValidationError) as error:
        log.warning("layout.unreadable", path=str(kept), reason=str(error).splitlines()[0])
        return Layout()
