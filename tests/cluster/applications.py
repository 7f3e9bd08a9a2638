"""Applications as people deploy them, and what a visitor sees of them."""

import http.client
import json
from contextlib import closing

from tests.cluster.load import Load

from common.testing import wait_until
from common.testing.kubernetes.cluster import Cluster
from common.testing.kubernetes.images import ECHO


def application(host: str, *, replicas: int = 2, release: int = 1) -> str:
    """A Deployment of echo servers, a Service and an Ingress for `host`. They take a second to leave, as applications should."""
    container = {
        "name": "echo",
        "image": ECHO,
        "args": ["-drain=1s"],
        "env": [{"name": "RELEASE", "value": str(release)}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }
    labels = {"app": "echo"}
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "echo", "port": {"number": 80}}}}
    rule = {"host": host, "http": {"paths": [path]}}
    specs = {
        ("apps/v1", "Deployment"): {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pods},
        ("v1", "Service"): {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        ("networking.k8s.io/v1", "Ingress"): {"ingressClassName": "nginx", "rules": [rule]},
    }
    items = [{"apiVersion": api, "kind": kind, "metadata": {"name": "echo"}, "spec": spec} for (api, kind), spec in specs.items()]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def deploy(cluster: Cluster, namespace: str, manifests: str) -> None:
    """Applies `manifests` and returns when the Deployment in it is rolled out and what it replaced has left."""
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=manifests)
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/echo", "--timeout=90s")


def running(cluster: Cluster, namespace: str) -> set[str]:
    """The pods that are there and are not asked to leave."""
    pods = json.loads(cluster.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def ask(address: str, host: str) -> tuple[int, str]:
    """Status and the pod that answered."""
    with closing(http.client.HTTPConnection(address, 80, timeout=5)) as connection:
        try:
            connection.request("GET", "/", headers={"Host": host})
            response = connection.getresponse()
            body = response.read()
        except OSError:
            return 0, ""
    return response.status, json.loads(body)["name"] if response.status == 200 else ""


async def answered_by(found: Load, pods: set[str]) -> None:
    """Returns when a hundred requests on end were answered by `pods` and nobody else, by each of them."""

    async def settled() -> bool:
        before, total = found.answers.copy(), found.total
        await wait_until(lambda: found.total >= total + 100)
        return set(found.answers - before) == pods

    await wait_until(settled, within=30)
