"""Reports: each change of a state is told once, whatever the bus can take at a time."""

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker
from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from common.runtime.reports import Reports

MOST = 10


def reporter() -> tuple[Reports, FactPublisher]:
    publisher = FactPublisher(MemoryBroker().connect(), most=MOST)
    return Reports(publisher, service="edge", cluster="local", instance="one"), publisher


def problem(name: str, reason: str = "Bad") -> Problem:
    return Problem(ObjectRef(Ingress.resource, "shop", name), reason, f"{name} is {reason}")


def said(publisher: FactPublisher) -> int:
    return MOST - publisher.room


async def test_a_problem_is_told_when_it_is_new_and_when_it_is_over() -> None:
    reports, publisher = reporter()
    for now, facts in (([problem("a")], 1), ([problem("a")], 1), ([], 2), ([], 2)):
        assert reports.problems(now)
        assert said(publisher) == facts


async def test_a_problem_that_gives_way_to_another_of_its_object_is_not_called_mended() -> None:
    reports, publisher = reporter()
    reports.problems([problem("a", "Bad")])
    reports.problems([problem("a", "Worse")])
    assert said(publisher) == 2


async def test_what_finds_no_room_is_told_later_and_nothing_is_lost() -> None:
    reports, publisher = reporter()
    now = [problem(f"p{number}") for number in range(7)]
    assert not reports.problems(now)
    assert said(publisher) == MOST // 2
    publisher._waiting.clear()
    assert reports.problems(now)
    assert said(publisher) == 2
    assert publisher.lost == 0


async def test_what_another_may_have_raised_in_the_name_of_all_is_ended_and_what_is_firing_is_not() -> None:
    reports, publisher = reporter()
    reports.over("Down", "critical")
    assert said(publisher) == 1
    reports.alert("Down", "critical", "it is down")
    reports.over("Down", "critical")
    assert said(publisher) == 2


async def test_another_voice_has_alerts_of_its_own() -> None:
    reports, publisher = reporter()
    both = reports.of("all")
    reports.alert("Down", "critical", "one is down")
    both.alert("Down", "critical", "all are down")
    reports.alert("Down", "critical", None)
    both.alert("Down", "critical", "all are down")
    assert said(publisher) == 3
