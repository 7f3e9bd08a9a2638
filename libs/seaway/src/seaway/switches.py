"""Switches: which Ingresses an operator sent to their stand-by Service.

They are one ConfigMap, which every edge follows: in the cluster, or in the folder of manifests that a Seaway on this machine serves.
Writing it needs neither the bus nor any of our parts.

    namespace.ingress: {"reason": "db is being moved", "by": "ann", "since": "2026-11-24T02:15:00Z"}
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from common.contracts.objects import ConfigMap, Ingress
from common.contracts.refs import ObjectRef
from common.kube.errors import AlreadyExists, NotFound
from common.kube.session import KubeSession
from common.manifests import SUFFIXES, Fault, is_hidden, objects
from common.process import atomic_write

SWITCHES: Final = ObjectRef(ConfigMap.resource, "seaway-edge", "failover")
STANDBY: Final = "seaway.dev/emergency-service"
FILE: Final = "seaway-failover.yaml"
_MANAGER: Final = "seaway-command"


class Switches(Protocol):
    """Where switches are kept."""

    async def ingress(self, namespace: str, name: str) -> Ingress | None:
        """The Ingress of that name."""
        ...

    async def put(self, key: str, value: str | None) -> None:
        """Sets one switch, or takes it away, and leaves the others as they are."""
        ...


def switch(by: str, reason: str, since: str) -> str:
    """The value of a switch."""
    return json.dumps({"reason": reason, "by": by, "since": since}, ensure_ascii=False)


def read_switch(value: str) -> Mapping[str, str]:
    """Who switched, why and when, as far as the value says so."""
    try:
        data = json.loads(value)
    except ValueError:
        data = {"reason": value}
    found = data if isinstance(data, dict) else {"reason": value}
    return {name: str(found.get(name) or "") for name in ("by", "reason", "since")}


class ClusterSwitches:
    """In a cluster. Raises KubeError."""

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def ingress(self, namespace: str, name: str) -> Ingress | None:
        """The Ingress of that name."""
        try:
            return Ingress.project(await self._session.get(ObjectRef(Ingress.resource, namespace, name)))
        except NotFound:
            return None

    async def put(self, key: str, value: str | None) -> None:
        """Sets one switch, or takes it away."""
        patch = {"data": {key: value}}
        try:
            await self._session.patch(SWITCHES, patch, manager=_MANAGER)
        except NotFound:
            if value is None:
                return
            try:
                await self._session.create(ConfigMap.resource, _config_map({key: value}), namespace=SWITCHES.namespace)
            except AlreadyExists:
                await self._session.patch(SWITCHES, patch, manager=_MANAGER)


class FolderSwitches:
    """In a folder of manifests, as a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def ingress(self, namespace: str, name: str) -> Ingress | None:
        """The Ingress of that name."""
        ref = ObjectRef(Ingress.resource, namespace, name)
        found = (Ingress.project(raw) for raw in self._raw() if _is_ingress(raw))
        return next((ingress for ingress in found if ingress.ref == ref), None)

    async def put(self, key: str, value: str | None) -> None:
        """Sets one switch, or takes it away."""
        path = self._folder / FILE
        data = dict(yaml.safe_load(path.read_text()).get("data") or {}) if path.is_file() else {}
        data.pop(key, None)
        if value is not None:
            data[key] = value
        atomic_write(path, yaml.safe_dump(_config_map(data), allow_unicode=True).encode(), 0o644)

    def _raw(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in sorted(self._folder.rglob("*")):
            if path.suffix in SUFFIXES and not is_hidden(path.relative_to(self._folder).parts):
                try:
                    found += [raw for _, raw in objects(path.name, path.read_text())]
                except (Fault, OSError):
                    continue  # the watcher tells of it
        return found


def _is_ingress(raw: Mapping[str, Any]) -> bool:
    return raw["kind"] == Ingress.kind and raw["apiVersion"] == Ingress.api_version and bool(raw.get("metadata", {}).get("name"))


def _config_map(data: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": SWITCHES.name, "namespace": SWITCHES.namespace}
    return {"apiVersion": ConfigMap.api_version, "kind": ConfigMap.kind, "metadata": metadata, "data": dict(data)}
