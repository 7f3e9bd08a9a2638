"""A real API server for tests: kube-apiserver on etcd, ready in some seconds, and nothing else.

    async with kube_api() as api: ...      api.url, api.kubeconfig

There is no controller and no node, so an object stays as it was written: a test writes Pods' and EndpointSlices' status itself. RBAC is in
force: `admin_token` may do everything, `token_for` gives a ServiceAccount's own token, and a new ServiceAccount may do nothing. Two things
are left out because nobody would do them here: the `kubernetes` Service gets no endpoints, and Pods are not given a ServiceAccount.

Everything listens on 127.0.0.1, stores in a directory that goes away, and is killed at the end, also when the test is cancelled or its
process dies.
"""

import asyncio
import json
import os
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from common.testing.kubernetes import commands
from common.testing.kubernetes.binary import kubernetes_programs
from common.testing.kubernetes.child import Child
from common.testing.kubernetes.credentials import identity, kubeconfig, signing_key, token_file, write_secret
from common.testing.ports import free_port
from common.testing.waiting import wait_until

READY_WITHIN = 60.0
REQUEST_DEADLINE = 10.0
KUBECTL_DEADLINE = 60.0


class KubectlError(Exception):
    """What kubectl said when it failed."""


class KubeApi:
    """An API server and its etcd. `url`, `kubeconfig`, `ca_file` and the tokens outlive a restart."""

    def __init__(self, root: Path, programs: Path, *, watch_cache: bool, service_range: str) -> None:
        self._programs = programs
        self._files = commands.ControlPlaneFiles(root)
        self._admin = identity("admin", "system:masters")
        port = free_port()
        self.etcd_url = f"http://127.0.0.1:{free_port()}"
        self.url = f"https://127.0.0.1:{port}"
        self.kubeconfig = root / "kubeconfig"
        self._etcd = self._child("etcd", commands.etcd(self._files, self.etcd_url, f"http://127.0.0.1:{free_port()}"))
        more = [
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            "--etcd-compaction-interval=0",
            f"--watch-cache={str(watch_cache).lower()}",
        ]
        arguments = commands.apiserver(
            self._files, address="127.0.0.1", port=port, etcd_url=self.etcd_url, service_range=service_range, more=more
        )
        self._apiserver = self._child("kube-apiserver", arguments)

    @property
    def ca_file(self) -> Path:
        """What a client must trust."""
        return self._files.authority

    @property
    def admin_token(self) -> str:
        """The bearer token of a user who may do everything."""
        return self._admin.token

    @property
    def pids(self) -> dict[str, int]:
        """The running processes by name."""
        return {child.name: child.pid for child in (self._etcd, self._apiserver) if child.running}

    @property
    def log(self) -> str:
        """What the API server said so far."""
        return self._apiserver.log

    async def start(self) -> None:
        """Starts both programs and waits until the API server is ready."""
        write_secret(self._files.tokens, token_file([self._admin]))
        write_secret(self._files.signing_key, signing_key())
        await self._etcd.start()
        await self.start_apiserver()
        write_secret(self.kubeconfig, kubeconfig(self.url, self.ca_file.read_text(), self.admin_token))

    async def start_apiserver(self) -> None:
        """Starts a killed API server again, on the same port, and waits until it is ready."""
        await self._apiserver.start()
        await wait_until(self._ready, within=READY_WITHIN, every=0.05)

    async def kill_apiserver(self) -> None:
        """Ends the API server at once. Objects stay in etcd."""
        await self._apiserver.kill()

    async def restart_apiserver(self) -> None:
        """Kills the API server, starts it again and waits until it is ready."""
        await self.kill_apiserver()
        await self.start_apiserver()

    async def stop(self) -> None:
        """Kills both programs. The signals are sent before anything is awaited, so that a second cancellation leaves nobody behind."""
        children = (self._apiserver, self._etcd)
        for child in children:
            child.signal(signal.SIGKILL)
        for child in children:
            await child.kill()

    async def request(self, method: str, path: str, body: object = None, *, token: str = "") -> tuple[int, Any]:
        """Status and body of one request, by the admin unless another `token` is given. Raises aiohttp.ClientError.

        The body is decoded if it is one JSON document, and text if it is not, as that of a watch is. A PATCH is a JSON merge patch.
        """
        context = ssl.create_default_context(cafile=str(self.ca_file))
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {token or self.admin_token}", "Content-Type": kind}
        timeout = aiohttp.ClientTimeout(total=REQUEST_DEADLINE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                method, self.url + path, data=None if body is None else json.dumps(body), headers=headers, ssl=context
            ) as response,
        ):
            text = await response.text()
        try:
            return response.status, json.loads(text)
        except json.JSONDecodeError:
            return response.status, text

    async def token_for(self, namespace: str, service_account: str) -> str:
        """A token of a ServiceAccount that exists, good for an hour."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        status, answer = await self.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})
        if status != 201:
            raise LookupError(f"no token for ServiceAccount {namespace}/{service_account}: {answer}")
        return str(answer["status"]["token"])

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl writes, as the admin. Raises KubectlError if it fails."""
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.kubeconfig.with_name("cache"))}
        process = await asyncio.create_subprocess_exec(
            str(self._programs / "kubectl"),
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(KUBECTL_DEADLINE):
                output, errors = await process.communicate(None if stdin is None else stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {errors.decode().strip()}")
        return output.decode()

    async def compact_etcd(self) -> int:
        """Forgets every revision but the newest, which is returned.

        A list or watch from an older one is then answered with 410, but not while the API server still has it in its watch cache: restart
        the API server, or start it with `watch_cache=False`.
        """
        head = await self._etcd_call("kv/range", {"key": "AA==", "limit": "1"})
        revision = int(head["header"]["revision"])
        await self._etcd_call("kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    async def _etcd_call(self, method: str, body: object) -> dict[str, Any]:
        """Calls etcd's JSON gateway (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/)."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_DEADLINE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{self.etcd_url}/v3/{method}", json=body) as response,
        ):
            response.raise_for_status()
            return dict(await response.json())

    def _child(self, program: str, arguments: Sequence[str]) -> Child:
        return Child(program, [str(self._programs / program), *arguments], self._files.root / f"{program}.log")

    async def _ready(self) -> bool:
        for child in (self._etcd, self._apiserver):
            child.check()
        if not self._files.find_authority():
            return False
        try:
            status, _ = await self.request("GET", "/readyz")
            # The API server makes this namespace itself, soon after it calls itself ready.
            return status == 200 and (await self.request("GET", "/api/v1/namespaces/default"))[0] == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


@asynccontextmanager
async def kube_api(*, watch_cache: bool = True, service_range: str = "10.96.0.0/16") -> AsyncIterator[KubeApi]:
    """An API server of its own for one test. Without a watch cache it reads from etcd what etcd still has, and says 410 to the rest. Two
    networks in `service_range`, with a comma between them, make Services of both families.
    """
    programs = await asyncio.to_thread(kubernetes_programs)
    with tempfile.TemporaryDirectory(prefix="seaway-kubernetes-", ignore_cleanup_errors=True) as directory:
        api = KubeApi(Path(directory), programs, watch_cache=watch_cache, service_range=service_range)
        try:
            await api.start()
            yield api
        finally:
            await api.stop()
