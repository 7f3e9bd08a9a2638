"""Hearing: reads what stands among the wishes of a cluster.

Each is one message, read by itself: an operator may look, and follows nothing here.
"""

from common.bus.protocol import Bus
from common.bus.streams import WANTED
from common.contracts import subjects
from seaway import replica
from seaway.wished import Wished, read


async def clusters(bus: Bus, service: str) -> list[str]:
    """The clusters in which a service has wished for anything, sorted."""
    found = await bus.subjects(WANTED.name, f"{subjects.WANTED}.*.{subjects.encode(service)}.>")
    return sorted({subjects.decode(subject.split(".")[2]) for subject in found})


async def hear(bus: Bus, cluster: str) -> Wished:
    """What stands there now."""
    found = sorted(await bus.subjects(WANTED.name, f"{subjects.WANTED}.{subjects.encode(cluster)}.>"))
    messages = [last for subject in found if (last := await bus.get_last(WANTED.name, subject)) is not None]
    return read(messages, replica.now())
