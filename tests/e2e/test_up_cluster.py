"""`seaway up` on a cluster: it reads keys there, and tells there what became of each Ingress."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.contracts.refs import ObjectRef, Resource
from common.kube.events import EVENTS
from common.kube.session import KubeSession
from common.testing import wait_until
from common.testing.authority import Authority
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.objects import ingress, ingress_class, rule, service, tls_secret
from tests.e2e.up_world import SOON, up

pytestmark = pytest.mark.timeout(180)

INGRESSES = Resource("networking.k8s.io", "ingresses")
CLASSES = Resource("networking.k8s.io", "ingressclasses")
SERVICES = Resource("", "services")
SECRETS = Resource("", "secrets")
SHOP = ObjectRef(INGRESSES, "default", "shop")


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with kube_api() as api:
        yield api


@pytest.fixture
async def kube(api: KubeApi) -> AsyncIterator[KubeSession]:
    async with KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube:
        yield kube


async def told(kube: KubeSession) -> dict[str, str]:
    """The Events about Ingresses, by reason."""
    events = [dict(raw) for raw in (await kube.list(EVENTS)).items]
    return {event["reason"]: event["note"] for event in events if event["regarding"]["kind"] == "Ingress"}


async def addresses(kube: KubeSession) -> list[Any]:
    found: list[Any] = (await kube.get(SHOP))["status"]["loadBalancer"].get("ingress", [])
    return found


async def test_an_ingress_shows_where_it_is_served_and_what_is_wrong_with_it(
    api: KubeApi, kube: KubeSession, tmp_path: Path
) -> None:
    authority = Authority()
    shop = ingress("shop", rule("shop.example", "/", "web:80"))
    shop["spec"]["tls"] = [{"hosts": ["shop.example"], "secretName": "cert"}]
    await kube.create(CLASSES, ingress_class())
    await kube.create(INGRESSES, shop, namespace="default")
    await kube.create(INGRESSES, ingress("foreign", class_name="other", default="web:80"), namespace="default")
    arguments = (f"--kubeconfig={api.kubeconfig}", "--publish-status-address=192.0.2.7", "--publish-status-address=edge.example")
    async with up(tmp_path, *arguments) as seaway:

        async def shown() -> bool:
            return await addresses(kube) == [{"ip": "192.0.2.7"}, {"hostname": "edge.example"}]

        await wait_until(shown, within=SOON)

        async def complained() -> bool:
            return {"ServiceNotFound", "SecretNotFound"} <= (await told(kube)).keys()

        await wait_until(complained, within=SOON)
        assert (await told(kube))["ServiceNotFound"] == "Service default/web does not exist; create it"
        assert "Secret default/cert does not exist; create it, of type kubernetes.io/tls" in (await told(kube))["SecretNotFound"]

        await kube.create(INGRESSES, ingress("late", rule("shop.example", "/", "web:80")), namespace="default")

        async def outdone() -> bool:
            return "RouteTaken" in await told(kube)

        await wait_until(outdone, within=SOON)
        sentence = "shop.example/ is already served by the older Ingress default/shop"
        assert sentence in (await told(kube))["RouteTaken"]

        async def is_fact() -> bool:
            return sentence in (await seaway.command_output("events"))[1]

        await wait_until(is_fact, within=SOON)

        issued = authority.issue("shop.example")
        await kube.create(SERVICES, service("web"), namespace="default")
        await kube.create(SECRETS, tls_secret("cert", issued), namespace="default")
        trusting = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca.crt")))

        async def trusted() -> bool:
            return await seaway.certificate("shop.example", trusting) != b""

        await wait_until(trusted, within=SOON)
        foreign = await kube.get(ObjectRef(INGRESSES, "default", "foreign"))
        assert foreign["status"]["loadBalancer"] == {}, "others' Ingresses are theirs"
        assert issued.key.splitlines()[1].decode() not in seaway.said
        version = (await kube.get(SHOP))["metadata"]["resourceVersion"]
        await kube.create(SERVICES, service("another"), namespace="default")
        await seaway.until("shop.example", "308")
        assert (await kube.get(SHOP))["metadata"]["resourceVersion"] == version, "what is shown already is not written again"


async def test_a_problem_that_comes_again_is_one_event_that_counts_and_is_quiet_when_it_is_mended(
    api: KubeApi, kube: KubeSession, tmp_path: Path
) -> None:
    async def complaints(name: str) -> list[int]:
        """How often each Event about an Ingress says that a Service is missing."""
        events = [dict(raw) for raw in (await kube.list(EVENTS)).items]
        mine = [one for one in events if one["reason"] == "ServiceNotFound" and one["regarding"]["name"] == name]
        return [(one.get("series") or {"count": 1})["count"] for one in mine]

    await kube.create(CLASSES, ingress_class())
    await kube.create(INGRESSES, ingress("shop", rule("shop.example", "/", "web:80")), namespace="default")
    async with up(tmp_path, f"--kubeconfig={api.kubeconfig}", "--publish-status-address=192.0.2.7") as seaway:

        async def told(name: str, *counts: int) -> None:
            async def as_often() -> bool:
                return await complaints(name) == [*counts]

            await wait_until(as_often, within=2 * SOON)

        async def listed(name: str, state: str) -> None:
            async def is_so() -> bool:
                (states,) = json.loads((await seaway.command_output("ingress", "list", "-o", "json"))[1])["edges"].values()
                return any(one["name"] == name and one["state"] == state for one in states)

            await wait_until(is_so, within=SOON)

        await told("shop", 1)
        await kube.create(SERVICES, service("web"), namespace="default")

        async def mended() -> bool:
            return "is in force again" in (await seaway.command_output("events"))[1]

        await wait_until(mended, within=SOON)
        await kube.delete(ObjectRef(SERVICES, "default", "web"))
        await told("shop", 2)
        await kube.create(SERVICES, service("web"), namespace="default")
        await kube.create(INGRESSES, ingress("other", rule("other.example", "/", "none:80")), namespace="default")
        await told("other", 1)
        await listed("other", "serving")
        assert await complaints("shop") == [2], "what is mended is not told any more"
