"""Credentials from kubeconfig files.

What a kubeconfig means, its plugins for identity providers included, is known to `kubernetes_asyncio`, and asked of it; nothing else of
that library is used, nor loaded (`common.kube.library`). This module is loaded where there is a kubeconfig, and nowhere else.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from common.kube import library
from common.kube.access import DEADLINE, FRESH, Access
from common.kube.errors import Misconfigured

if TYPE_CHECKING:
    from kubernetes_asyncio.client.configuration import Configuration
    from kubernetes_asyncio.config.kube_config import KubeConfigLoader

_LIBRARY: Final = library.load()


class FileCredentials:
    """One or more kubeconfig files, separated by colons as in KUBECONFIG; the current context, or the one named."""

    def __init__(self, paths: str, context: str | None = None) -> None:
        self._paths = paths
        self._context = context
        self._loader: KubeConfigLoader | None = None
        self._configuration: Configuration = _LIBRARY.Configuration()
        self._read = 0.0

    async def access(self, *, renew: bool = False) -> Access:
        """Access as the files give it now."""
        async with _explained(self._paths):
            if self._loader is None or renew:
                self._loader = await self._load()
                self._read = time.monotonic()
            elif time.monotonic() - self._read > FRESH and not _lasting(self._loader):
                await self._loader.load_and_set(self._configuration)
                self._read = time.monotonic()
            return await _access(self._configuration)

    async def _load(self) -> "KubeConfigLoader":
        if not any(map(_is_file, self._paths.split(os.pathsep))):
            raise Misconfigured(f"kubeconfig {self._paths} does not exist; name one with --kubeconfig or KUBECONFIG")
        self._configuration = _LIBRARY.Configuration()
        # Writing back refreshed tokens fails in the library, and a service has no business in a person's file.
        loader: KubeConfigLoader = await _LIBRARY.load_kube_config(
            self._paths, context=self._context, client_configuration=self._configuration, persist_config=False
        )
        return loader


def _is_file(path: str) -> bool:
    return path != "" and Path(path).expanduser().is_file()


def _lasting(loader: "KubeConfigLoader") -> bool:
    """Whether a plugin's answer has no end, so that it holds until the server refuses it."""
    return "exec" in (loader._user or ()) and not hasattr(loader, "exec_plugin_expiry")  # noqa: SLF001 nothing else tells it


async def _access(configuration: "Configuration") -> Access:
    key = await configuration.get_api_key_with_prefix("BearerToken")
    return Access(
        host=configuration.host or "",
        authorization=(key or "").strip(),
        ca_file=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        verify=configuration.verify_ssl,
        server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
    )


@asynccontextmanager
async def _explained(origin: str) -> AsyncIterator[None]:
    """Turns what the library raises for a wrong file into a sentence that names it."""
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    except TimeoutError as error:
        raise Misconfigured(f"{origin}: no credentials within {DEADLINE:g} s; run its plugin by hand") from error
    except (_LIBRARY.ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Misconfigured(f"{origin} cannot be used: {error}") from error
