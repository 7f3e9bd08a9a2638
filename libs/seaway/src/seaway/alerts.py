"""`seaway alerts`: what an operator should act on now."""

from typing import Final

from pydantic import ValidationError

from common.bus.protocol import Bus, Message, Start
from common.bus.streams import ALERTS
from common.codec import CodecError, decode
from common.contracts.facts import Alert
from common.contracts.subjects import ALERTS as ROOT

_QUIET: Final = 2  # signs of life without a message, after which a bus that was slow to begin has no more


async def firing(bus: Bus) -> list[Alert]:
    """The alerts that nobody has resolved, the oldest first."""
    state = await bus.stream_state(ALERTS.name)
    found: dict[tuple[str, str, str], Alert] = {}
    quiet = 0
    if state.messages == 0:
        return []
    async with bus.read(ALERTS.name, (f"{ROOT}.>",), Start(1), name="seaway-alerts") as reader:
        while quiet < _QUIET:
            batch = await reader.batch()
            for message in batch:
                _take(found, message)
            if batch and batch[-1].sequence >= state.last_sequence:
                break
            quiet = 0 if batch else quiet + 1
    return sorted(found.values(), key=lambda alert: (alert.since, alert.service, alert.name))


def _take(found: dict[tuple[str, str, str], Alert], message: Message) -> None:
    try:
        alert = Alert.model_validate(decode(message.headers, message.body).data)
    except (CodecError, ValidationError):
        return
    key = alert.service, alert.name, alert.instance
    if alert.status == "firing":
        found[key] = alert
    else:
        found.pop(key, None)
