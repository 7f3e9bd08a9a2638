"""Renews what is generated under deploy/: the configurations of the bus's servers. With `--check` it only says whether they are current."""

import sys
from pathlib import Path

from seaway.nats_conf import Cluster, Server, Tls, User, render, roles, variable

ROOT = Path(__file__).resolve().parent.parent
TLS = Tls("/etc/nats/tls/tls.crt", "/etc/nats/tls/tls.key", "/etc/nats/tls/ca.crt")
THREE = Cluster("seaway", tuple(f"nats-{number}.nats-peers.seaway.svc" for number in range(3)))


def configuration(cluster: Cluster | None) -> str:
    """The configuration of a server in a container. The public keys differ from one installation to the next, so they are variables."""
    server = Server("$SERVER_NAME", "/data", listen="0.0.0.0:4222", monitor="0.0.0.0:8222", tls=TLS, cluster=cluster)
    return render(server, [User(role, f"${variable(role)}") for role in roles()])


def documents() -> dict[Path, str]:
    """Every generated file."""
    return {
        ROOT / "deploy/nats/nats.conf": configuration(None),
        ROOT / "deploy/overlays/cluster/nats.conf": configuration(THREE),
    }


def main() -> None:
    """Writes the files, or says which of them are stale."""
    stale = [path for path, text in documents().items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv[1:] and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"{names}: stale; run `make docs` and commit the result")
    for path in stale:
        path.write_text(documents()[path])


if __name__ == "__main__":
    main()
