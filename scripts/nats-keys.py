"""Makes the keys of an installation, for docker-compose.yml and deploy/: an nkey a service, and certificates of the bus's servers.

    .venv/bin/python scripts/nats-keys.py [DIRECTORY]       deploy/secrets by default, where git ignores them

What is there is kept, so a second run changes nothing. To renew everything, delete the files and apply again: pods restart by themselves,
since the names of generated Secrets change with their content. The authority's own key is thrown away once it has signed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from seaway import bus_keys
from seaway.nats_conf import User, roles, variable

ROOT = Path(__file__).resolve().parent.parent
DAYS = "3650"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# As clients in the cluster, servers among themselves, docker-compose.yml and a forwarded port call a server.
NAMES = ("nats", "nats.seaway", "nats.seaway.svc", "nats.seaway.svc.cluster.local", "*.nats-peers.seaway.svc", "localhost")
CERTIFICATES = ("ca.crt", "tls.crt", "tls.key")
USERS = "users.env"


def main() -> None:
    """Makes what is missing."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "deploy/secrets"
    # Containers run as other users, and get these files one by one; on this machine only the owner enters the directory.
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    users = bus_keys.ensure(directory, roles())
    (directory / USERS).write_text(public(users))
    if not all((directory / name).exists() for name in CERTIFICATES):
        certify(directory)
    for path in [directory / name for name in CERTIFICATES] + sorted(directory.glob(f"*{bus_keys.SUFFIX}")):
        path.chmod(0o444)
    print(f"keys: {directory} holds the keys of {', '.join(user.role for user in users)}, and the servers' certificates")


def public(users: list[User]) -> str:
    """The public keys, as the environment of a server."""
    return "".join(f"{variable(user.role)}={user.nkey}\n" for user in users)


def certify(directory: Path) -> None:
    """One certificate for all servers, signed by an authority that signs nothing else."""
    if not shutil.which("openssl"):
        sys.exit("keys: openssl is missing; install it with: sudo apt-get install openssl")
    with tempfile.TemporaryDirectory(prefix="seaway-keys-") as temporary:
        authority = ("-keyout", f"{temporary}/ca.key", "-out", f"{temporary}/ca.crt", "-subj", "/CN=Seaway bus authority")
        openssl(
            "req",
            "-x509",
            *CURVE,
            "-days",
            DAYS,
            *authority,
            *extensions("basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign"),
        )
        names = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in NAMES)])
        uses = extensions(
            "basicConstraints=critical,CA:false",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
            f"subjectAltName={names}",
        )
        server = ("-keyout", f"{temporary}/tls.key", "-out", f"{temporary}/tls.crt", "-subj", "/CN=nats")
        signed = ("-CA", f"{temporary}/ca.crt", "-CAkey", f"{temporary}/ca.key")
        openssl("req", "-x509", *CURVE, "-days", DAYS, *server, *signed, *uses)
        for name in CERTIFICATES:
            (directory / name).unlink(missing_ok=True)
            shutil.copyfile(f"{temporary}/{name}", directory / name)


def extensions(*lines: str) -> list[str]:
    """Extensions of a certificate, as arguments."""
    return [
        argument for line in (*lines, "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid") for argument in ("-addext", line)
    ]


def openssl(*arguments: str) -> None:
    """Runs openssl, and shows what it says only if it fails."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"keys: openssl {arguments[0]} failed:\n{done.stderr.strip()}")


if __name__ == "__main__":
    main()
