"""Where a Seaway on this machine keeps its things, and how the other commands find its bus.

`seaway up` keeps everything below one directory. A command on the same machine needs only to know that directory (`--data`, or
SEAWAY_DATA); for a Seaway in a cluster it is told the server and the user instead (`--nats`, `--nkey`).
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.bus.settings import BusSettings
from common.process import in_memory
from seaway import bus_keys
from seaway.nats_conf import OPERATOR, inbox

PORT: Final = 4222


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of a Seaway on this machine."""

    root: Path

    @property
    def bus(self) -> Path:
        """What nats-server keeps: its configuration, its users' keys, its streams."""
        return self.root / "nats"

    @property
    def edge(self) -> Path:
        """What nginx and its renderer share."""
        return self.root / "nginx"

    @property
    def balancer(self) -> Path:
        """What HAProxy and its service share."""
        return self.root / "haproxy"

    @property
    def floating(self) -> Path:
        """What keepalived and its service share."""
        return self.root / "vip"

    @property
    def logs(self) -> Path:
        """What nginx logs."""
        return self.root / "logs"

    @property
    def address(self) -> Path:
        """A file with the URL of the bus, while there is one."""
        return self.root / "bus.url"

    @property
    def served(self) -> Path:
        """A file that says what is served: a folder of manifests, or the cluster of a kubeconfig."""
        return self.root / "served.json"

    def served_folder(self) -> Path | None:
        """The folder of manifests that is served now, if it is one."""
        return self._served("manifests")

    def served_kubeconfig(self) -> Path | None:
        """The kubeconfig of the cluster that is served now, if it is one."""
        return self._served("kubeconfig")

    def _served(self, what: str) -> Path | None:
        if not self.address.is_file():
            return None
        try:
            found = json.loads(self.served.read_text()).get(what)
        except (OSError, ValueError):
            return None
        return Path(found) if found else None

    @property
    def keys(self) -> Path:
        """The keys of the bus's users."""
        return self.bus / "keys"

    @property
    def run(self) -> Path:
        """Sockets, while there is a Seaway."""
        return self.root / "run"

    def key(self, user: str) -> Path:
        """The nkey seed of a user of the bus."""
        return self.keys / f"{user}{bus_keys.SUFFIX}"


def vault_of(root: Path) -> Path | None:
    """Where what must reach no disk is kept for the Seaway in `root`: below a tmpfs of the system or the user, if there is one."""
    name = hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    places = ("/run", "/dev/shm") if os.geteuid() == 0 else (os.environ.get("XDG_RUNTIME_DIR", ""),)  # noqa: S108 it is made for root alone
    return next((Path(place) / "seaway" / name for place in places if place and in_memory(Path(place))), None)


def default_root() -> Path:
    """SEAWAY_DATA, else a directory of the user (XDG Base Directory Specification), or of the system for root."""
    given = os.environ.get("SEAWAY_DATA")
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/seaway")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "seaway"


def operator(data: Path | None, url: str | None, nkey: Path | None, tls_ca: Path | None = None) -> BusSettings:
    """How an operator reaches the bus: as told, else the one on this machine. Raises FileNotFoundError if there is none."""
    if url is not None:
        return BusSettings(url=url, name="seaway-command", inbox=inbox(OPERATOR), nkey_file=nkey, tls_ca=tls_ca, patience=10)
    home = Home(data or default_root())
    if not home.address.is_file():
        raise FileNotFoundError(
            f"no Seaway runs on this machine with its data in {home.root}; start one with `seaway up`, "
            "name its directory with --data, or name a server with --nats nats://HOST:PORT"
        )
    return BusSettings(
        url=home.address.read_text().strip(),
        name="seaway-command",
        nkey_file=home.key(OPERATOR),
        inbox=inbox(OPERATOR),
        patience=10,
    )
