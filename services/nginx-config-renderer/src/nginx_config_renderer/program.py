"""The program that nginx runs, in Lua and JavaScript: what it is, and where nginx finds it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from common.process import atomic_write

PROGRAM: Final = Path(__file__).parent / "lua"


def program_digest() -> str:
    """What the program for nginx is, so that a newer one leads to a reload."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in _sources())).hexdigest()


def copy_program(target: Path) -> None:
    """Puts the program for nginx where nginx reads it: it may be another container, and another user, than ours."""
    for source in _sources():
        copy = target / source.relative_to(PROGRAM)
        text = source.read_bytes()
        if not copy.is_file() or copy.read_bytes() != text:
            copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            atomic_write(copy, text, 0o644)


def _sources() -> Iterator[Path]:
    yield from sorted(source for source in PROGRAM.rglob("*") if source.suffix in {".lua", ".js"})
