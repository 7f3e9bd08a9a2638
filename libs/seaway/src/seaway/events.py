"""`seaway events`: what services said about what they did, and what went wrong."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from common.bus.protocol import Bus, Message, Start
from common.bus.streams import EVENTS
from common.codec import CodecError, decode
from common.contracts.subjects import EVENTS as ROOT
from common.contracts.subjects import decode as text_of

_QUIET: Final = 2  # signs of life without a message, after which a bus that was slow to begin has no more


@dataclass(frozen=True, slots=True)
class Said:
    """One fact."""

    time: str
    service: str
    what: str
    data: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The fact for people: a rejection as a sentence, anything else as its fields."""
        return _rejection(self.data) if self.what == "rejected" else f"{self.what}  {json.dumps(self.data, ensure_ascii=False)}"

    def line(self) -> str:
        """The fact with when and who."""
        return f"{self.time}  {self.service}  {self.sentence}"


async def facts(bus: Bus, *, watch: bool) -> AsyncIterator[Said]:
    """Every fact that the bus still holds, in order; with `watch` also those to come."""
    state = await bus.stream_state(EVENTS.name)
    if not watch and state.messages == 0:
        return
    quiet = 0
    async with bus.read(EVENTS.name, (f"{ROOT}.>",), Start(1), name="seaway-events") as reader:
        while True:
            batch = await reader.batch()
            for message in batch:
                said = read(message)
                if said is not None:
                    yield said
            quiet = 0 if batch else quiet + 1
            if not watch and (quiet == _QUIET or (batch and batch[-1].sequence >= state.last_sequence)):
                return


def read(message: Message) -> Said | None:
    """The fact that a message carries; None if it is none of ours."""
    _, _, _, service, what = message.subject.split(".", 4)
    try:
        event = decode(message.headers, message.body)
    except CodecError:
        return None
    return Said(event.time, text_of(service), text_of(what), event.data if isinstance(event.data, dict) else {})


def _rejection(data: dict[str, Any]) -> str:
    named = data.get("object", {})
    name = "/".join(part for part in (named.get("namespace"), named.get("name")) if part)
    state = "is in force again" if data.get("resolved") else "rejected"
    return f"{named.get('resource', 'object')} {name} {state}: {data.get('message', '')}"
