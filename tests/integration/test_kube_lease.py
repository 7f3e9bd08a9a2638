"""A real API server: one candidate works, and somebody works again when it is killed, frozen, done or unlucky."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.contracts.refs import ObjectRef
from common.kube import Raw
from common.kube.election import LEASES, Terms
from common.kube.lease import Candidate, LeaseLost
from common.kube.session import KubeSession
from common.testing.kubernetes import KubeApi
from common.testing.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = Terms(duration=2, renew=1.2, retry=0.2)
LASTING = Terms(duration=600, renew=400, retry=0.2)  # what changes hands within a test was not waited out
LIMIT = 60.0


def lease(name: str) -> ObjectRef:
    return ObjectRef(LEASES, "default", name)


async def spec(kube: KubeSession, name: str) -> Raw:
    found: Raw = (await kube.get(lease(name)))["spec"]
    return found


class Work:
    """Work that goes on until it is told to end, and knows what happened to it."""

    def __init__(self) -> None:
        self.runs = 0
        self.running = False
        self.cleaned = False
        self.end = asyncio.Event()

    async def __call__(self) -> str:
        self.runs += 1
        self.running = True
        try:
            await self.end.wait()
            return "done"
        finally:
            await asyncio.sleep(0.1)  # cleaning up takes a while, and is waited for
            self.running = False
            self.cleaned = True


@asynccontextmanager
async def leading(candidate: Candidate, work: Work) -> AsyncIterator[asyncio.Task[str]]:
    """A candidate that has come to lead; cancelled at the end."""
    task = asyncio.create_task(candidate.lead(work))
    try:
        async with asyncio.timeout(LIMIT):
            await wait_until(lambda: work.running or task.done(), within=LIMIT)
            yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def process(api: KubeApi, name: str, identity: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A candidate in a process of its own that has come to lead."""
    arguments = (str(api.kubeconfig), name, identity, *map(str, (QUICK.duration, QUICK.renew, QUICK.retry)))
    program = str(Path(__file__).with_name("kube_candidate.py"))
    child = await asyncio.create_subprocess_exec(sys.executable, program, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(LIMIT):
            await line(child, "leads")
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def line(child: asyncio.subprocess.Process, start: str) -> str:
    """The next line of `child` that begins with `start`."""
    assert child.stdout is not None
    async for text in child.stdout:
        if text.startswith(start.encode()):
            return text.decode()
    raise AssertionError(f"the process ended before it said {start!r}")


async def test_of_two_candidates_one_works(kube: KubeSession) -> None:
    first, second = (Candidate(kube, lease("two"), name, LASTING) for name in ("first", "second"))
    works = Work(), Work()
    async with leading(first, works[0]), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(second.lead(works[1]))
        await wait_until(lambda: second.holder == "first", within=LIMIT)
        assert (works[1].runs, second.leading, first.leading) == (0, False, True)
        held = await spec(kube, "two")
        assert (held["holderIdentity"], held["leaseDurationSeconds"], held["leaseTransitions"]) == ("first", 600, 0)
        await wait_until(lambda: renewed(kube, "two", held), within=LIMIT)
        waiting.cancel()


async def renewed(kube: KubeSession, name: str, before: Raw) -> bool:
    return bool((await spec(kube, name))["renewTime"] > before["renewTime"])


async def test_a_lease_of_work_that_is_done_is_taken_over_at_once(kube: KubeSession) -> None:
    first, second = (Candidate(kube, lease("done"), name, LASTING) for name in ("first", "second"))
    works = Work(), Work()
    async with leading(first, works[0]) as task, asyncio.TaskGroup() as tasks:
        tasks.create_task(second.lead(works[1]))
        await wait_until(lambda: second.holder == "first", within=LIMIT)
        works[0].end.set()
        assert await task == "done"
        await wait_until(lambda: works[1].running, within=LIMIT)
        assert second.term == first.term + 1
        assert (await spec(kube, "done"))["holderIdentity"] == "second"
        works[1].end.set()
    assert "holderIdentity" not in await spec(kube, "done")


async def test_a_cancelled_leader_ends_its_work_and_then_releases_the_lease(kube: KubeSession) -> None:
    work = Work()
    async with leading(Candidate(kube, lease("cancelled"), "first", LASTING), work):
        pass
    assert work.cleaned
    assert "holderIdentity" not in await spec(kube, "cancelled")


async def test_work_that_fails_releases_the_lease_and_its_error_is_told(kube: KubeSession) -> None:
    async def work() -> None:
        raise ZeroDivisionError("bad luck")

    candidate = Candidate(kube, lease("failed"), "first", LASTING)
    with pytest.raises(ZeroDivisionError, match=r"bad luck"):
        await candidate.lead(work)
    assert "holderIdentity" not in await spec(kube, "failed")
    assert not candidate.leading


async def test_a_leader_whose_lease_was_taken_ends_its_work_and_says_who_has_it(kube: KubeSession) -> None:
    work = Work()
    async with leading(Candidate(kube, lease("taken"), "first", LASTING), work) as task:
        await kube.patch(lease("taken"), {"spec": {"holderIdentity": "thief"}}, manager="test")
        with pytest.raises(LeaseLost, match=r"leases\.coordination\.k8s\.io default/taken was taken by thief"):
            await task
    assert work.cleaned
    assert (await spec(kube, "taken"))["holderIdentity"] == "thief"


async def test_the_lease_of_a_killed_leader_is_taken_over(api: KubeApi, kube: KubeSession) -> None:
    async with process(api, "killed", "first") as child:
        child.kill()
        async with leading(Candidate(kube, lease("killed"), "second", QUICK), Work()):
            held = await spec(kube, "killed")
            assert (held["holderIdentity"], held["leaseTransitions"]) == ("second", 1)


async def test_a_frozen_leader_loses_the_lease_and_stops_when_it_wakes(api: KubeApi, kube: KubeSession) -> None:
    async with process(api, "frozen", "first") as child, asyncio.timeout(LIMIT):
        child.send_signal(signal.SIGSTOP)
        async with leading(Candidate(kube, lease("frozen"), "second", QUICK), Work()) as task:
            child.send_signal(signal.SIGCONT)
            assert "lost" in await line(child, "lost: ")
            assert child.stdout is not None
            assert b"works" not in await child.stdout.read()
            assert not task.done()
            assert (await spec(kube, "frozen"))["holderIdentity"] == "second"


async def test_a_restart_of_the_api_server_changes_no_leader(api: KubeApi, kube: KubeSession) -> None:
    terms = Terms(duration=60, renew=40, retry=0.1)
    candidate, work = Candidate(kube, lease("restart"), "first", terms), Work()
    async with leading(candidate, work):
        before = await spec(kube, "restart")
        await api.kill_apiserver()
        await wait_until(lambda: candidate.last_error is not None, within=LIMIT)
        await api.start_apiserver()
        await wait_until(lambda: renewed(kube, "restart", before), within=LIMIT)
        assert (work.runs, work.running, candidate.term) == (1, True, 0)
        await wait_until(lambda: candidate.last_error is None, within=LIMIT)


async def test_an_api_server_that_stays_away_ends_the_work(api: KubeApi, kube: KubeSession) -> None:
    work = Work()
    async with leading(Candidate(kube, lease("away"), "first", QUICK), work) as task:
        await api.kill_apiserver()
        with pytest.raises(LeaseLost, match=r"could not be renewed for 1\.2 s: .*no (whole )?answer"):
            await task
    await api.start_apiserver()
    assert work.cleaned
