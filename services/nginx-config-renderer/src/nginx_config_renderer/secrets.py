"""Where the data of Secrets comes from: the API server (`nginx_config_renderer.cluster`), or the folder of manifests that stands for one.

The bus carries only a notice of each Secret. Whoever needs the bytes reads that one Secret, here and nowhere else.
"""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from common.manifests import SUFFIXES, Fault, Raw, is_hidden, objects

Data = Mapping[str, bytes]


class SecretError(Exception):
    """Why a Secret cannot be read now; trying again may help."""


class SecretSource(Protocol):
    """Reads one Secret."""

    async def read(self, namespace: str, name: str) -> Data | None:
        """The data, or None if there is no such Secret. Raises SecretError."""
        ...


class FolderSecrets:
    """Secrets in a folder of manifests. A file that cannot be parsed is the watcher's affair; its Secrets are read when it is mended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, namespace: str, name: str) -> Data | None:
        """See SecretSource."""
        return await asyncio.to_thread(self._find, namespace, name)

    def _find(self, namespace: str, name: str) -> Data | None:
        broken = ""
        for path in sorted(self._directory.rglob("*")):
            if path.suffix not in SUFFIXES or is_hidden(path.relative_to(self._directory).parts) or not path.is_file():
                continue
            try:
                found = next((raw for _, raw in objects(path.name, path.read_text()) if _is(raw, namespace, name)), None)
            except (Fault, OSError, ValueError):
                broken = path.name
                continue
            if found is not None:
                return data_of(found)
        if broken:
            raise SecretError(f"Secret {namespace}/{name} may stand in {broken}, which cannot be read")
        return None


def data_of(raw: Mapping[str, Any]) -> Data:
    """The data of a raw Secret: `data` is base64, `stringData` is text and goes first. A value that is no base64 is left out."""
    data: dict[str, bytes] = {}
    for key, value in (raw.get("data") or {}).items():
        try:
            data[str(key)] = base64.b64decode(str(value), validate=False)
        except binascii.Error:
            continue
    return data | {str(key): str(value).encode() for key, value in (raw.get("stringData") or {}).items()}


def _is(raw: Raw, namespace: str, name: str) -> bool:
    metadata = raw.get("metadata") or {}
    named = (metadata.get("namespace") or "default", metadata.get("name"))
    return (raw.get("apiVersion"), raw.get("kind")) == ("v1", "Secret") and named == (namespace, name)
