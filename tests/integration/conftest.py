"""A real API server for each module that asks for one."""

from collections.abc import AsyncIterator

import pytest_asyncio

from common.kube.session import KubeSession
from common.testing.kubernetes import KubeApi, kube_api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[KubeApi]:
    async with kube_api() as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kube(api: KubeApi) -> AsyncIterator[KubeSession]:
    async with KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube:
        yield kube
