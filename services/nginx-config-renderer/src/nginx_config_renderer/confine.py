"""Confine: a program that gives up what it has before it becomes another one.

    python -m nginx_config_renderer.confine BOUNDS COMMAND...

The other one gets no file but the machine's programs and what BOUNDS names, no network, no process beside itself, and only so much memory
and time. For nginx -t on a configuration that the operator wrote: that opens what it is told to, and its complaints show what is in
there.
"""

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nginx_config_renderer import landlock, seccomp

CANNOT: Final = 125  # the exit code, where the machine does not permit it
_SECONDS: Final = 8
_LARGEST_FILE: Final = 64 * 1024 * 1024
_FILES: Final = 1024
# What programs of the machine need to start, and what a configuration commonly includes. No keys, no tokens, nothing of the renderer.
_MACHINE: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/nginx", "/etc/ssl/openssl.cnf", "/etc/ssl/certs", "/etc/ld.so.cache"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/dev/urandom", "/dev/random"),
)
_WRITABLE: Final = ("/dev/null",)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is left to a program. `user` 0 is who we are; `memory` is in bytes."""

    memory: int
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    user: int = 0

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Bounds":
        """From what str() gives."""
        given = json.loads(text)
        return cls(given["memory"], tuple(given["readable"]), tuple(given["writable"]), given["user"])


def enter(bounds: Bounds) -> None:
    """Gives up everything else, for ever. Raises OSError if the machine does not permit that.

    A kernel without Landlock will do where another user does, who owns nothing.
    """
    for limit, most in (
        (resource.RLIMIT_AS, bounds.memory),
        (resource.RLIMIT_CPU, _SECONDS),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (value, value))
    if bounds.user:
        os.setgroups([])
        os.setresgid(bounds.user, bounds.user, bounds.user)
        os.setresuid(bounds.user, bounds.user, bounds.user)
    seccomp.no_new_privileges()
    try:
        landlock.restrict(map(Path, (*_MACHINE, *bounds.readable)), map(Path, (*_WRITABLE, *bounds.writable)))
    except OSError:
        if not bounds.user:
            raise
    seccomp.restrict()


def main() -> int:
    """Becomes COMMAND, or says why not."""
    bounds, command = Bounds.parse(sys.argv[1]), sys.argv[2:]
    try:
        enter(bounds)
        os.execvp(command[0], command)  # noqa: S606 that is what it is for
    except OSError as error:
        print(f"{command[0]} cannot be confined: {error}")
        return CANNOT


if __name__ == "__main__":
    sys.exit(main())
