"""Limits: looks at the start at what the machine permits, and says what is too low (`machine.py`).

Settings of the network belong to a network namespace: with hostNetwork, and on one machine, ours is nginx's.
"""

import os
from pathlib import Path
from typing import Final

import structlog

from nginx_config_renderer import metrics
from nginx_config_renderer.machine import too_low

_SYSCTLS: Final = Path("/proc/sys")

log = structlog.get_logger(__name__)


def look(*, open_files: int, connections: int, workers: int) -> None:
    """Says what is too low for so many workers (0: one a processor) of so many connections each."""
    found = too_low(_read, open_files=open_files, connections=connections, workers=workers or os.cpu_count() or 1)
    metrics.TOO_LOW.set(len(found))
    for sentence in found:
        log.warning("machine.too_low", what=sentence)


def _read(name: str) -> str | None:
    try:
        return (_SYSCTLS / name.replace(".", "/")).read_text()
    except OSError:
        return None
