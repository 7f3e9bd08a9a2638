"""The Lua program that nginx runs: what it is, and where nginx finds it."""

import hashlib
from pathlib import Path
from typing import Final

from common.process import atomic_write

PROGRAM: Final = Path(__file__).parent / "lua"


def program_digest() -> str:
    """What the program for nginx is, so that a newer one leads to a reload."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sorted(PROGRAM.rglob("*.lua")))).hexdigest()


def copy_program(target: Path) -> None:
    """Puts the program for nginx where nginx reads it: it may be another container, and another user, than ours."""
    for source in sorted(PROGRAM.rglob("*.lua")):
        copy = target / source.relative_to(PROGRAM)
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomic_write(copy, source.read_bytes(), 0o644)
