"""The certificate for clients that ask for a host without one of its own: self-signed, and made once."""

import datetime as dt
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.process import atomic_write

_YEARS: Final = dt.timedelta(days=3650)


def ensure_certificate(certificate: Path, key: Path, reader: Path) -> None:
    """Makes it if it is not there.

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
