"""`kubectl apply -k deploy/overlays/single`: Seaway as pods, with the rights that it ships with, serving applications that are pods too."""

import asyncio
import http.client
import json
import shutil
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.cluster.installed import Installed, install, load_images, uninstall, with_keys
from tests.cluster.load import Load, load

from common.contracts.objects import MODELS
from common.testing import wait_until
from common.testing.kubernetes import KubectlError
from common.testing.kubernetes.cluster import Cluster
from common.testing.kubernetes.images import ECHO

# The first test waits for all; where nothing is cached, images are built from Debian packages.
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 a path


@pytest.fixture(scope="module")
def seaway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Seaway, of which every pod is ready."""
    missing = [program for program in ("buildah", "debootstrap", "openssl") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"images and keys need {', '.join(missing)}: python3 scripts/setup.py images")
    load_images(cluster, tmp_path_factory.mktemp("images"))
    installed = install(cluster, with_keys(tmp_path_factory.mktemp("manifests")))
    try:
        installed.rolled_out()
    except KubectlError as error:
        pytest.fail(f"{error}\n{installed.logs()}")
    yield installed
    uninstall(installed)


@pytest.fixture
def host(namespace: str) -> str:
    """A host name of the test's own."""
    return f"{namespace}.example.org"


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


def in_nginx(seaway: Installed, command: str) -> str:
    """What a command in nginx's container writes."""
    where = ("-n", "seaway-edge", "exec", "daemonset/nginx-config-renderer", "-c", "nginx")
    return seaway.cluster.kubectl(*where, "--", "sh", "-c", command).strip()


async def answered_by(found: Load, pods: set[str]) -> None:
    """Returns when a hundred requests on end were answered by `pods` and nobody else, by each of them."""

    async def settled() -> bool:
        before, total = found.answers.copy(), found.total
        await wait_until(lambda: found.total >= total + 100)
        return set(found.answers - before) == pods

    await wait_until(settled, within=30)


def test_nothing_but_the_watcher_has_a_token(seaway: Installed) -> None:
    with_token = set()
    for pod in seaway.pods():
        for container in pod["spec"]["containers"]:
            if any(TOKEN.startswith(mount["mountPath"]) for mount in container["volumeMounts"]):
                with_token.add(container["name"])
    assert with_token == {"watcher"}


def test_the_watchers_own_rights_suffice(seaway: Installed) -> None:
    said = seaway.cluster.kubectl("-n", "seaway", "logs", "deployment/watcher", "--all-pods", "--prefix")
    assert "reflector.listed" in said
    assert "forbidden" not in said.lower()


async def test_the_bus_holds_exactly_the_objects_of_the_cluster(seaway: Installed) -> None:
    resources = ",".join(str(model.resource) for model in MODELS)

    def same() -> bool:
        replica = {(each["kind"], each["metadata"]["uid"]) for each in seaway.replica()}
        there = json.loads(seaway.cluster.kubectl("get", resources, "-A", "-o", "json"))["items"]
        return replica == {(each["kind"], each["metadata"]["uid"]) for each in there} and len(replica) > len(MODELS)

    await wait_until(same, within=30)


async def test_an_ingress_is_answered_by_the_pods_of_its_deployment(seaway: Installed, namespace: str, host: str) -> None:
    assert ask(seaway.address, host)[0] == 404
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host))
    pods = running(seaway.cluster, namespace)
    answered: set[str] = set()

    def both_answered() -> bool:
        answered.add(ask(seaway.address, host)[1])
        return answered - {""} == pods

    await wait_until(both_answered)
    assert len(pods) == 2


async def test_scaling_loses_no_request(seaway: Installed, namespace: str, host: str) -> None:
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=1))
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    async with load(seaway.address, host) as found:
        for replicas in (4, 1):
            await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=replicas))
            pods = await asyncio.to_thread(running, seaway.cluster, namespace)
            assert len(pods) == replicas
            await answered_by(found, pods)
    assert not found.lost


async def test_a_rolling_update_loses_no_request(seaway: Installed, namespace: str, host: str) -> None:
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host))
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    before = running(seaway.cluster, namespace)
    async with load(seaway.address, host) as found:
        await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, release=2))
        after = await asyncio.to_thread(running, seaway.cluster, namespace)
        assert not before & after
        await answered_by(found, after)
    assert not found.lost


async def test_a_deleted_application_is_not_found(seaway: Installed, namespace: str, host: str) -> None:
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=1))
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    seaway.cluster.kubectl("-n", namespace, "scale", "deployment/echo", "--replicas=0")
    await wait_until(lambda: ask(seaway.address, host)[0] == 503)
    seaway.cluster.kubectl("-n", namespace, "delete", "ingress", "echo")
    await wait_until(lambda: ask(seaway.address, host)[0] == 404)


async def test_the_edge_serves_while_the_bus_is_lost_and_hears_of_news_when_it_is_back(
    seaway: Installed, namespace: str, host: str
) -> None:
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=1))
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    async with load(seaway.address, host) as found:
        # Its volume goes with the pod: the new one knows nothing.
        await asyncio.to_thread(seaway.cluster.kubectl, "-n", "seaway", "delete", "pod", "nats-0")
        await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=2))
        await asyncio.to_thread(seaway.rolled_out)
        await answered_by(found, await asyncio.to_thread(running, seaway.cluster, namespace))
    assert not found.lost


async def test_a_killed_nginx_comes_back_with_its_routes(seaway: Installed, namespace: str, host: str) -> None:
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=1))
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    master = in_nginx(seaway, "cat /run/seaway/nginx/run/nginx.pid")
    seen: set[int] = set()

    async def another_answers() -> bool:
        seen.add((await asyncio.to_thread(ask, seaway.address, host))[0])
        return 200 in seen and in_nginx(seaway, "cat /run/seaway/nginx/run/nginx.pid") != master

    in_nginx(seaway, f"kill -KILL {master}")
    await wait_until(another_answers)
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    assert seen <= {0, 200}, "what was routed was unknown for a while"


def test_the_overlay_for_three_servers_is_valid(seaway: Installed) -> None:
    overlay = seaway.manifests / "overlays/cluster"
    # Not with the server, where a StatefulSet's claims cannot be changed.
    checked = seaway.cluster.kubectl("apply", "--dry-run=client", "--validate=strict", "-k", str(overlay), "-o", "name").split()
    assert "statefulset.apps/nats" in checked


def test_no_part_was_ever_started_again(seaway: Installed) -> None:
    """The last test: nothing of what the others did may have ended a service."""
    states = {
        (pod["metadata"]["name"], each["name"]): each
        for pod in seaway.pods()
        for each in pod["status"].get("containerStatuses", ())
    }
    assert len(states) == 5, sorted(states)
    restarted = {name: each.get("lastState") for name, each in states.items() if each["restartCount"] > 0}
    assert not restarted, seaway.logs()
