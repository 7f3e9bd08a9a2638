"""Backends that tests make: they are reached at addresses that an EndpointSlice may name, and nothing of them stays."""

import subprocess
from collections.abc import AsyncIterator

import aiohttp
import pytest

from common.testing.kubernetes import BackendNamespace, KubeApi, backend_namespace, kube_api

pytestmark = pytest.mark.root


@pytest.fixture
async def backends() -> AsyncIterator[BackendNamespace]:
    async with backend_namespace(addresses=2) as namespace:
        yield namespace


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        yield session


def _links_and_namespaces() -> str:
    return "".join(
        subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout
        for arguments in (("-brief", "link"), ("netns", "list"))
    )


async def test_each_backend_answers_with_its_name(backends: BackendNamespace, client: aiohttp.ClientSession) -> None:
    first, second = backends.addresses
    await backends.serve(first, 8080, "first")
    await backends.serve(first, 8081, "first-again")
    await backends.serve(second, 8080, "second")
    for where, name in ((f"{first}:8080", "first"), (f"{first}:8081", "first-again"), (f"{second}:8080", "second")):
        async with client.get(f"http://{where}/") as response:
            assert (await response.json())["name"] == name


async def test_a_backend_tells_what_it_was_asked(backends: BackendNamespace, client: aiohttp.ClientSession) -> None:
    url = f"http://{backends.addresses[0]}:8080"
    await backends.serve(backends.addresses[0], 8080, "echo")
    async with client.post(f"{url}/a%2Fb?c=d", data="four", headers={"X-One": "1", "Host": "shop.example"}) as response:
        answer = await response.json()
    assert (answer["method"], answer["target"], answer["host"], answer["body"]) == ("POST", "/a%2Fb?c=d", "shop.example", 4)
    assert answer["headers"]["X-One"] == ["1"]
    async with client.get(f"{url}/status/503") as response:
        assert response.status == 503
    async with client.get(f"{url}/healthz") as response:
        assert response.status == 200


async def test_an_endpoint_slice_may_name_a_backend() -> None:
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

    async def create(api: KubeApi, name: str, address: str) -> int:
        body = {"metadata": {"name": name}, "addressType": "IPv4", "endpoints": [{"addresses": [address]}]}
        return (await api.request("POST", slices, body))[0]

    async with kube_api() as api, backend_namespace(addresses=1) as namespace:
        assert await create(api, "loopback", "127.0.0.1") == 422
        assert await create(api, "backend", namespace.addresses[0]) == 201


async def test_nothing_of_a_namespace_stays() -> None:
    async with backend_namespace(addresses=1) as namespace:
        server = await namespace.serve(namespace.addresses[0], 8080, "brief")
        assert namespace.name in _links_and_namespaces()
        assert namespace.link in _links_and_namespaces()
    assert namespace.name not in _links_and_namespaces()
    assert namespace.link not in _links_and_namespaces()
    assert not server.running
