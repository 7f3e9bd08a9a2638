"""The keys with which services prove themselves to the bus: one nkey a service, the secret half in a file of its own.

A key that is there is kept, so a second call changes nothing; a key is renewed by deleting its file and starting the servers anew. What the
servers must know are the public halves alone (https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth).
"""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import nkeys

from seaway.nats_conf import User

SUFFIX = ".nkey"


def ensure(directory: Path, roles: Iterable[str]) -> list[User]:
    """A user for each role, with its seed at `directory`/<role>.nkey, which only the owner may read."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [User(role, _public(_seed(directory / f"{role}{SUFFIX}"))) for role in sorted(roles)]


def _seed(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except FileNotFoundError:
        seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
        # Made with its mode, never changed to it: nobody reads it in between.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(seed)
        return seed


def _public(seed: bytes) -> str:
    public: bytes = nkeys.from_seed(bytearray(seed)).public_key
    return public.decode().rstrip("=")
