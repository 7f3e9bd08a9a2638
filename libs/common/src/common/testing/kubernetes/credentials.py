"""Who may talk to a test's API server, and with what.

Identities are static tokens (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file) in files that only
the owner reads, so that no secret is on a command line. Nobody gets more than the built-in roles of Kubernetes give to a component of that
name. The API server makes its own serving certificate; clients trust exactly that one.
"""

import base64
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

# Of SEC 1's ECPrivateKey (RFC 5915 §3), all but the 32 bytes of a P-256 key; the public key is optional and Go computes it.
_EC_KEY_HEAD = bytes.fromhex("30310201010420")
_EC_KEY_TAIL = bytes.fromhex("a00a06082a8648ce3d030107")
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, the groups it is in, and the token that proves it."""

    user: str
    groups: tuple[str, ...]
    token: str


def identity(user: str, *groups: str) -> Identity:
    """An identity with a new token."""
    return Identity(user, groups, secrets.token_urlsafe(32))


def write_secret(path: Path, content: str) -> None:
    """Writes a file that nobody else can read."""
    path.touch(mode=0o600)
    path.write_text(content)


def token_file(identities: Iterable[Identity]) -> str:
    """The file for kube-apiserver's --token-auth-file."""
    return "".join(f'{known.token},{known.user},{known.user},"{",".join(known.groups)}"\n' for known in identities)


def tokens_in(text: str) -> dict[str, str]:
    """The tokens in such a file, by user."""
    return {user: token for token, user, *_ in (line.split(",") for line in text.splitlines())}


def signing_key() -> str:
    """A new private key, PEM, for the tokens of ServiceAccounts."""
    key = (1 + secrets.randbelow(_P256_ORDER - 1)).to_bytes(32)
    body = base64.b64encode(_EC_KEY_HEAD + key + _EC_KEY_TAIL).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n"


def kubeconfig(url: str, authority: str, token: str) -> str:
    """A kubeconfig for one user of one server; `authority` is the PEM text to trust."""
    name = "seaway"
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority.encode()).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )
