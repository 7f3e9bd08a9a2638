"""Installs what Seaway's own commands need, and says in a line what it installs.

    python3 scripts/setup.py base             uv from PyPI, then the locked Python packages into .venv
    python3 scripts/setup.py edge cluster …   Debian packages of the named parts

It runs on a bare Debian with Python alone, so it uses nothing but the standard library. Debian packages need root; without it the missing
ones are named and nothing is changed. What is there already is left as it is, so a second run takes a moment.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seaway"
VENV = ROOT / ".venv"
UV_LOCK = ROOT / "requirements/setup.txt"
MEMBERS = (
    "libs/common",
    "libs/seaway",
    "services/haproxy-lb",
    "services/keepalived-vip",
    "services/nginx-config-renderer",
    "services/watcher",
)

PACKAGES = {
    "edge": ("nginx", "libnginx-mod-http-lua", "libnginx-mod-stream", "libnginx-mod-stream-js", "lua-cjson"),
    "cluster": ("busybox-static", "conntrack", "containerd", "containernetworking-plugins", "iproute2", "iptables", "runc"),
    "lb": ("haproxy", "iproute2", "nftables"),
    "vip": ("arping", "iproute2", "iptables", "keepalived", "procps"),
    "images": ("buildah", "busybox-static", "ca-certificates", "debootstrap", "openssl"),
    "bench": ("wrk",),
    "clients": ("curl",),
}
# Services that Debian starts when it installs these packages; Seaway runs the programs itself.
SERVICES = {"nginx": "nginx", "containerd": "containerd", "haproxy": "haproxy", "keepalived": "keepalived"}


class SetupError(Exception):
    """What is missing, and how to get it."""


def main(parts: Sequence[str]) -> None:
    """Sets up the named parts. Debian's packages come first and all together, so that who may not install them hears of all at once."""
    unknown = sorted(set(parts) - {"base", *PACKAGES})
    if unknown:
        raise SetupError(f"there is no part {unknown[0]!r}; the parts are base, {', '.join(sorted(PACKAGES))}")
    packages = [package for part in parts for package in PACKAGES.get(part, ())]
    if "base" in parts and not uv_home().exists() and not has_ensurepip():
        packages.insert(0, "python3-venv")
    debian(tuple(dict.fromkeys(packages)))
    if "base" in parts:
        base()


def base() -> None:
    """Makes .venv hold exactly the locked packages and the workspace's own."""
    if sys.version_info < (3, 11):  # noqa: UP036 this script is run by whatever Python the machine has
        raise SetupError(
            f"Seaway needs Python 3.11 or newer, and this is {sys.version.split()[0]}; Debian 12 and 13 have it as python3"
        )
    wanted = fingerprint()
    stamp = VENV / "seaway-stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    uv = find_uv()
    say("installing the locked Python packages into .venv")
    # An environment for one version of Python cannot become one for another.
    run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)])
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV)}
    run([uv, "pip", "sync", "--quiet", "--require-hashes", str(ROOT / "requirements/dev.txt")], environment)
    editable = [argument for member in MEMBERS for argument in ("--editable", str(ROOT / member))]
    constraint = ["--build-constraints", str(ROOT / "requirements/build.txt")]
    run([uv, "pip", "install", "--quiet", "--no-deps", *constraint, *editable], environment)
    stamp.write_text(wanted)


def fingerprint() -> str:
    """What .venv depends on."""
    files = [
        ROOT / "requirements/dev.txt",
        ROOT / "requirements/build.txt",
        *(ROOT / member / "pyproject.toml" for member in MEMBERS),
    ]
    parts = [sys.version, sys.prefix, str(ROOT), *(file.read_text() for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def find_uv() -> str:
    """The locked uv, from the cache or from PyPI."""
    home = uv_home()
    if not home.exists():
        say("installing uv from PyPI")
        made = home.with_suffix(".new")
        run([sys.executable, "-m", "venv", "--clear", str(made)])
        pip = [str(made / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        run([*pip, "-r", str(UV_LOCK)])
        made.rename(home)
    return str(home / "bin/uv")


def uv_home() -> Path:
    """Where the locked uv is kept, once it is there."""
    return CACHE / "uv" / hashlib.sha256(UV_LOCK.read_bytes()).hexdigest()[:16]


def has_ensurepip() -> bool:
    """Debian ships venv without ensurepip unless python3-venv is installed."""
    return subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0


def debian(packages: Sequence[str]) -> None:
    """Installs those of `packages` that are missing."""
    missing = [package for package in packages if not installed(package)]
    if not missing:
        return
    names = " ".join(missing)
    if not shutil.which("apt-get"):
        raise SetupError(f"this is no Debian, so install by hand what Debian calls: {names}")
    if os.geteuid() != 0:
        raise SetupError(f"missing Debian packages: {names}; install them with: sudo apt-get install {names}")
    say(f"installing from Debian: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], environment)
    with no_service_starts():
        run(["apt-get", "install", "-qq", "--no-install-recommends", *missing], environment)
    for package in missing:
        leave_stopped(package)


def installed(package: str) -> bool:
    """Whether dpkg has it."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"
    except FileNotFoundError:
        return False


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Debian starts a service when it installs it, unless policy-rc.d says no: an nginx that takes port 80 is nobody's wish here."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def leave_stopped(package: str) -> None:
    """Keeps the system from starting our programs by itself at the next boot."""
    service = SERVICES.get(package)
    if service and Path("/run/systemd/system").is_dir():
        say(f"disabling the system's own {service} service: Seaway runs {service} itself")
        subprocess.run(["systemctl", "disable", "--quiet", service], check=False)


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip()
        raise SetupError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{output}")


def say(sentence: str) -> None:
    """One line on what happens."""
    print(f"setup: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or ["base"])
    except SetupError as error:
        sys.exit(f"setup: {error}")
