"""Runtime: HAProxy's command line over its socket, one connection, one question at a time.

HAProxy answers each line with a text and a prompt (management.txt §9.3), so many commands go out together and each gets its own answer.
With `severity-output number` an answer begins with how bad it is: `[3]` is an error, `[6]` is news. Whatever goes wrong is `Lost`, and
then nobody knows what HAProxy holds until it is read back.

A reload leaves the process that we talk to alive for as long as it has connections. It says then that it is stopping, and is left.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from haproxy_lb.rules import TABLES, Admin, Command, Drop, Held, Put, Server, Table
from haproxy_lb.slots import Slot, parse

_PROMPT: Final = b"\n> "
_TOGETHER: Final = 200  # commands before answers are awaited: HAProxy serves connections between two of them
_SEVERITY: Final = re.compile(r"\[(\d)\]: (.*)", re.DOTALL)
_NEWS: Final = 5
_NO_TABLE: Final = "[3]: Unknown map identifier"
_PASSED: Final = 3  # CHK_RES_PASSED
_CONFIGURED: Final = 2  # CHK_ST_CONFIGURED
_ENABLED: Final = 4  # CHK_ST_ENABLED
_DRAIN: Final = 0x18  # SRV_ADMF_DRAIN
_MAINT: Final = 0x23  # SRV_ADMF_MAINT
_LONGEST: Final = 64 * 1024 * 1024


class Lost(Exception):
    """HAProxy does not answer, or not as it should."""


class Away(Lost):
    """Nobody listens where HAProxy should, or nobody answers there."""


@dataclass(frozen=True, slots=True)
class Process:
    """The process that answers: its number, the configuration that it runs with, whether another one has taken its place, and whether its
    slots have doors: one that began with an older configuration has none.
    """

    pid: int
    fingerprint: str
    version: str
    stopping: bool
    doors: bool = True


class _Connection(asyncio.StreamReaderProtocol):
    """Says when HAProxy ends the connection, whoever reads from it or not."""

    def __init__(self, reader: asyncio.StreamReader, ended: Callable[[], None]) -> None:
        super().__init__(reader)
        self._ended = ended

    def eof_received(self) -> bool:
        """See asyncio.Protocol. One who says no more does not listen either: the connection ends."""
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._ended()


class Runtime:
    """A connection to the socket at `path`, made when it is needed. `tables` is the directory by which HAProxy knows its maps. `gone` is
    called when HAProxy ends the connection, as it does when it dies.
    """

    def __init__(self, path: Path, tables: str, deadline: float = 10.0) -> None:
        self.commands = 0
        self.gone: Callable[[], None] = lambda: None
        self._path = path
        self._tables = tables
        self._deadline = deadline
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def process(self) -> Process:
        """Who answers."""
        (text,) = await self.ask(["show info"])
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        try:
            fingerprint, _, more = fields.get("description", "").partition(" ")
            return Process(int(fields["Pid"]), fingerprint, fields["Version"], fields["Stopping"] != "0", more == "doors")
        except (KeyError, ValueError) as error:
            raise Lost(f"HAProxy's answer to `show info` lacks {error}") from error

    async def held(self) -> Held:
        """All that HAProxy holds."""
        names, state, *tables = await self.ask(
            ["show backend", "show servers state", *(f"show map {self._file(name)}" for name in TABLES)]
        )
        known = {name: _table(text) for name, text in zip(TABLES, tables, strict=True) if not text.startswith(_NO_TABLE)}
        held = Held(known)
        held.slots.update({Slot(name): {} for name in names.split() if parse(name)})
        for slot, name, server in servers(state):
            held.slots.setdefault(slot, {})[name] = server
        return held

    async def look(self, slots: Sequence[Slot]) -> list[tuple[Slot, str, Server]]:
        """The servers of some slots, as they are now."""
        answers = await self.ask([f"show servers state {slot}" for slot in slots])
        return [found for answer in answers for found in servers(answer)]

    async def give(self, commands: Sequence[Command]) -> list[str | None]:
        """Gives commands. For each, None or HAProxy's words why not."""
        lines = [one.line(self._file(one.table)) if isinstance(one, Put | Drop) else one.text for one in commands]
        return [refusal(answer) for answer in await self.ask(lines)]

    async def ask(self, lines: Sequence[str]) -> list[str]:
        """The answers to commands, in their order. Raises Lost."""
        answers: list[str] = []
        try:
            for first in range(0, len(lines), _TOGETHER):
                async with asyncio.timeout(self._deadline):
                    answers += await self._ask(lines[first : first + _TOGETHER])
        except TimeoutError as error:
            self.close()
            raise Away(f"HAProxy does not answer on {self._path} within {self._deadline:g} s") from error
        except (ConnectionRefusedError, FileNotFoundError) as error:
            self.close()
            raise Away(f"HAProxy is not there on {self._path}: {error}") from error
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Lost(f"HAProxy is not there on {self._path}: {error}") from error
        except BaseException:
            self.close()  # an answer that nobody awaits would be taken for that to the next question
            raise
        return answers

    def close(self) -> None:
        """Ends the connection; the next question makes another."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def _ask(self, lines: Sequence[str]) -> list[str]:
        reader, writer = self._streams or await self._connect()
        self.commands += len(lines)
        writer.write("".join(f"{line}\n" for line in lines).encode())
        return [await self._answer(reader) for _ in lines]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LONGEST, loop=loop)
        transport, protocol = await loop.create_unix_connection(lambda: _Connection(reader, self._over), str(self._path))
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._streams = reader, writer
        writer.write(b"prompt\nset severity-output number\n")
        for _ in range(2):
            await self._answer(reader)
        return reader, writer

    def _over(self) -> None:
        if self._streams is not None and self._streams[1].is_closing():  # and not by us
            self.gone()

    async def _answer(self, reader: asyncio.StreamReader) -> str:
        return (await reader.readuntil(_PROMPT))[: -len(_PROMPT)].decode(errors="replace").strip()

    def _file(self, table: str) -> str:
        return f"{self._tables}/{table}.map"


def refusal(answer: str) -> str | None:
    """HAProxy's words if it did not do as told. News has a severity of 6; what it does without a word, it did."""
    found = _SEVERITY.match(answer)
    if found is None:
        return answer or None
    return None if int(found[1]) >= _NEWS else found[2]


def servers(state: str) -> Iterator[tuple[Slot, str, Server]]:
    """The servers that `show servers state` tells of (management.txt §9.3 has the columns). Raises Lost if it is not as it should be."""
    try:
        version, head, *lines = state.splitlines()
        if version != "1":
            raise Lost(f"HAProxy tells of servers in version {version!r} of its format; this program reads version 1")
        at = {name: number for number, name in enumerate(head.lstrip("# ").split())}
        for line in lines:
            fields = line.split()
            if parse(fields[at["be_name"]]) is not None:
                yield Slot(fields[at["be_name"]]), fields[at["srv_name"]], _server(fields, at)
    except (ValueError, KeyError, IndexError) as error:
        raise Lost(f"HAProxy's answer to `show servers state` cannot be read: {error!r}") from error


def _server(fields: Sequence[str], at: Mapping[str, int]) -> Server:
    admin = int(fields[at["srv_admin_state"]])
    return Server(
        number=int(fields[at["srv_id"]]),
        admin=Admin.MAINT if admin & _MAINT else Admin.DRAIN if admin & _DRAIN else Admin.READY,
        up=fields[at["srv_op_state"]] != "0",
        proven=fields[at["srv_op_state"]] != "0" and int(fields[at["srv_check_result"]]) == _PASSED,
        checking=bool(int(fields[at["srv_check_state"]]) & _ENABLED),
        checkable=bool(int(fields[at["srv_check_state"]]) & _CONFIGURED),
    )


def _table(text: str) -> Table:
    """What `show map` tells: a reference, the key, the value. Of a key that is there twice the first is in force."""
    found: Table = {}
    for line in text.splitlines():
        reference, key, value = [*line.split(" ", 2), "", ""][:3]
        if not reference.startswith("0x"):
            raise Lost(f"HAProxy's answer to `show map` cannot be read: {line[:200]}")
        found.setdefault(key, value)
    return found
