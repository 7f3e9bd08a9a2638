"""A certificate authority for tests: it signs whatever a test needs, good or bad. What it signs is as RFC 5280 §4.2.1 wants it, which
Python 3.13 looks at.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, as PEM."""

    certificate: bytes
    key: bytes

    @property
    def data(self) -> dict[str, bytes]:
        """The data of a Secret of type kubernetes.io/tls."""
        return {"tls.crt": self.certificate, "tls.key": self.key}


class Authority:
    """An authority of a test's own."""

    def __init__(self, name: str = "An authority of a test") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = self._builder(self._name, self._key, 1, 3650).add_extension(own, critical=False)
        for extension in (x509.BasicConstraints(ca=True, path_length=None), _SIGNS):
            builder = builder.add_extension(extension, critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        """What clients trust, as PEM."""
        return self._certificate.public_bytes(_PEM)

    def write(self, path: Path) -> Path:
        """Writes the certificate to a file."""
        path.write_bytes(self.certificate)
        return path

    def issue(self, *names: str, algorithm: str = "ECDSA", begins: float = 1, days: float = 90, password: bytes = b"") -> Issued:
        """A certificate for some hosts, valid since `begins` days ago and for `days` from now; the key is encrypted with `password`."""
        key = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ECDSA" else rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nobody")])
        builder = self._builder(subject, key, begins, days)
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        signed = builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return Issued(signed + self.certificate, key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, begins: float, days: float
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=begins))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
