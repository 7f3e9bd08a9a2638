"""Leading: of many candidates, one works.

    candidate = Candidate(kube, ObjectRef(LEASES, "seaway", "watcher"), identity)
    await candidate.lead(work)

Waits until it leads, then runs `work`. When leadership is lost, `work` is cancelled and awaited, and LeaseLost is raised: the caller
decides whether to be a candidate again or to exit. When `work` ends or fails, or the caller is cancelled, the lease is released, so that
another candidate leads at its next look (`Terms.retry`) and need not wait until the lease runs out. An API server that is away for less
than `Terms.renew` changes nothing. The rules are in `common.kube.election`.
"""

import asyncio
import os
import random
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from common.contracts.refs import ObjectRef
from common.kube import Raw, microtime
from common.kube.election import JITTER, LEASES, Election, Terms
from common.kube.errors import Conflict, KubeError, NotFound
from common.kube.session import KubeSession

DEFAULT: Final = Terms()

T = TypeVar("T")
log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """We lead no more."""


def unique_identity() -> str:
    """A name that no other candidate has, and that tells an operator which pod it is."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}"


class Candidate:
    """One who would lead. `identity` must be unique among the candidates of all times."""

    def __init__(
        self,
        session: KubeSession,
        lease: ObjectRef,
        identity: str,
        terms: Terms = DEFAULT,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._lease = lease
        self._terms = terms
        self._chance = chance
        self._election = Election(identity, terms)
        self._log = log.bind(lease=str(lease), identity=identity)
        self._claimed = False
        self.last_error: str | None = None

    @property
    def leading(self) -> bool:
        """Whether we lead now."""
        return self._election.leads(time.monotonic())

    @property
    def holder(self) -> str:
        """Who held the lease when it was last seen; empty for nobody."""
        return self._election.holder

    @property
    def term(self) -> int:
        """How often leadership had changed when the lease was last seen: a number that grows from leader to leader."""
        return self._election.term

    async def lead(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns or raises, done while we lead. Raises LeaseLost."""
        try:
            await self._acquire()
            self._log.info("lease.acquired", term=self.term)
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._keep())
                result = await work()
                renewing.cancel()
        except ExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from None
        finally:
            await self._release()
        return result

    async def _acquire(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._terms.renew / 2):
                    if await self._claim():
                        return
                self.last_error = None
            except (KubeError, TimeoutError) as error:
                self._tell(error)
            await asyncio.sleep(self._interval())

    async def _keep(self) -> None:
        """Renews the lease for ever. Raises LeaseLost."""
        while True:
            await asyncio.sleep(min(self._interval(), self._election.left(time.monotonic())))
            left = self._election.left(time.monotonic())
            try:
                async with asyncio.timeout(min(left, self._terms.renew / 2)):
                    if not (left and await self._renew()):
                        break
                self.last_error = None
            except (KubeError, TimeoutError) as error:
                self._tell(error)
        self._election.lost()
        taken = self.holder and not self._election.ours
        why = f"was taken by {self.holder}" if taken else f"could not be renewed for {self._terms.renew:g} s: {self.last_error}"
        self._log.warning("lease.lost", why=why)
        raise LeaseLost(f"{self._lease} {why}")

    async def _claim(self) -> bool:
        """Reads the lease, and takes it if it is free."""
        self._election.see(await self._read(), time.monotonic())
        return self._election.may_claim(time.monotonic()) and await self._write()

    async def _renew(self) -> bool:
        """Writes what we know; if somebody wrote meanwhile, looks who it was."""
        if await self._write():
            return True
        self._election.see(await self._read(), time.monotonic())
        return self._election.ours and await self._write()

    async def _read(self) -> Raw | None:
        try:
            return await self._session.get(self._lease)
        except NotFound:
            return None

    async def _write(self) -> bool:
        """Claims the lease; False if somebody else was faster."""
        sent = time.monotonic()
        claim = self._election.claim(microtime.now(), sent)
        self._claimed = True
        try:
            self._election.won(await self._put(claim), sent)
        except Conflict:
            return False
        return True

    async def _put(self, lease: Raw) -> Raw:
        if "metadata" in lease:
            return await self._session.update(self._lease, lease)
        metadata = {"name": self._lease.name}
        return await self._session.create(LEASES, {**lease, "metadata": metadata}, namespace=self._lease.namespace)

    async def _release(self) -> None:
        """Gives the lease back if it is ours, also when the answer to our last claim never came."""
        if not self._claimed:
            return
        self._election.lost()
        try:
            async with asyncio.timeout(self._terms.renew / 2):
                self._election.see(await self._read(), time.monotonic())
                if self._election.ours:
                    await self._put(self._election.release(microtime.now()))
                    self._log.info("lease.released")
        except (KubeError, TimeoutError) as error:
            self._log.warning("lease.not_released", error=str(error), lasts=self._terms.duration)

    def _interval(self) -> float:
        return self._terms.retry * (1 + JITTER * self._chance())

    def _tell(self, error: Exception) -> None:
        text = str(error) or f"no answer for {self._lease} in time"
        if text != self.last_error:
            self._log.warning("lease.trouble", error=text, leading=self.leading)
        self.last_error = text
