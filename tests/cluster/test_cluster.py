"""The cluster that tests and `make cluster` get: real pods, Services, names and access control, and mended when parts of it died."""

import asyncio
import http.client
import json
import os
import signal
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.testing import wait_until
from common.testing.kubernetes import KubectlError, cgroups
from common.testing.kubernetes.cluster import Cluster, ClusterError
from common.testing.kubernetes.images import BUSYBOX, ECHO, Image

pytestmark = pytest.mark.root

DEPLOYMENT = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      containers:
        - name: echo
          image: {ECHO}
          readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


def _pod(name: str, image: str, *command: str, host_network: bool = False) -> str:
    container = {"name": "main", "image": image, "args": list(command)}
    spec = {"hostNetwork": host_network, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def _deploy(cluster: Cluster, namespace: str) -> str:
    """The ClusterIP of a Service with two ready pods."""
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=DEPLOYMENT)
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/echo", "--timeout=60s")
    address = cluster.kubectl("-n", namespace, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
    # A pod is ready before the endpoints say so, and they before the node's rules do.
    asyncio.run(wait_until(lambda: _ready(cluster, namespace) == [True, True] and _answers(address), within=30))
    return address


def _endpoints(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    slices = json.loads(cluster.kubectl("-n", namespace, "get", "endpointslices", "-o", "json"))
    return [endpoint for piece in slices["items"] for endpoint in piece["endpoints"] or ()]


def _ready(cluster: Cluster, namespace: str) -> list[bool]:
    return [endpoint["conditions"]["ready"] for endpoint in _endpoints(cluster, namespace)]


def _run_pod(cluster: Cluster, namespace: str, manifest: str) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=manifest)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")


def _get(host: str, port: int = 80, path: str = "/") -> dict[str, Any]:
    with closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        connection.request("GET", path)
        return dict(json.loads(connection.getresponse().read()))


def _answers(host: str, port: int = 80) -> bool:
    try:
        return bool(_get(host, port))
    except OSError:
        return False


def test_a_deployment_becomes_ready_with_endpoints_and_its_service_answers_from_this_machine(
    cluster: Cluster, namespace: str
) -> None:
    address = _deploy(cluster, namespace)

    pods = {endpoint["targetRef"]["name"] for endpoint in _endpoints(cluster, namespace)}
    answered: set[str] = set()

    def both_answered() -> bool:
        if _answers(address):
            answered.add(_get(address)["name"])
        return answered == pods

    asyncio.run(wait_until(both_answered))


def test_pods_find_services_by_name(cluster: Cluster, namespace: str) -> None:
    _deploy(cluster, namespace)
    _run_pod(cluster, namespace, _pod("client", BUSYBOX, "-c", "sleep 1000000"))

    for name in ("echo", f"echo.{namespace}", f"echo.{namespace}.svc", f"echo.{namespace}.svc.cluster.local"):
        answer = cluster.kubectl("-n", namespace, "exec", "client", "--", "wget", "-qO-", f"http://{name}/")
        assert json.loads(answer)["host"] == name

    with pytest.raises(KubectlError, match="bad address"):
        cluster.kubectl("-n", namespace, "exec", "client", "--", "wget", "-qO-", "http://nobody/")


def test_pods_reach_the_api_server_by_its_service(cluster: Cluster, namespace: str) -> None:
    _run_pod(cluster, namespace, _pod("client", BUSYBOX, "-c", "sleep 1000000"))

    # The API server's own answer to whoever does not speak TLS, which is all that this client can do.
    with pytest.raises(KubectlError, match="400 Bad Request"):
        cluster.kubectl("-n", namespace, "exec", "client", "--", "wget", "-qO-", "http://kubernetes.default:443/")
    trusted = cluster.kubectl(
        "-n", namespace, "exec", "client", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )
    assert trusted == (cluster.root / "private/authority.crt").read_text()


def test_a_pod_on_the_host_network_answers_at_the_nodes_address(cluster: Cluster, namespace: str) -> None:
    _run_pod(cluster, namespace, _pod("edge", ECHO, "-listen=:18473", host_network=True))

    node = cluster.addresses.node
    asyncio.run(wait_until(lambda: _answers(node, 18473)))
    assert _get("127.0.0.1", 18473)["address"] == "127.0.0.1:18473"


def test_an_image_made_of_files_runs(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    name = "localhost/seaway/greeting:1"
    cluster.load_image(
        Image(name, {"/bin/busybox": Path("/bin/busybox"), "/greeting": b"hello\n"}, ("/bin/busybox", "cat", "/greeting"))
    )
    cluster.kubectl("-n", namespace, "run", "greeting", f"--image={name}", "--restart=Never")
    cluster.kubectl("-n", namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/greeting", "--timeout=60s")
    assert cluster.kubectl("-n", namespace, "logs", "greeting") == "hello\n"

    broken = tmp_path / "broken.tar"
    broken.write_text("no archive")
    with pytest.raises(ClusterError, match="cannot be imported"):
        cluster.load_archive(broken)


def test_the_kubelet_asks_who_is_calling(cluster: Cluster) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with closing(http.client.HTTPSConnection(cluster.addresses.node, 10250, timeout=5, context=context)) as connection:
        connection.request("GET", "/pods")
        assert connection.getresponse().status == 401


def test_secrets_are_for_root_only(cluster: Cluster) -> None:
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    assert (cluster.root / "private").stat().st_mode & 0o077 == 0


def test_up_changes_nothing_on_a_running_cluster(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    before = {daemon.name: daemon.pid for daemon in cluster.daemons()}

    cluster.up()

    assert {daemon.name: daemon.pid for daemon in cluster.daemons()} == before
    assert "runs already" in capsys.readouterr().err


def test_up_refuses_a_second_cluster_on_the_machine(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=f"down --dir {cluster.root}"):
        Cluster(tmp_path).up()
    assert not list(tmp_path.iterdir())


def test_up_starts_again_what_died(cluster: Cluster) -> None:
    before = {daemon.name: daemon.pid for daemon in cluster.daemons()}
    victims = ("kube-apiserver", "kubelet", "containerd")
    for name in victims:
        os.kill(before[name] or 0, signal.SIGKILL)

    cluster.up()

    after = {daemon.name: daemon.pid for daemon in cluster.daemons()}
    assert cluster.runs()
    assert {name for name in after if after[name] != before[name]} == set(victims)


def test_up_brings_everything_back_after_a_crash(cluster: Cluster, namespace: str) -> None:
    address = _deploy(cluster, namespace)
    cgroups.kill()
    assert not _answers(address)

    cluster.up()

    assert _deploy(cluster, namespace) == address
    asyncio.run(wait_until(lambda: _answers(address), within=30))
