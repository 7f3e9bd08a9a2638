"""When a stand-by Service takes over: as a function of objects, and of what an edge saw over time."""

import asyncio
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.messages import message

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.objects import config_map, endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer.admin import Admin
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.derive.emergency import EVERYTHING
from nginx_config_renderer.emergencies import Emergencies
from nginx_config_renderer.judge import FEWEST, Count, State, judge, reasons
from nginx_config_renderer.model import BackendKey, Emergency, IngressKey
from nginx_config_renderer.resolved import resolved
from nginx_config_renderer.wanted import Wanted

HOST = "shop.example"
SWITCHES = ObjectRef(ConfigMap.resource, "edge", "failover")
SHOP = IngressKey("default", "shop")
WEB, API = BackendKey("default", "web", "80"), BackendKey("default", "api", "80")


def shop(mode: str = "manual", **more: str) -> dict[str, Any]:
    annotations = {"seaway.dev/emergency-service": "spare", "seaway.dev/emergency-mode": mode} | more
    return ingress("shop", rule(HOST, "/", "web:80"), rule(HOST, "/api", "api:80"), annotations=annotations)


class World:
    """Objects, as a renderer has them."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.wanted = Wanted("local", Class(), switches=SWITCHES)
        self._sequence = itertools.count(1)
        self.put(ingress_class(), service("web"), service("api"), service("spare"), *objects)

    def put(self, *objects: dict[str, Any]) -> None:
        self.wanted.change([message(raw, next(self._sequence)) for raw in objects])

    def live(self, *names: str) -> None:
        self.put(*(endpoint_slice(name, "10.0.0.1", port=8080) for name in names))

    def dead(self, *names: str) -> None:
        self.put(*(endpoint_slice(name, port=8080) for name in names))

    def switch(self, **switches: str) -> None:
        self.put(config_map("failover", {key.replace("__", "."): value for key, value in switches.items()}, "edge"))

    @property
    def routes(self) -> dict[str, str]:
        entry = json.loads(self.wanted.entries["hosts", HOST])
        return {path: route[0] for path, route in entry["p"].items()}

    @property
    def told(self) -> list[str]:
        return [problem.message for problem in self.wanted.problems if "mergency" in problem.reason]


def test_an_operators_switch_sends_everything_to_the_stand_by_and_back() -> None:
    world = World(shop())
    world.live("web", "api", "spare")
    before = world.routes
    world.switch(default__shop=json.dumps({"reason": "db moves", "by": "ann"}))
    assert world.routes == {"": "default/spare:80", "/api": "default/spare:80"}
    assert world.told == ["requests for default/api:80, default/web:80 go to the stand-by Service spare: switched by ann: db moves"]
    world.switch()
    assert world.routes == before
    assert world.told == []


def test_a_switch_holds_even_where_the_stand_by_has_no_endpoint_and_whatever_its_text_is() -> None:
    world = World(shop())
    world.live("web", "api")
    world.switch(default__shop="[", default__other="x")
    assert set(world.routes.values()) == {"default/spare:80"}
    assert "switched by an operator: [" in world.told[0]


def test_a_switch_of_an_ingress_without_a_stand_by_is_told() -> None:
    world = World(ingress("shop", rule(HOST, "/", "web:80")))
    world.switch(default__shop="{}")
    assert world.routes == {"": "default/web:80"}
    (told,) = world.told
    assert told.startswith("it was switched, and names no stand-by Service; annotate it with seaway.dev/emergency-service, or ")


def test_by_itself_a_backend_without_endpoints_gives_way_and_the_others_stay() -> None:
    world = World(shop("auto"))
    world.live("web", "api", "spare")
    world.dead("api")
    assert world.routes == {"": "default/web:80", "/api": "default/spare:80"}
    assert world.told == ["requests for default/api:80 go to the stand-by Service spare: Service default/api has no ready endpoint"]
    assert world.wanted.standings[SHOP].unready == (API,)
    world.live("api")
    assert world.routes == {"": "default/web:80", "/api": "default/api:80"}


def test_nothing_goes_by_itself_to_a_stand_by_without_endpoints_nor_in_manual_mode() -> None:
    world = World(shop("auto"))
    world.live("web")
    world.dead("api")
    assert world.routes["/api"] == "default/api:80"
    manual = World(shop())
    manual.live("web", "spare")
    assert manual.routes["/api"] == "default/api:80"


def test_a_name_that_nobody_has_looked_up_yet_is_no_reason_to_go_to_the_stand_by() -> None:
    world = World(shop("auto"))
    world.live("web", "api", "spare")
    api = service("api")
    api["spec"] |= {"type": "ExternalName", "externalName": "api.example.org"}
    world.put(api)
    unheard = resolved("api.example.org", problem="no name server answers", known=False)
    for found in (None, unheard):
        if found is not None:
            world.wanted.resolve(found)
        assert world.routes["/api"] == "default/api:80"
        assert world.wanted.standings[SHOP].unready == ()
    world.wanted.resolve(resolved("api.example.org", problem="it does not exist"))
    assert world.routes == {"": "default/web:80", "/api": "default/spare:80"}
    assert world.wanted.standings[SHOP].unready == (API,)


async def test_a_bus_that_is_lost_and_filled_again_by_and_by_sends_nothing_to_a_stand_by() -> None:
    world = World(shop("auto"))
    world.live("web", "api", "spare")
    complete = False
    looks = 0

    class Whom:
        def trip(self, key: IngressKey, reasons: Mapping[str, str]) -> None:
            world.wanted.trip(key, reasons)

    def is_complete() -> bool:
        nonlocal looks
        looks += 1
        return complete

    async def look() -> None:
        before = looks
        await wait_until(lambda: looks > before + 2)

    reports = Reports(FactPublisher(MemoryBus(MemoryBroker())), service="renderer", cluster="local", instance="one")
    watch = Emergencies(lambda: world.wanted.standings, Whom(), Admin(Path()), reports, complete=is_complete, look=0)
    running = asyncio.create_task(watch.run())
    world.dead("web", "api")
    await look()
    world.live("web", "api")
    complete = True
    await look()
    assert world.wanted.standings[SHOP].diverted == ()
    world.dead("web")
    await look()
    world.live("web")
    assert world.routes == {"": "default/spare:80", "/api": "default/api:80"}, "what is known to be so is acted on"
    running.cancel()


def test_what_an_edge_found_out_holds_for_one_backend_or_for_all() -> None:
    world = World(shop("auto"))
    world.live("web", "api", "spare")
    world.wanted.trip(SHOP, {str(WEB): "it was away"})
    assert world.routes == {"": "default/spare:80", "/api": "default/api:80"}
    world.wanted.trip(SHOP, {EVERYTHING: "9 of 10 requests failed"})
    assert set(world.routes.values()) == {"default/spare:80"}
    world.wanted.trip(SHOP, {})
    assert world.routes == {"": "default/web:80", "/api": "default/api:80"}


def test_a_stand_by_with_a_port_of_its_own_and_one_that_is_missing() -> None:
    annotations = {"seaway.dev/emergency-service": "spare:9000"}
    world = World(ingress("shop", rule(HOST, "/", "web:80"), annotations=annotations))
    assert ("backends", "default/spare:9000") in world.wanted.entries
    assert any("Service default/spare has no port 9000" in problem.message for problem in world.wanted.problems)


@pytest.mark.parametrize("value", ["", "a b", "other/spare", "spare:", "spare:80:1", "Spare"])
def test_a_stand_by_that_cannot_be_is_told_and_stands_for_nothing(value: str) -> None:
    world = World(ingress("shop", rule(HOST, "/", "web:80"), annotations={"seaway.dev/emergency-service": value}))
    assert any("write the name of a Service of the same namespace" in problem.message for problem in world.wanted.problems)
    assert world.wanted.standings == {}


# ---- what has to do with time

AUTO = Emergency("spare", auto=True, threshold=50, window=30, hold=60)


def judged(state: State, now: float, *, unready: tuple[str, ...] = (), requests: int = 0, failures: int = 0) -> State:
    return judge(state, AUTO, unready, Count(now, requests, failures), now)


def test_a_backend_that_lost_its_endpoints_must_be_ready_for_a_while_without_a_break() -> None:
    state = judged(State(), 0, unready=("a/web:80",))
    assert reasons(state, EVERYTHING) == {"a/web:80": "Service a/web has no ready endpoint"}
    state = judged(state, 10)
    assert "is watched for a while" in reasons(state, EVERYTHING)["a/web:80"]
    state = judged(state, 60, unready=("a/web:80",))
    state = judged(state, 70)
    assert reasons(judged(state, 129), EVERYTHING)
    assert reasons(judged(state, 130), EVERYTHING) == {}


def test_a_backend_that_is_ready_since_the_clock_began_is_watched_too() -> None:
    state = judged(judged(State(), -1, unready=("a/web:80",)), 0)
    assert "is watched for a while" in reasons(state, EVERYTHING)["a/web:80"]


def test_too_many_failures_pause_it_and_each_time_longer() -> None:
    state = judged(State(), 0)
    state = judged(state, 10, requests=100, failures=50)
    assert reasons(state, EVERYTHING) == {EVERYTHING: "50 of 100 requests failed within 10 s"}
    state = judged(state, 69, requests=200, failures=50)
    assert state.pause is not None
    state = judged(state, 70, requests=200, failures=50)
    assert reasons(state, EVERYTHING) == {}
    state = judged(state, 71, requests=200, failures=50)
    state = judged(state, 80, requests=300, failures=150)
    assert state.pause is not None
    assert state.pause.length == 2 * AUTO.hold


def test_failures_long_after_the_last_pause_begin_with_a_short_one() -> None:
    state = judged(judged(State(), 0), 10, requests=100, failures=100)
    state = judged(state, 70, requests=100, failures=100)
    for now in range(71, 400, 10):
        state = judged(state, now, requests=100 + now, failures=100)
    state = judged(state, 401, requests=1000, failures=900)
    assert state.pause is not None
    assert state.pause.length == AUTO.hold


@pytest.mark.parametrize(("requests", "failures"), [(FEWEST - 1, FEWEST - 1), (100, 49)])
def test_few_requests_and_few_failures_say_nothing(requests: int, failures: int) -> None:
    state = judged(judged(State(), 0), 10, requests=requests, failures=failures)
    assert reasons(state, EVERYTHING) == {}


def test_only_the_window_counts_and_counters_that_begin_anew_are_no_failures() -> None:
    state = judged(State(), 0, requests=1000, failures=900)
    state = judged(state, 31, requests=2000, failures=900)
    assert len(state.counts) == 1
    state = judged(state, 32, requests=5, failures=1)
    assert reasons(state, EVERYTHING) == {}
    assert len(state.counts) == 1


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.integers(0, 100), st.integers(0, 100)), max_size=40))
def test_whatever_happens_memory_is_bounded_and_rest_brings_everything_back(seen: list[tuple[int, bool, int, int]]) -> None:
    state, now, requests, failures = State(), 0.0, 0, 0
    for pause, lost, more, failed in seen:
        now += pause
        requests, failures = requests + more, failures + min(more, failed)
        state = judged(state, now, unready=("a/web:80",) if lost else (), requests=requests, failures=failures)
        assert len(state.counts) <= AUTO.window + 1
        assert state.pause is None or state.pause.until >= now
    for _ in range(3):
        now += 33 * AUTO.hold
        state = judged(state, now, requests=requests, failures=failures)
    assert reasons(state, EVERYTHING) == {}
