"""Questions: everybody who answers is heard, and who asks is told when nobody does."""

import asyncio

import pytest

from common.bus.protocol import Bus, Unavailable
from common.testing import wait_until
from tests.bus.conftest import Backend

ABOUT = "ask.v1.t.edge.explain"


async def _answers(bus: Bus, body: bytes, within: float = 3) -> list[bytes]:
    return sorted(await bus.ask(ABOUT, body, within=within, grace=0.3))


async def test_everybody_who_answers_is_heard(backend: Backend, bus: Bus) -> None:
    async def first(body: bytes) -> bytes:
        return b"first " + body

    async def second(body: bytes) -> bytes:
        return b"second " + body

    async with (await backend.connect()).answering(ABOUT, first), (await backend.connect()).answering(ABOUT, second):

        async def both() -> bool:
            return await _answers(bus, b"why") == [b"first why", b"second why"]

        await wait_until(both)


async def test_who_asks_nobody_is_told_at_once(bus: Bus) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="nobody answers"):
        await bus.ask(ABOUT, b"why", within=60, grace=0)
    assert asyncio.get_running_loop().time() - began < 30


async def test_a_question_that_is_not_answered_in_time_is_given_up(backend: Backend, bus: Bus) -> None:
    async def never(body: bytes) -> bytes:
        await asyncio.Event().wait()
        return body

    async with (await backend.connect()).answering(ABOUT, never):

        async def given_up() -> bool:
            with pytest.raises(Unavailable) as error:
                await bus.ask(ABOUT, b"why", within=0.3, grace=0)
            return "nobody answered" in str(error.value)

        await wait_until(given_up)


async def test_one_question_is_answered_after_the_other(backend: Backend, bus: Bus) -> None:
    async def echo(body: bytes) -> bytes:
        await asyncio.sleep(0)
        return body

    async with (await backend.connect()).answering(ABOUT, echo):

        async def heard() -> bool:
            try:
                return await _answers(bus, b"0") == [b"0"]
            except Unavailable:
                return False

        await wait_until(heard)
        said = await asyncio.gather(*(_answers(bus, str(number).encode(), 10) for number in range(20)))
    assert said == [[str(number).encode()] for number in range(20)]
