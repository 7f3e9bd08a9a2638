"""Trials with the nginx of another Debian: as isolated as with this machine's own, in a root of its own besides."""

from dataclasses import dataclass, replace
from pathlib import Path

from common.process import Outcome
from common.testing.debian import Installation
from nginx_config_renderer.confine import Bounds
from nginx_config_renderer.trial import Ground, find_ground


@dataclass(frozen=True, slots=True)
class Rooted(Ground):
    """The trial's process goes into the root before it becomes nginx, which takes the rights of root until then."""

    root: str = ""

    def bounds(self, directory: str, memory: int, *readable: str) -> Bounds:
        return replace(Ground.bounds(self, directory, memory, self.root, *readable), user=0)

    async def run(self, bounds: Bounds, *command: str) -> Outcome:
        there = ("chroot", f"--userspec={self.user}:{self.user}", self.root, f"/usr/sbin/{Path(command[0]).name}", *command[1:])
        return await Ground.run(self, bounds, *there)


async def ground_of(installation: Installation) -> Ground:
    """Where configurations for that nginx are tried."""
    found = await find_ground()
    if not installation.root:
        return found
    return Rooted((*found.prefix, *installation.mounted()), found.user, found.isolated, installation.root)
