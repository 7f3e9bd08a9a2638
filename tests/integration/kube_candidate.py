"""A candidate as a process of its own, so that a test can kill or freeze it. It tells on its output what becomes of it."""

import asyncio
import sys

from common.contracts.refs import ObjectRef
from common.kube.election import LEASES, Terms
from common.kube.lease import Candidate, LeaseLost
from common.kube.session import KubeSession


async def main(kubeconfig: str, lease: str, identity: str, *terms: str) -> None:
    """Works while it leads."""

    async def work() -> None:
        print("leads", flush=True)
        while True:
            print("works", flush=True)
            await asyncio.sleep(0.02)

    async with KubeSession.from_kubeconfig(kubeconfig) as kube:
        duration, renew, retry = map(float, terms)
        candidate = Candidate(kube, ObjectRef(LEASES, "default", lease), identity, Terms(int(duration), renew, retry))
        try:
            await candidate.lead(work)
        except LeaseLost as lost:
            print(f"lost: {lost}", flush=True)


asyncio.run(main(*sys.argv[1:]))
