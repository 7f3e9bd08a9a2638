"""Programs that outlive whoever started them, found again by their path.

A daemon is started by a path of the cluster's own (a link in its `bin`), and that path is what identifies the running process: there is no
file with process ids that could lie after a crash.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.testing.kubernetes import cgroups

# The shell joins the control groups before it becomes the program, so that no child of it can be born outside.
_JOIN = 'for entrance in $ENTRANCES; do echo 0 >"$entrance"; done; unset ENTRANCES; exec "$0" "$@"'
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program, how it is called and where it writes."""

    program: Path
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The program's."""
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The running process, if there is one."""
        wanted = os.fsencode(self.program)
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and _argv0(process) == wanted:
                return int(process.name)
        return None

    def start(self) -> None:
        """Starts the program in a session and in the control groups of the cluster, and does not wait for it."""
        entrances = " ".join(str(entrance) for entrance in cgroups.entrances())
        environment = {"PATH": _SEARCH_PATH, "HOME": "/root", **self.environment, "ENTRANCES": entrances}
        with self.log.open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", _JOIN, str(self.program), *self.arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                timeout=10,
            )

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


def _argv0(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return b""  # it ended while we looked
