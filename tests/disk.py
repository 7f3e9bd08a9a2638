"""A disk that fills up."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Files of ours take no more than `size` bytes, as on a disk that is nearly full: what fits is written, and the rest is an error
    (setrlimit(2)). Programs that run already do not mind.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    """A disk of 4 MiB at that directory, for as long as the block runs. Needs root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=711", "seaway-test", str(at)], check=True, timeout=10)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True, timeout=10)


@contextmanager
def no_room(disk: Path) -> Iterator[None]:
    """That disk is full for as long as the block runs."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    try:
        yield
    finally:
        (disk / "filler").unlink()
