"""Pulls from a consumer of which a server has not heard: it was just made, or it is none."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.bus import pull as pulling
from common.bus import wire
from common.bus.nats import NatsBus, connect
from common.bus.protocol import Unavailable
from common.bus.pull import Pull, job_pull, reader_pull
from common.bus.settings import BusSettings
from common.testing import wait_until
from common.testing.nats import nats_server
from tests.bus.helpers import EVERYTHING, log_for, made, put


@pytest.fixture
async def log() -> AsyncIterator[NatsBus]:
    async with nats_server() as server:
        bus = await connect(BusSettings(url=server.url, heartbeat=0.5))
        await made(bus, log_for(1))
        await put(bus, "a", "1")
        yield bus
        await bus.close()


def asked_for(consumer: str) -> dict[str, Any]:
    config = wire.reader_json(consumer, EVERYTHING, 1, headers_only=False, inactive=60)
    return {"stream_name": "LOG", "action": "create", "config": config}


async def first(pull: Pull) -> bytes:
    """The first message, however long the server says nothing of it."""
    while True:
        for message in await pull.take():
            return message.data


async def test_a_consumer_of_which_a_server_has_not_heard_yet_is_asked_again(log: NatsBus) -> None:
    pull = reader_pull(log._link, "LOG", "late")
    async with pull.opened(), asyncio.TaskGroup() as group:
        reading = group.create_task(first(pull))
        await wait_until(lambda: pull._unknown)
        await log._api("CONSUMER.CREATE.LOG.late", asked_for("late"))
        assert await reading == b"1"


async def test_a_consumer_that_is_none_is_told_after_a_moment(log: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "_TOLD", 0.2)
    pull = reader_pull(log._link, "LOG", "nobody")
    async with pull.opened():
        with pytest.raises(Unavailable, match=r"nobody answers at .*LOG\.nobody"):
            await asyncio.wait_for(first(pull), 10)


async def test_a_consumer_that_has_answered_and_is_gone_is_told_at_once(log: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "_TOLD", 3600)
    await log._api("CONSUMER.CREATE.LOG.gone", asked_for("gone"))
    pull = job_pull(log._link, "LOG", "gone")
    async with pull.opened():
        assert await first(pull) == b"1"
        await log._api("CONSUMER.DELETE.LOG.gone")
        with pytest.raises(Unavailable, match="nobody answers"):
            await asyncio.wait_for(first(pull), 10)
