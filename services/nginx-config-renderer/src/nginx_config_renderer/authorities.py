"""Authorities: the files of those who vouch for backends, and which locations use them.

A bundle of authorities is the one thing of an object that nginx reads from a file. The file is named by the hash of its text, so that what
an object says is neither in the configuration nor in a name, and so that a changed bundle is another file, which the old configuration does
not mind.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.process import atomic_write
from nginx_config_renderer.locations import SecureLocation, as_data, secure_locations


def put(directory: Path, texts: Mapping[str, str]) -> None:
    """Makes the directory have these, beside what it has."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, text in sorted(texts.items()):
        path = directory / f"{name}.pem"
        if not path.is_file():
            atomic_write(path, text.encode(), 0o644)


def sweep(directory: Path, used: Sequence[SecureLocation]) -> None:
    """Takes away what none of the locations uses."""
    names = {f"{one.authority}.pem" for one in used}
    for path in directory.glob("*.pem"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def dumped(used: Sequence[SecureLocation]) -> bytes:
    """The locations as they are kept for a renderer that starts while the bus is away."""
    return json.dumps(as_data(used)).encode()


def load(kept: Path, directory: Path) -> tuple[SecureLocation, ...]:
    """The locations that were in force last, whose files are there."""
    try:
        found = secure_locations(json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        return ()
    return tuple(one for one in found if not one.authority or (directory / f"{one.authority}.pem").is_file())
