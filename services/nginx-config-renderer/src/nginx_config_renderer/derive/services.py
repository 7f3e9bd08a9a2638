"""Services: the ports that the operator opens for TCP and UDP, from ConfigMaps as ingress-nginx reads them.

    "5432": "shop/postgres:5432"              port of the edge: namespace/service:port, by number or name
    "9000": "shop/echo:9000:PROXY:PROXY"      with the PROXY protocol in (from clients) and out (to endpoints); TCP alone
    "9001": "shop/echo:9000::PROXY"           out alone

A key that cannot be is told with its mend, and the others are served. Whether a port is open depends on the ConfigMap alone: one whose
Service is missing stays open and closes its connections, so that a Service that comes and goes is no reload.
"""

import re
from collections.abc import Callable
from typing import Final

from common.contracts.objects import ConfigMap, Service
from common.contracts.problems import Problem
from common.store import Derived, Reads
from nginx_config_renderer.derive.backends import find_port, live_endpoints, no_such_port
from nginx_config_renderer.derive.indexes import is_name
from nginx_config_renderer.model import BackendKey
from nginx_config_renderer.streams import TCP, Entrances, EntryKey, Listener, Stream

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_MOST: Final = 65535
_PROXY: Final = "PROXY"
_FORM: Final = "write namespace/service:port, and :PROXY behind it for each way that has the PROXY protocol"


class _Bad(Exception):
    """What is wrong with an entry, and the mend."""


def services(entrances: Entrances) -> Callable[[Reads, EntryKey], Derived[Stream]]:
    """The derivation for what the operator lets in."""

    def derive(view: Reads, key: EntryKey) -> Derived[Stream]:
        found = view.get(ConfigMap, key.namespace, key.name)
        if found is None or entrances.of(key.protocol) != key.ref:
            return Derived(None)
        try:
            listener, backend = _read(key, found.data[key.key], entrances.reserved)
        except _Bad as fault:
            return Derived(None, (Problem(key.ref, "BadPort", f"key {key.key[:80]!r}: {fault}"),))
        return _stream(view, key, listener, backend)

    return derive


def _stream(view: Reads, key: EntryKey, listener: Listener, backend: BackendKey) -> Derived[Stream]:
    service = view.get(Service, backend.namespace, backend.service)
    if service is None:
        fault = f"Service {backend.namespace}/{backend.service} does not exist; create it"
        return Derived(Stream(listener), (Problem(key.ref, "ServiceNotFound", f"key {key.key!r}: {fault}"),))
    if service.spec.type == "ExternalName":
        fault = f"Service {backend.namespace}/{backend.service} is an ExternalName; name one with endpoints"
        return Derived(Stream(listener), (Problem(key.ref, "ExternalName", f"key {key.key!r}: {fault}"),))
    port = find_port(service, backend.port, listener.protocol)
    if port is None:
        fault = no_such_port(service, backend.port, listener.protocol)
        return Derived(Stream(listener), (Problem(key.ref, "PortNotFound", f"key {key.key!r}: {fault}"),))
    return Derived(Stream(listener, live_endpoints(view, service, port)))


def _read(key: EntryKey, value: str, reserved: frozenset[int]) -> tuple[Listener, BackendKey]:
    if not _NUMBER.fullmatch(key.key) or int(key.key) > _MOST:
        raise _Bad(f"this is no port; write a number from 1 to {_MOST}")
    port = int(key.key)
    if port in reserved:
        raise _Bad("the edge has this port for itself; choose another one")
    name, *words = value.strip().split(":")
    namespace, slash, service = name.partition("/")
    if not slash or not words or len(words) > 3 or not all(map(is_name, (namespace, service, words[0]))):
        raise _Bad(f"{value[:80]!r} names no port of a Service; {_FORM}")
    proxy = [word.upper() for word in words[1:]]
    if any(word not in {"", _PROXY} for word in proxy):
        raise _Bad(f"{value[:80]!r} has a word that is not PROXY; {_FORM}")
    if _PROXY in proxy and key.protocol != TCP:
        raise _Bad(f"the PROXY protocol is for TCP alone; write {name}:{words[0]}")
    proxy_in, proxy_out = (word == _PROXY for word in (*proxy, "", "")[:2])
    return Listener(key.protocol, port, proxy_in, proxy_out), BackendKey(namespace, service, words[0])
