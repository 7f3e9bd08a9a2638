"""Another Debian than this machine's: its programs, run beside ours, from a root that debootstrap made once.

    root = debian13()                                  an Installation; the first call takes a minute or two, and says so
    Child("haproxy", root.command("haproxy", "-f", …)) a program of it, as a command
    root.program("nginx")                              the same as one file, for whoever takes a path only

Each program runs by chroot in a mount namespace of its own, so nothing stays mounted when it ends, however it ends. It is the process that
was started, with its number, signals and open files. The root itself is read-only, and all directories of this machine that a test may
use are where they are: /tmp, /run, /dev and the like, and whatever else is not Debian's. Which those are is looked at when a program
starts, for the root may have been made where others were. So paths mean the same inside and outside, and the network is the caller's, a
network namespace included. Mounting needs root.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from common.testing.building import CACHE, CannotBuild, Work, built, say

SUITE: Final = "trixie"
PACKAGES: Final = (
    *("nginx", "libnginx-mod-http-lua", "libnginx-mod-stream", "libnginx-mod-stream-js", "lua-cjson"),
    *("haproxy", "keepalived", "iproute2", "nftables", "procps"),
)
# Debian's slim images leave the same out (https://github.com/debuerreotype/debuerreotype).
SLIM: Final = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)

_RECIPE: Final = "1"  # another one makes the root anew
_DISK: Final = 2**30
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_QUIET: Final = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": _PATH}
# Mounts this machine's directories, but for Debian's, into the root $1, then becomes a command; the kernel's with what is mounted below.
_ENTER: Final = """set -e
root=$1; shift
mount --bind "$root" "$root"
for each in /*; do
  how=--bind
  case $each in
    /bin|/boot|/etc|/lib|/lib32|/lib64|/libx32|/lost+found|/sbin|/usr|/var) continue;;
    /dev|/proc|/sys|/run|/tmp) how=--rbind;;
  esac
  [ -d "$each" ] && [ ! -L "$each" ] || continue
  mkdir -p "$root$each"
  mount $how "$each" "$root$each"
done
mount -o remount,bind,ro "$root"
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where programs come from: the `root` of another Debian, or this machine if that is empty."""

    name: str
    root: str = ""

    def __str__(self) -> str:
        return self.name

    def command(self, *words: str) -> list[str]:
        """How a program of it is started."""
        return [*self.mounted(), "chroot", self.root, "env", f"PATH={_PATH}", *words] if self.root else list(words)

    def mounted(self) -> list[str]:
        """What a command begins with that finds this machine's directories in the root, and enters it by itself."""
        return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _ENTER, "sh", self.root]

    def program(self, name: str) -> str:
        """A file that is that program."""
        if not self.root:
            return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PATH}") or f"/usr/sbin/{name}"
        return str(Path(self.root).with_name("bin") / name)


THIS_MACHINE: Final = Installation("this machine")


@cache
def debian13() -> Installation:
    """Debian 13 with the programs that Seaway drives. Raises CannotBuild."""
    return Installation("debian13", str(_home() / "root"))


def bootstrap(root: Path, run: Callable[[Sequence[str]], object]) -> None:
    """A minimal Debian 13 in `root`, with its security updates, and with this machine's sources and settings of apt. `run` runs a command
    and raises if it fails. Raises CannotBuild.
    """
    archive, security = _mirrors()
    run(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root), archive])
    lines = [f"deb {archive} {SUITE} main", f"deb {archive} {SUITE}-updates main"]
    lines += [f"deb {security} {SUITE}-security main"] if security else []
    (root / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")
    settings = _said(["apt-config", "dump"])
    kept = [line for line in settings.splitlines() if re.match(r"Acquire::(https?|Check-|Retries)", line)]
    (root / "etc/apt/apt.conf.d/90machine").write_text("\n".join(kept) + "\n")
    left_out = [f"path-exclude /{path}/*" for path in SLIM if path.startswith("usr")]
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("\n".join(left_out) + "\n")
    for command in ("update -qq", "upgrade -qq --yes"):
        run(_inside(root, "apt-get", *command.split()))


def slim(root: Path) -> None:
    """Removes what slim images do without."""
    for path in SLIM:
        for entry in (root / path).iterdir() if (root / path).is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _home() -> Path:
    recipe = "\0".join((_RECIPE, SUITE, *PACKAGES, _ENTER))
    home = CACHE / "debian" / f"{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    return built("Debian 13", home, _make, disk=_DISK)


def _make(workshop: Path) -> Path:
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise CannotBuild("a root of Debian 13 is made by debootstrap, as root: apt-get install debootstrap, and run this as root")
    work = Work("Debian 13", workshop, os.environ)
    home = workshop / "home"
    root = home / "root"
    root.mkdir(parents=True)
    bootstrap(root, lambda command: work.run(command, Path(command[0]).name))
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # Debian would start what it installs
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    work.run(_inside(root, "apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES), "installing")
    slim(root)
    _link_programs(home)
    say(f"Debian 13: made in {work.elapsed()}")
    return home


def _link_programs(home: Path) -> None:
    """One file a program, which starts it as `Installation.command` does."""
    (home / "bin").mkdir()
    for name in ("haproxy", "keepalived", "nginx"):
        words = Installation("", "$root").command(name)
        quoted = " ".join(f"'{word}'" if word != "$root" else f'"{word}"' for word in words)
        script = home / "bin" / name
        script.write_text(f'#!/bin/sh\nroot=$(dirname "$(dirname "$(readlink -f "$0")")")/root\nexec {quoted} "$@"\n')
        script.chmod(0o755)


def _inside(root: Path, *command: str) -> list[str]:
    return ["chroot", str(root), "env", *(f"{name}={value}" for name, value in _QUIET.items()), *command]


def _mirrors() -> tuple[str, str]:
    """Where apt on this machine gets Debian, and Debian's security updates, from."""
    fields = _said(["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"])
    found = dict(line.split(maxsplit=1) for line in sorted(fields.splitlines(), reverse=True) if " " in line)
    if "Debian" not in found:
        raise CannotBuild("apt on this machine knows no archive of Debian: run apt-get update")
    return found["Debian"], found.get("Debian-Security", "")


def _said(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBuild(f"apt does not say where it gets Debian from: {error}") from error
