"""When people are told that a balancer does not do what it should."""

import asyncio
from typing import Any

import pytest
from tests.integration.lb_world import Noted

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.runtime.reports import Reports
from common.testing import wait_until
from haproxy_lb import tell
from haproxy_lb.derive.classes import Class
from haproxy_lb.follow import Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.tell import Teller


class Silent(Knowledge):
    """A replica that is complete, of nothing."""

    @property
    def awaited(self) -> tuple[Any, ...]:
        return ()


class NoOffice:
    problems = ()


async def test_a_haproxy_that_only_starts_alarms_nobody_and_one_that_stays_away_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell, "LOOK", 0.01)
    monkeypatch.setattr(tell, "GATHER", 0.0)
    monkeypatch.setattr(tell, "PATIENCE", 0.3)
    told: list[str | None] = []

    class Heard(Reports):
        def alert(self, name: str, severity: Any, summary: str | None) -> None:
            told.append(summary)

    reports = Heard(FactPublisher(MemoryBus(MemoryBroker())), service="haproxy-lb", cluster="local", instance="i")
    configmap = ObjectRef(ConfigMap.resource, "seaway-edge", "x")
    knowledge = Silent("local", Class(), "node-1", configmap, configmap)
    path = Noted()
    office: Any = NoOffice()
    task = asyncio.create_task(Teller(knowledge, office, path, Intake(knowledge, path, reports), reports).run())
    try:
        path.trouble = "HAProxy is not there"
        await wait_until(lambda: "HAProxy is not there" in told)
        assert told[0] is None
        path.trouble = None
        await wait_until(lambda: told[-1] is None)
    finally:
        task.cancel()
        await asyncio.wait({task})
