"""The verbs of a bus: storing, reading back, and refusing, the same everywhere."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from common.bus.protocol import (
    HEADER_KV_OPERATION,
    HEADER_MESSAGE_ID,
    HEADER_TTL,
    Bus,
    Conflict,
    Full,
    Message,
    Reader,
    Start,
    StreamMissing,
    TooLarge,
    Unavailable,
)
from common.bus.streams import ALL, STATE, ensure_streams
from common.testing import wait_until
from tests.bus.conftest import Backend
from tests.bus.helpers import EVERYTHING, answered, bury, log_for, made, put, subject


@pytest.fixture
async def log(backend: Backend, bus: Bus) -> Bus:
    await made(bus, log_for(backend.replicas))
    return bus


def test_both_implementations_have_all_verbs(bus: Bus) -> None:
    assert isinstance(bus, Bus)


async def test_a_stored_message_is_read_back_as_it_was(log: Bus) -> None:
    headers = {"ce-id": "1", "ce-subject": "ns/näme"}
    stored = await log.publish(subject("a"), b"\x00body", headers)
    last = await log.get_last("LOG", subject("a"))
    assert last is not None
    assert (last.subject, last.body, last.sequence, last.gone) == (subject("a"), b"\x00body", stored.sequence, False)
    assert headers.items() <= last.headers.items()
    assert await log.get("LOG", stored.sequence) == last
    async with log.read("LOG", EVERYTHING, Start(), name="again") as reader:
        [read] = await _read(reader, 1)
        assert replace(read, time=last.time) == last
        assert read.time == pytest.approx(last.time)


async def test_only_the_newest_message_of_a_subject_stays(log: Bus) -> None:
    first = await put(log, "a", "1")
    await put(log, "a", "2")
    assert await log.get("LOG", first) is None
    assert await log.subjects("LOG", EVERYTHING[0]) == {subject("a"): 1}


async def test_a_write_that_expects_another_sequence_is_refused(log: Bus) -> None:
    stored = await log.publish(subject("a"), b"1", {}, expected_last=0)
    with pytest.raises(Conflict):
        await log.publish(subject("a"), b"2", {}, expected_last=0)
    with pytest.raises(Conflict):
        await log.publish(subject("b"), b"2", {}, expected_last=stored.sequence)
    await log.publish(subject("a"), b"3", {}, expected_last=stored.sequence)


async def test_of_many_writes_that_expect_the_same_only_one_is_stored(log: Bus) -> None:
    writes = (log.publish(subject("a"), str(n).encode(), {}, expected_last=0) for n in range(20))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 19


async def test_a_repeated_message_id_is_stored_once(log: Bus) -> None:
    stored = await log.publish(subject("a"), b"1", {HEADER_MESSAGE_ID: "x"})
    again = await log.publish(subject("a"), b"1", {HEADER_MESSAGE_ID: "x"})
    assert (again.sequence, again.duplicate) == (stored.sequence, True)


async def test_a_tombstone_goes_away_after_its_time(log: Bus) -> None:
    await put(log, "kept", "1")
    await bury(log, "a", ttl=1)
    last = await log.get_last("LOG", subject("a"))
    assert last is not None
    assert last.gone

    async def forgotten() -> bool:
        return await log.get_last("LOG", subject("a")) is None

    await wait_until(forgotten)
    assert set(await log.subjects("LOG", EVERYTHING[0])) == {subject("kept")}
    await log.publish(subject("a"), b"again", {}, expected_last=0)


async def test_a_full_stream_refuses_and_keeps_what_it_has(backend: Backend, bus: Bus) -> None:
    await made(bus, log_for(backend.replicas, max_bytes=20_000))
    stored = [await bus.publish(subject(number), b"x" * 1000, {}) for number in range(15)]
    assert len(stored) == 15
    with pytest.raises(Full):
        await bus.publish(subject("large"), b"x" * 10_000, {})
    assert await bus.get_last("LOG", subject(0)) is not None


async def test_a_stream_of_reports_drops_its_oldest_when_full(backend: Backend, bus: Bus) -> None:
    await made(bus, log_for(backend.replicas, max_bytes=20_000, discard="old"))
    for number in range(30):
        await bus.publish(subject(number), b"x" * 1000, {})
    assert await bus.get_last("LOG", subject(0)) is None
    assert await bus.get_last("LOG", subject(29)) is not None


async def test_a_message_above_the_limit_is_refused_and_the_connection_lives_on(log: Bus) -> None:
    with pytest.raises(TooLarge):
        await log.publish(subject("a"), b"x" * (4 * 1024 * 1024 + 1), {})
    await put(log, "a", "small")


async def test_what_max_payload_promises_is_taken(log: Bus) -> None:
    await log.publish(subject("a"), b"x" * log.max_payload, {"ce-subject": "y" * 2000})
    async with log.read("LOG", EVERYTHING, Start(), name="large") as reader:
        [message] = await _read(reader, 1)
        assert len(message.body) == log.max_payload


async def test_a_missing_stream_is_named(bus: Bus) -> None:
    with pytest.raises(StreamMissing, match="NOWHERE"):
        await bus.stream_state("NOWHERE")
    with pytest.raises(StreamMissing):
        async with bus.read("NOWHERE", EVERYTHING, Start(), name="nobody"):
            pass
    with pytest.raises(Unavailable, match=r"nowhere\.x"):
        await bus.publish("nowhere.x", b"", {})


async def test_ensuring_a_stream_mends_what_drifted_and_keeps_its_messages(backend: Backend, bus: Bus) -> None:
    before = await made(bus, log_for(backend.replicas, max_bytes=1_000_000))
    await put(bus, "a", "1")
    after = await made(bus, log_for(backend.replicas, max_bytes=2_000_000, description="larger"))
    assert (after.created, after.messages, after.config.max_bytes) == (before.created, 1, 2_000_000)
    assert after.config.description == "larger"


async def test_a_stream_made_anew_has_another_incarnation(backend: Backend, log: Bus) -> None:
    await put(log, "a", "1")
    before = await log.stream_state("LOG")
    await backend.lose("LOG")
    after = await made(log, log_for(backend.replicas))
    assert after.created != before.created
    assert (after.last_sequence, after.messages) == (0, 0)


async def test_all_streams_are_made_as_defined_and_nothing_is_left_to_mend(backend: Backend, bus: Bus) -> None:
    states = await answered(lambda: ensure_streams(bus, backend.replicas))
    assert {name: state.config for name, state in states.items()} == {c.name: replace(c, replicas=backend.replicas) for c in ALL}
    again = await answered(lambda: ensure_streams(bus, backend.replicas))
    assert {state.created for state in again.values()} == {state.created for state in states.values()}
    assert states[STATE.name].config.discard == "new"


async def test_a_deleted_message_is_gone_and_deleting_it_again_is_no_error(log: Bus) -> None:
    sequence = await put(log, "a", "1")
    await log.delete("LOG", sequence)
    await log.delete("LOG", sequence)
    assert await log.get("LOG", sequence) is None
    assert await log.subjects("LOG", EVERYTHING[0]) == {}


async def test_a_reader_continues_at_a_sequence(log: Bus) -> None:
    sequences = [await put(log, number, "x") for number in range(10)]
    async with log.read("LOG", EVERYTHING, Start(sequences[7]), name="tail") as reader:
        assert [message.sequence for message in await _read(reader, 3)] == sequences[7:]
        assert reader.behind == 0


async def test_a_quiet_reader_gives_signs_of_life(log: Bus) -> None:
    async with log.read("LOG", EVERYTHING, Start(), name="quiet") as reader:
        assert await reader.batch() == []


async def test_a_reader_of_a_removed_stream_is_lost(backend: Backend, log: Bus) -> None:
    async with log.read("LOG", EVERYTHING, Start(), name="lost") as reader:
        await backend.lose("LOG")
        with pytest.raises(Unavailable):
            await _read(reader, 1000)


async def test_a_reader_of_a_lost_connection_is_lost(backend: Backend, log: Bus) -> None:
    async with log.read("LOG", EVERYTHING, Start(), name="lost") as reader:
        await put(log, "a", "1")
        await backend.interrupt()
        with pytest.raises(Unavailable):
            await _read(reader, 1000)


async def test_a_server_marker_counts_as_a_tombstone(log: Bus) -> None:
    for operation, expected in (("PURGE", True), ("DEL", True), ("PUT", False)):
        await log.publish(subject(operation), b"", {HEADER_KV_OPERATION: operation, HEADER_TTL: "60"})
        last = await log.get_last("LOG", subject(operation))
        assert last is not None
        assert last.gone is expected


async def _read(reader: Reader, count: int) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        messages += await reader.batch()
    return messages


async def test_a_task_that_outlived_a_failed_group_can_still_use_the_bus(log: Bus) -> None:
    """Before Python 3.13 such a task counts as being cancelled (`Task.cancelling`) for the rest of its life."""

    async def fail() -> None:
        raise Conflict("on purpose")

    async def outlive() -> int:
        with contextlib.suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        return await put(log, "a", "1")

    assert await asyncio.create_task(outlive()) == 1
