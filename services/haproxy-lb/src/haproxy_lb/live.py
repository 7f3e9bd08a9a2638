"""Live: a HAProxy and our table in the kernel, as they are known to be.

What they hold is read once and then followed by what they were told and took. `read` again finds out whether that is still so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from haproxy_lb import effects
from haproxy_lb.kernel import Fronts, Kernel
from haproxy_lb.model import FrontKey
from haproxy_lb.rules import Command, Held
from haproxy_lb.runtime import Lost, Process, Runtime
from haproxy_lb.slots import Layout, Slot, layout_of

_NAMED: Final = 5  # of many, so many are named in a log

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Live:
    """One process of HAProxy, what it holds, the slots that it has, and the kernel's fronts; None where our table is not there."""

    runtime: Runtime
    kernel: Kernel
    process: Process
    held: Held
    fronts: dict[FrontKey, str] | None
    layout: Layout

    @classmethod
    async def read(cls, runtime: Runtime, kernel: Kernel) -> "Live":
        """All that is there. Raises Lost where there is no HAProxy that stays, KernelError."""
        process = await runtime.process()
        if process.stopping:
            runtime.close()
            raise Lost(f"HAProxy's process {process.pid} makes way for another one")
        effects.COMPARISONS.inc()
        held = await runtime.held()
        return cls(runtime, kernel, process, held, await kernel.held(), layout_of(held.slots))

    def compare(self, before: "Live") -> None:
        """Says where this is not what `before` should have become."""
        if before.process != self.process:
            return
        if differences := before.held.differences(self.held):
            effects.DRIFT.labels("haproxy").inc()
            log.warning("haproxy.drifted", count=len(differences), first=differences[:_NAMED])
        if before.fronts != self.fronts:
            effects.DRIFT.labels("kernel").inc()
            log.warning("kernel.drifted", held=len(self.fronts or ()), told=len(before.fronts or ()))

    async def same(self) -> None:
        """Raises Lost if another process has taken the place of this one, or is about to."""
        process = await self.runtime.process()
        if process != self.process:
            self.runtime.close()
            raise Lost(f"HAProxy is process {process.pid} now, and was {self.process.pid}")

    async def give(self, commands: Sequence[Command]) -> None:
        """Gives commands, and notes what became of them. Raises Lost, after all were given, if one was not done as the rules say."""
        if not commands:
            return
        faults = []
        for command, refusal in zip(commands, await self.runtime.give(commands), strict=True):
            fault = refusal or self.held.obey(command)
            effects.COMMANDS.labels("refused" if fault else "obeyed").inc()
            if fault:
                faults.append(f"{command}: {fault}")
        if faults:
            log.error("haproxy.refused", count=len(faults), first=faults[:_NAMED])
            raise Lost(f"HAProxy refuses {len(faults)} of {len(commands)} commands, first {faults[0]}")

    async def look(self, slots: Sequence[Slot]) -> None:
        """Reads again how the servers of some slots are."""
        for slot, name, server in await self.runtime.look(slots):
            if name in self.held.slots.get(slot, {}):
                self.held.slots[slot][name] = server

    async def direct(self, fronts: Fronts) -> None:
        """The kernel sends these to HAProxy, and no others."""
        if self.fronts is None:
            await self.kernel.replace(fronts)
        elif self.fronts != fronts:
            await self.kernel.change(self.fronts, fronts)
        self.fronts = dict(fronts)
