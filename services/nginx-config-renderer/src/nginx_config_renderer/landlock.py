"""Landlock: a process gives up all files but those that it names, for ever, and needs no privilege for it (landlock(7)).

That is what is left to a pod which is not root and gets no user namespace: the kernel has it since 5.13, and the system calls are among
those that container runtimes permit.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # on all architectures
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES: Final = _EXECUTE | _WRITE | _READ | _TRUNCATE
_READING: Final = _EXECUTE | _READ | _LIST
_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by the version of the interface; later ones as the last

_libc: Final = ctypes.CDLL(None, use_errno=True)


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """From here on `readable` can be read and executed, `writable` all that, and nothing else opened. What does not exist is passed over.

    Needs no_new_privs. Raises OSError where the kernel has no Landlock.
    """
    rights = _RIGHTS[min(_call(_CREATE, None, 0, _VERSION), max(_RIGHTS))]
    ruleset = _call(_CREATE, struct.pack("=Q", rights), 8, 0)
    try:
        for paths, granted in ((readable, rights & _READING), (writable, rights)):
            for path in paths:
                _allow(ruleset, path, granted)
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        own = rights if stat.S_ISDIR(os.fstat(handle).st_mode) else rights & _OF_FILES
        _call(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", own, handle), 0)
    finally:
        os.close(handle)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result
