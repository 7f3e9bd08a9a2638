"""Key pairs: what the data of a Secret of type kubernetes.io/tls amounts to.

A key pair is kept in the store beside the objects of the bus, under a resource of its own that no bus carries, so that the tables of
certificates are derived like all others. It is read from the Secret by the renderer alone. One that cannot be used says why, in a sentence,
and has no key.

Reading knows no time. What the time makes of a key pair is a function of both (`at`), so that a clock which was wrong has taken nothing
away once it is right.
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
    """A certificate with its chain and its key, or why there is none. `begins` and `expires` are Unix times; texts are PEM. `early` says
    that its time has not come yet. Beside it, and also without it, stand the authorities that the Secret has for somebody else's
    certificate, or why they cannot be used.
    """

    resource: ClassVar = Resource("edge.seaway.dev", "keypairs")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "KeyPair"

    problem: str = ""
    algorithm: str = ""
    names: tuple[str, ...] = ()
    begins: float = 0
    expires: float = 0
    early: str = ""
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


def read(namespace: str, name: str, data: Mapping[str, bytes]) -> KeyPair:
    """The key pair in a Secret's data, whatever the time."""
    pair = _pair(namespace, name, data)
    try:
        return replace(pair, authorities=_authorities(data))
    except ValueError as error:
        return replace(pair, authorities_problem=str(error))


def at(pair: KeyPair, now: float) -> KeyPair:
    """What a key pair, as it was read, amounts to at a time. When its time is over it is none. One whose time has not come is one all the
    same: each client judges by its own clock, ours may be behind, and the default certificate would be accepted by nobody.
    """
    if pair.problem:
        return pair
    if pair.expires <= now:
        left = absent(pair.metadata.namespace, pair.metadata.name, f"{CERTIFICATE} expired on {_moment(pair.expires)}; renew it")
        return replace(left, authorities=pair.authorities, authorities_problem=pair.authorities_problem)
    if pair.begins > now:
        return replace(pair, early=f"{CERTIFICATE} is not valid before {_moment(pair.begins)}; use one that is, or set the clock")
    return pair


def _moment(time: float) -> str:
    return f"{dt.datetime.fromtimestamp(time, dt.UTC):%Y-%m-%d at %H:%M} UTC"


def _pair(namespace: str, name: str, data: Mapping[str, bytes]) -> KeyPair:
    try:
        chain, key = _chain(data), _key(data)
    except ValueError as error:
        return absent(namespace, name, str(error))
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        fault = f"{KEY} does not belong to the first certificate in {CERTIFICATE}; store the key that it was made for"
        return absent(namespace, name, fault)
    return KeyPair(
        metadata=Metadata(name=name, namespace=namespace),
        algorithm="RSA" if isinstance(key, rsa.RSAPrivateKey) else "ECDSA",
        names=_names(leaf),
        begins=leaf.not_valid_before_utc.timestamp(),
        expires=leaf.not_valid_after_utc.timestamp(),
        chain="".join(one.public_bytes(_ENCODING).decode() for one in chain),
        key=key.private_bytes(_ENCODING, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
    )


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


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """The hosts that a certificate is for; the common name counts where there is no other, as old certificates have it."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    common = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(sorted({name.lower() for name in names or common}))
