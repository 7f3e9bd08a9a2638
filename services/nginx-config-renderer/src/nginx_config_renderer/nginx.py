"""nginx's configuration: written only when nginx says that it is good, and in force only when nginx says so.

The renderer is not nginx's parent: it writes nginx.conf where nginx's starter looks for it, tests it first under other paths, and asks a
running nginx to reload through the admin socket. A configuration that nginx does not take leaves the old one in force.
"""

import asyncio
import datetime as dt
import hashlib
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.process import atomic_write, validate
from nginx_config_renderer import metrics
from nginx_config_renderer.admin import Admin, AdminError
from nginx_config_renderer.render import Edge, configuration, fingerprint_of

PROGRAM: Final = Path(__file__).parent / "lua"
_TEST_DEADLINE: Final = 30.0
# A test opens its ports for a moment. It may have no right to those of nginx, and must take no client that is meant for nginx. That
# somebody else has a port is no fault to it.
_TRIAL_HTTP: Final = 20080
_TRIAL_HTTPS: Final = 20443
_TAKEN_WITHIN: Final = 10.0  # seconds for a reload to show
_LOOK: Final = 1.0
_YEARS: Final = dt.timedelta(days=3650)

log = structlog.get_logger(__name__)


class BadConfigurationError(Exception):
    """nginx does not take the configuration; the text is what it says."""


async def test(edge: Edge, program: str) -> None:
    """Raises BadConfigurationError with nginx's own words if it would not start with `edge`."""
    with tempfile.TemporaryDirectory(prefix="seaway-test-") as directory:
        trial = Path(directory) / "nginx.conf"
        elsewhere = replace(
            edge,
            http_port=_TRIAL_HTTP,
            https_port=_TRIAL_HTTPS if edge.https_port else 0,
            state=directory,
            run=directory,
            admin_socket=f"{directory}/admin.sock",
            program=str(PROGRAM),
        )
        trial.write_text(configuration(elsewhere, program_digest()))
        outcome = await validate([program, "-t", "-q", "-e", "stderr", "-p", directory, "-c", str(trial)], timeout=_TEST_DEADLINE)
    if outcome.code != 0:
        raise BadConfigurationError(outcome.output.strip().replace(directory, edge.state) or f"nginx -t ended with {outcome.code}")


async def install(edge: Edge, program: str) -> str:
    """Puts nginx.conf and the program in their place if they are good; returns their fingerprint. Raises BadConfigurationError."""
    ensure_certificate(Path(edge.certificate), Path(edge.certificate_key), Path(edge.run))
    edge = replace(edge, nginx=await version(program))
    text = configuration(edge, program_digest())
    target = Path(edge.state) / "nginx.conf"
    if not target.is_file() or target.read_text() != text:
        await test(edge, program)
        copy_program(Path(edge.program))
        atomic_write(target, text.encode(), 0o644)
        log.info("configuration.written", path=str(target))
    return fingerprint_of(text)


async def version(program: str) -> tuple[int, ...]:
    """The version of nginx. Raises BadConfigurationError if it does not say one."""
    outcome = await validate([program, "-v"], timeout=_TEST_DEADLINE)
    found = re.search(r"nginx/(\d+(?:\.\d+)*)", outcome.output)
    if found is None:
        raise BadConfigurationError(f"{program} -v says no version: {outcome.output.strip()[:200]}")
    return tuple(int(number) for number in found[1].split("."))


def program_digest() -> str:
    """What the program for nginx is, so that a newer one leads to a reload."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sorted(PROGRAM.rglob("*.lua")))).hexdigest()


def copy_program(target: Path) -> None:
    """Puts the program for nginx where nginx reads it: it may be another container, and another user, than ours."""
    for source in sorted(PROGRAM.rglob("*.lua")):
        copy = target / source.relative_to(PROGRAM)
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomic_write(copy, source.read_bytes(), 0o644)


async def keep(admin: Admin, fingerprint: str) -> None:
    """Makes a running nginx have this configuration, until cancelled. One that refuses it is asked again when it has another."""
    refused = ""
    while True:
        try:
            status = await admin.status()
            if status.fingerprint not in {fingerprint, refused}:
                metrics.RELOADS.labels("configuration").inc()
                await admin.reload()
                taken = await _taken(admin, fingerprint)
                refused = "" if taken else status.fingerprint
                log.log(
                    20 if taken else 40, "configuration.reloaded" if taken else "configuration.refused", fingerprint=fingerprint
                )
        except AdminError:
            pass  # nginx is away; the tables' keeper says so
        await asyncio.sleep(_LOOK)


async def _taken(admin: Admin, fingerprint: str) -> bool:
    ends = asyncio.get_running_loop().time() + _TAKEN_WITHIN
    while asyncio.get_running_loop().time() < ends:
        if (await admin.status()).fingerprint == fingerprint:
            return True
        await asyncio.sleep(0.05)
    return False


def ensure_certificate(certificate: Path, key: Path, reader: Path) -> None:
    """A self-signed certificate for clients that ask for a host without one of its own. Made once.

    The key never leaves its file, which belongs to whom the directory `reader` belongs to: nginx reads it.
    """
    reader.mkdir(mode=0o700, parents=True, exist_ok=True)
    if certificate.is_file() and key.is_file():
        return
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Seaway default certificate")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("seaway.invalid")]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    text = secret.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    atomic_write(key, text, 0o600, owner_of(reader))
    atomic_write(certificate, signed.public_bytes(encoding), 0o644)


def owner_of(directory: Path) -> tuple[int, int]:
    """Whom a directory belongs to: user and group. nginx's `run` belongs to whom nginx runs as."""
    status = directory.stat()
    return status.st_uid, status.st_gid
