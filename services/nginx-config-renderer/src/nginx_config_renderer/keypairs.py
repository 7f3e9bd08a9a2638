"""Key pairs: what the data of a Secret of type kubernetes.io/tls amounts to.

A key pair is kept in the store beside the objects of the bus, under a resource of its own that no bus carries, so that the tables of
certificates are derived like all others. It is read from the Secret by the renderer alone. One that cannot be used says why, in a sentence,
and has no key.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from common.contracts.objects import Projection
from common.contracts.objects.meta import Metadata
from common.contracts.refs import Resource

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITIES: Final = "ca.crt"
REVOKED: Final = "ca.crl"
_LONGEST: Final = 256 * 1024  # bytes of a chain; the longest that anybody needs has some ten kilobytes
_ENCODING: Final = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair(Projection):
    """A certificate with its chain and its key, or why there is none. `expires` is a Unix time; texts are PEM. Beside it, and also without
    it, stand the authorities that the Secret has for somebody else's certificate, or why they cannot be used.
    """

    resource: ClassVar = Resource("edge.seaway.dev", "keypairs")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "KeyPair"

    problem: str = ""
    algorithm: str = ""
    names: tuple[str, ...] = ()
    expires: float = 0
    chain: str = ""
    key: str = field(default="", repr=False)
    authorities: str = ""
    authorities_problem: str = ""

    @property
    def authority(self) -> str:
        """The name of the bundle of authorities: the hash of its text; empty if there is none."""
        return hashlib.sha256(self.authorities.encode()).hexdigest() if self.authorities else ""

    def covers(self, host: str) -> bool:
        """Whether a client that asks for `host` accepts the certificate (RFC 6125 §6.4.3: `*` is one whole label)."""
        parent = host.partition(".")[2]
        return host in self.names or (bool(parent) and f"*.{parent}" in self.names)


def absent(namespace: str, name: str, problem: str) -> KeyPair:
    """A key pair that cannot be had."""
    return KeyPair(metadata=Metadata(name=name, namespace=namespace), problem=problem)


def read(namespace: str, name: str, data: Mapping[str, bytes], now: dt.datetime) -> KeyPair:
    """The key pair in a Secret's data."""
    pair = _pair(namespace, name, data, now)
    try:
        return replace(pair, authorities=_authorities(data))
    except ValueError as error:
        return replace(pair, authorities_problem=str(error))


def ended(pair: KeyPair) -> KeyPair:
    """What is left of a key pair whose time is over."""
    left = absent(pair.metadata.namespace, pair.metadata.name, expired(pair.expires))
    return replace(left, authorities=pair.authorities, authorities_problem=pair.authorities_problem)


def _pair(namespace: str, name: str, data: Mapping[str, bytes], now: dt.datetime) -> KeyPair:
    try:
        chain, key = _chain(data), _key(data)
    except ValueError as error:
        return absent(namespace, name, str(error))
    leaf = chain[0]
    problem = _fault(leaf, key, now)
    if problem:
        return absent(namespace, name, problem)
    return KeyPair(
        metadata=Metadata(name=name, namespace=namespace),
        algorithm="RSA" if isinstance(key, rsa.RSAPrivateKey) else "ECDSA",
        names=_names(leaf),
        expires=leaf.not_valid_after_utc.timestamp(),
        chain="".join(one.public_bytes(_ENCODING).decode() for one in chain),
        key=key.private_bytes(_ENCODING, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
    )


def expired(expires: float) -> str:
    """The problem of a certificate whose time is over."""
    when = dt.datetime.fromtimestamp(expires, dt.UTC)
    return f"{CERTIFICATE} expired on {when:%Y-%m-%d at %H:%M} UTC; renew it"


def _chain(data: Mapping[str, bytes]) -> list[x509.Certificate]:
    text = data.get(CERTIFICATE, b"")
    if not text:
        raise ValueError(f"has no {CERTIFICATE}; put the certificate and its chain there, as PEM")
    if len(text) > _LONGEST:
        raise ValueError(f"{CERTIFICATE} has {len(text)} bytes; keep only the certificate and its chain")
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
        raise ValueError(f"{CERTIFICATE} holds no PEM certificate; write the certificate and its chain as PEM") from None


def _authorities(data: Mapping[str, bytes]) -> str:
    """The authorities, one after the other, and nothing else of what stands between them. Raises ValueError with the mend."""
    text = data.get(AUTHORITIES, b"")
    if not text:
        return ""
    if len(text) > _LONGEST:
        raise ValueError(f"{AUTHORITIES} has {len(text)} bytes; keep only the authorities that are needed")
    try:
        found = x509.load_pem_x509_certificates(text)
    except ValueError:
        raise ValueError(f"{AUTHORITIES} holds no PEM certificate; write the certificates of the authorities as PEM") from None
    return "".join(sorted({one.public_bytes(_ENCODING).decode() for one in found}))


def _key(data: Mapping[str, bytes]) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    text = data.get(KEY, b"")
    if not text:
        raise ValueError(f"has no {KEY}; put the private key there, as PEM")
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError(f"{KEY} is encrypted, and nobody is there to type the password; store it decrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{KEY} holds no PEM private key; write the key of {CERTIFICATE} as PEM") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"{KEY} is neither an RSA nor an ECDSA key; browsers accept no other")  # noqa: TRY004 it is the content
    return key


def _fault(leaf: x509.Certificate, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, now: dt.datetime) -> str:
    if leaf.public_key() != key.public_key():
        return f"{KEY} does not belong to the first certificate in {CERTIFICATE}; store the key that it was made for"
    if leaf.not_valid_after_utc <= now:
        return expired(leaf.not_valid_after_utc.timestamp())
    if leaf.not_valid_before_utc > now:
        return f"{CERTIFICATE} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d at %H:%M} UTC; use one that is"
    return ""


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """The hosts that a certificate is for; the common name counts where there is no other, as old certificates have it."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    common = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(sorted({name.lower() for name in names or common}))
