"""`kubectl apply -k deploy/overlays/single`: Seaway as pods, with the rights that it ships with, serving applications that are pods too."""

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from tests.cluster.applications import answered_by, application, ask, deploy, running
from tests.cluster.installed import PARTS, ROOT, Installed, installed, with_keys
from tests.cluster.load import load

from common.contracts.objects import MODELS
from common.testing import wait_until
from common.testing.kubernetes.cluster import Cluster

# The first test waits for all; where nothing is cached, images are built from Debian packages.
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 a path


@pytest.fixture(scope="module")
def seaway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Seaway, of which every pod is ready."""
    directory = tmp_path_factory.mktemp("seaway")
    with installed(cluster, with_keys(directory) / "overlays/single") as found:
        yield found


@pytest.fixture
def host(namespace: str) -> str:
    """A host name of the test's own."""
    return f"{namespace}.example.org"


def canonical(requirement: str) -> str:
    """NAME==VERSION with the name as https://packaging.python.org/en/latest/specifications/name-normalization/ has it."""
    name, _, version = requirement.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def in_nginx(seaway: Installed, command: str) -> str:
    """What a command in nginx's container writes."""
    where = ("-n", "seaway-edge", "exec", "daemonset/nginx-config-renderer", "-c", "nginx")
    return seaway.cluster.kubectl(*where, "--", "sh", "-c", command).strip()


def test_nothing_but_the_watcher_and_the_renderer_has_a_token(seaway: Installed) -> None:
    with_token = set()
    for pod in seaway.pods():
        for container in pod["spec"]["containers"]:
            if any(TOKEN.startswith(mount["mountPath"]) for mount in container["volumeMounts"]):
                with_token.add(container["name"])
    assert with_token == {"watcher", "nginx-config-renderer"}


@pytest.mark.parametrize(
    ("workload", "package"), [("deployment/watcher", "watcher"), ("daemonset/nginx-config-renderer", "nginx-config-renderer")]
)
def test_an_image_holds_the_locked_packages_of_its_service_and_nothing_else(seaway: Installed, workload: str, package: str) -> None:
    ask_python = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    where = ("-n", PARTS[workload], "exec", workload, "-c", package, "--", "/opt/seaway/bin/python", "-c", ask_python)
    there = {canonical(line) for line in seaway.cluster.kubectl(*where).split()}
    own = {line for line in there if line.startswith("seaway-")}
    locked = (ROOT / f"requirements/{package}.txt").read_text().splitlines()
    assert there - own == {canonical(line.split()[0]) for line in locked if re.match(r"[a-z0-9]", line, re.IGNORECASE)}
    assert {line.partition("==")[0] for line in own} == {"seaway-common", f"seaway-{package}"}


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


async def test_requests_are_logged_where_the_cluster_collects_logs(seaway: Installed, host: str) -> None:
    assert ask(seaway.address, host)[0] == 404

    def logged() -> bool:
        said = seaway.cluster.kubectl("-n", "seaway-edge", "logs", "daemonset/nginx-config-renderer", "-c", "nginx", "--tail=500")
        return any('"GET / HTTP/1.1" 404 ' in line for line in said.splitlines())

    await wait_until(logged)


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
    overlay = seaway.overlay.parent / "cluster"
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
