"""A real API server: who we are, what we may do, and whose field it is."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog.testing

from common.contracts.refs import ObjectRef, Resource
from common.kube.credentials import PodCredentials
from common.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Misconfigured,
    NotFound,
    Owned,
    Unauthorized,
    Unreachable,
)
from common.kube.session import KubeSession, Scope
from common.kube.status import Writer
from common.testing.kubernetes import KubeApi

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGMAPS = Resource("", "configmaps")
INGRESSES = Resource("networking.k8s.io", "ingresses")
ACCOUNTS = Resource("", "serviceaccounts")


def kubeconfig(folder: Path, api: KubeApi, user: Mapping[str, str], *, trusting: bool = True) -> str:
    path = folder / "kubeconfig"
    trust = {"certificate-authority": str(api.ca_file)} if trusting else {}
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": api.url, **trust}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config))
    return str(path)


async def account(api: KubeApi, kube: KubeSession, name: str) -> str:
    """A token of a new ServiceAccount, which may do nothing."""
    await kube.create(ACCOUNTS, {"metadata": {"name": name}}, namespace="default")
    return await api.token_for("default", name)


async def ingress(kube: KubeSession, name: str) -> tuple[ObjectRef, str]:
    spec = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}
    made = await kube.create(INGRESSES, {"metadata": {"name": name}, "spec": spec}, namespace="default")
    return ObjectRef(INGRESSES, "default", name), made["metadata"]["uid"]


async def test_an_object_is_made_read_changed_and_deleted(kube: KubeSession) -> None:
    ref = ObjectRef(CONFIGMAPS, "default", "life")
    made = await kube.create(CONFIGMAPS, {"metadata": {"name": "life"}, "data": {"a": "1"}}, namespace="default")
    with pytest.raises(AlreadyExists, match=r"create configmaps in namespace default: an object of this name exists already"):
        await kube.create(CONFIGMAPS, {"metadata": {"name": "life"}}, namespace="default")
    changed = await kube.patch(ref, {"data": {"b": "2"}}, manager="test")
    assert changed["data"] == {"a": "1", "b": "2"}
    with pytest.raises(Conflict, match=r"update configmaps default/life: .*modified"):
        await kube.update(ref, {**made, "data": {}})
    assert (await kube.get(ref))["data"] == {"a": "1", "b": "2"}
    with pytest.raises(Conflict):
        await kube.delete(ref, uid="00000000-0000-0000-0000-000000000000")
    await kube.delete(ref, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound, match=r'get configmaps default/life: configmaps "life" not found'):
        await kube.get(ref)


async def test_a_wrong_object_is_refused_with_the_field(kube: KubeSession) -> None:
    with pytest.raises(Invalid, match=r'create configmaps in namespace default: .* metadata\.name: Invalid value: "No_Name"'):
        await kube.create(CONFIGMAPS, {"metadata": {"name": "No_Name"}}, namespace="default")


async def test_a_missing_permission_is_told_with_the_rule_that_grants_it(api: KubeApi, kube: KubeSession, tmp_path: Path) -> None:
    token = await account(api, kube, "restricted")
    rule = r"""\{apiGroups: \["networking.k8s.io"\], resources: \["ingresses"\], verbs: \["list"\]\}"""
    async with KubeSession.from_kubeconfig(kubeconfig(tmp_path, api, {"token": token})) as restricted:
        with pytest.raises(Forbidden, match=rf"system:serviceaccount:default:restricted has no permission; add the rule {rule}"):
            await restricted.list(INGRESSES)
        await grant(kube, "restricted", INGRESSES.group, INGRESSES.plural, "list")
        await until_allowed(restricted)
        with pytest.raises(Forbidden, match=r"to the Role in namespace default or the ClusterRole that is bound to it"):
            await restricted.get(ObjectRef(CONFIGMAPS, "default", "x"))


async def grant(kube: KubeSession, account: str, group: str, plural: str, verb: str) -> None:
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [group], "resources": [plural], "verbs": [verb]}]
    await kube.create(Resource(rbac, "clusterroles"), {"metadata": {"name": account}, "rules": rules})
    binding = {
        "metadata": {"name": account},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": account},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": account}],
    }
    await kube.create(Resource(rbac, "clusterrolebindings"), binding)


async def until_allowed(kube: KubeSession) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await kube.list(INGRESSES)
            except Forbidden:
                await asyncio.sleep(0.05)  # the authorizer sees the new binding a moment later
            else:
                return


async def test_a_token_that_was_renewed_on_disk_is_used(api: KubeApi, kube: KubeSession, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    path = kubeconfig(tmp_path, api, {"tokenFile": str(token)})
    async with KubeSession.from_kubeconfig(path) as other:
        with pytest.raises(Unauthorized, match=r"does not accept our credentials"):
            await other.list(CONFIGMAPS)
        token.write_text(api.admin_token)
        assert (await other.list(CONFIGMAPS, Scope("kube-system"))).version


async def test_a_pod_finds_its_cluster(api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = api.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    token = tmp_path / "token"
    token.write_text("expired")
    async with KubeSession(PodCredentials(token, Path(api.ca_file))) as pod:
        with pytest.raises(Unauthorized):
            await pod.list(CONFIGMAPS)
        token.write_text(api.admin_token + "\n")
        assert (await pod.list(CONFIGMAPS)).version
    with pytest.raises(Misconfigured, match=r"the pod's service account cannot be used"):
        await KubeSession.in_cluster().__aenter__()


async def test_the_cluster_that_is_meant_is_found(api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(Misconfigured, match=r"no cluster is named: give --kubeconfig FILE, set KUBECONFIG"):
        KubeSession.auto()
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(Misconfigured, match=r"kubeconfig /nowhere does not exist"):
        await KubeSession.auto().__aenter__()
    async with KubeSession.auto(str(api.kubeconfig)) as kube:
        assert (await kube.list(CONFIGMAPS)).version
    monkeypatch.setenv("KUBECONFIG", f"/nowhere:{api.kubeconfig}")
    async with KubeSession.auto() as kube:
        assert (await kube.list(CONFIGMAPS)).version


async def test_a_server_that_others_signed_is_not_trusted(api: KubeApi, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, api, {"token": api.admin_token}, trusting=False)
    async with KubeSession.from_kubeconfig(path) as kube:
        with pytest.raises(Unreachable, match=r"certificate verify failed"):
            await kube.list(CONFIGMAPS)


async def test_no_token_is_logged(api: KubeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    word = "nobody-knows-this"
    path = kubeconfig(tmp_path, api, {"token": word})
    with structlog.testing.capture_logs() as logged:
        async with KubeSession.from_kubeconfig(path) as kube:
            with pytest.raises(Unauthorized) as refused:
                await kube.list(CONFIGMAPS)
    assert "kubeconfig" in caplog.text
    assert word not in f"{logged} {caplog.text} {refused.value!r} {refused.value.__cause__!r}"


async def test_a_field_of_somebody_else_is_refused_with_its_owner_and_can_be_taken_over(kube: KubeSession) -> None:
    ref = ObjectRef(CONFIGMAPS, "default", "shared")
    mine, theirs = Writer(kube, "mine"), Writer(kube, "theirs")
    await theirs.apply(ref, {"data": {"a": "theirs", "b": "theirs"}})
    with pytest.raises(Owned, match=r'somebody else manages \.data\.a \(conflict with "seaway-theirs"\)') as refused:
        await mine.apply(ref, {"data": {"a": "mine", "c": "mine"}})
    assert [field for field, _ in refused.value.fields] == [".data.a"]
    taken = await mine.apply(ref, {"data": {"a": "mine", "c": "mine"}}, force=True)
    assert taken["data"] == {"a": "mine", "b": "theirs", "c": "mine"}
    assert (await mine.apply(ref, {"data": {"a": "mine"}}))["data"] == {"a": "mine", "b": "theirs"}


async def test_applying_what_is_there_already_changes_no_version(kube: KubeSession) -> None:
    ref, uid = await ingress(kube, "still")
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    writer = Writer(kube, "tester")
    first = await writer.apply_status(ref, status, uid=uid)
    second = await writer.apply_status(ref, status, uid=uid)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert second["status"] == status
    assert second["spec"]["defaultBackend"]["service"]["name"] == "web"


async def test_a_status_is_never_written_to_another_object_of_the_same_name(kube: KubeSession) -> None:
    ref, uid = await ingress(kube, "reborn")
    await kube.delete(ref)
    writer = Writer(kube, "tester")
    with pytest.raises(NotFound):
        await writer.apply_status(ref, {"loadBalancer": {}}, uid=uid)
    with pytest.raises(Conflict):
        await writer.apply(ref, {"metadata": {"labels": {"a": "b"}}}, uid=uid)
    await ingress(kube, "reborn")
    with pytest.raises(Conflict):
        await writer.apply_status(ref, {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, uid=uid)


async def test_a_status_patch_of_an_old_version_is_refused(kube: KubeSession) -> None:
    ref, _ = await ingress(kube, "patched")
    version = (await kube.get(ref))["metadata"]["resourceVersion"]
    writer = Writer(kube, "tester")
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert (await writer.patch_status(ref, status, version=version))["status"] == status
    with pytest.raises(Conflict, match=r"patch ingresses\.networking\.k8s\.io/status default/patched"):
        await writer.patch_status(ref, {"loadBalancer": {}}, version=version)
