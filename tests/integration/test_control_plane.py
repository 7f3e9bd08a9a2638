"""The API server that tests get is a real one: access control, expiry of old revisions and restarts are Kubernetes' own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from common.testing import wait_until
from common.testing.kubernetes import KubeApi, KubectlError, kube_api

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with kube_api() as running:
        yield running


async def test_objects_outlive_a_restart_of_the_api_server(api: KubeApi) -> None:
    await api.kubectl("create", "configmap", "kept", "--from-literal=a=1")
    before = api.pids

    await api.restart_apiserver()

    _, kept = await api.request("GET", f"{CONFIG_MAPS}/kept")
    assert kept["data"] == {"a": "1"}
    assert api.pids["kube-apiserver"] != before["kube-apiserver"]
    assert api.pids["etcd"] == before["etcd"]


async def test_a_service_account_may_do_what_it_was_granted_and_nothing_else(api: KubeApi) -> None:
    await api.kubectl("create", "serviceaccount", "reader")
    token = await api.token_for("default", "reader")
    assert (await api.request("GET", CONFIG_MAPS, token=token))[0] == 403

    await api.kubectl("create", "role", "read", "--verb=get,list", "--resource=configmaps")
    await api.kubectl("create", "rolebinding", "read", "--role=read", "--serviceaccount=default:reader")

    async def granted() -> bool:
        return (await api.request("GET", CONFIG_MAPS, token=token))[0] == 200

    await wait_until(granted)
    assert (await api.request("POST", CONFIG_MAPS, {"metadata": {"name": "new"}}, token=token))[0] == 403


async def test_nobody_gets_in_without_a_token(api: KubeApi) -> None:
    assert (await api.request("GET", CONFIG_MAPS, token="no-such-token"))[0] == 401


async def test_a_token_is_only_given_for_an_account_that_exists(api: KubeApi) -> None:
    with pytest.raises(LookupError, match="default/nobody"):
        await api.token_for("default", "nobody")


async def test_kubectl_takes_manifests_and_tells_why_it_fails(api: KubeApi) -> None:
    await api.kubectl("apply", "-f", "-", stdin="{apiVersion: v1, kind: ConfigMap, metadata: {name: piped}}")
    assert await api.kubectl("get", "configmap", "piped", "-o", "name") == "configmap/piped\n"
    with pytest.raises(KubectlError, match="not found"):
        await api.kubectl("get", "configmap", "missing")


async def _watch_from(api: KubeApi, version: str) -> str:
    """The first lines of a watch."""
    _, answer = await api.request("GET", f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}")
    return str(answer)


async def _write_and_compact(api: KubeApi) -> str:
    """A version that etcd forgot."""
    _, listed = await api.request("GET", CONFIG_MAPS)
    for number in range(3):
        await api.request("POST", CONFIG_MAPS, {"metadata": {"name": f"c{number}"}})
    await api.compact_etcd()
    return str(listed["metadata"]["resourceVersion"])


async def test_a_watch_from_before_a_compaction_expires_after_a_restart(api: KubeApi) -> None:
    old = await _write_and_compact(api)
    assert "ADDED" in await _watch_from(api, old)

    await api.restart_apiserver()

    assert "'code': 410" in await _watch_from(api, old)


async def test_without_a_watch_cache_a_watch_from_before_a_compaction_expires_at_once() -> None:
    async with kube_api(watch_cache=False) as api:
        assert "'code': 410" in await _watch_from(api, await _write_and_compact(api))


async def test_a_cancelled_test_leaves_no_process_and_no_file() -> None:
    started: asyncio.Future[KubeApi] = asyncio.get_running_loop().create_future()

    async def user() -> None:
        async with kube_api() as api:
            started.set_result(api)
            await asyncio.Event().wait()

    task = asyncio.create_task(user())
    api = await started
    pids = api.pids
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not any(_alive(pid) for pid in pids.values())
    assert not api.kubeconfig.parent.exists()


async def test_a_killed_test_run_leaves_no_process() -> None:
    program = (
        "import asyncio, common.testing.kubernetes as k\n"
        "async def main():\n"
        "  async with k.kube_api() as api:\n"
        "    print(*api.pids.values(), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert run.stdout is not None
    pids = (await run.stdout.readline()).split()
    assert len(pids) == 2

    run.send_signal(signal.SIGKILL)
    await run.wait()

    await wait_until(lambda: not any(_alive(int(pid)) for pid in pids))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
