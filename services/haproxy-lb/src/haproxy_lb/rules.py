"""What a running HAProxy holds, the commands that change it, and what each of them does.

`Held.obey` is HAProxy's own rules as far as we use them (management.txt §9.3), written down so that a plan can be proven against them
without a HAProxy, and so that we know what HAProxy holds after each command that it took. A test holds them against the real one.

    add server       a server begins in maintenance, its checks off; its name and its number must be new in the backend
    set … state      ready, drain (no new connections but those that stick), maint (none at all); what is connected stays connected
    … frontend       disable: whoever is not let in yet is cut off, and nobody is let in until enable
    enable health    checks begin; in drain they tell how the server is while nobody is sent there
    del server       only in maintenance, and only when nobody is connected
    add map          appends, also a key that is there already: the first one is found; set map changes all of a key, del map takes all away
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeAlias

from haproxy_lb.slots import Slot

FRONTS: Final = "fronts"
SOURCES: Final = "sources"
PROXIES: Final = "proxies"
PATHS: Final = "paths"
PLAIN: Final = "plain"
TABLES: Final = (FRONTS, PATHS, PLAIN, PROXIES, SOURCES)

Table: TypeAlias = dict[str, str]


class Admin(Enum):
    """What HAProxy was told to do with a server."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class Server:
    """A server as HAProxy has it. `up`: it would get connections if it were ready. `proven`: a check has passed since checks are on.
    `checkable`: it was made with a check, whether that is on or not.
    """

    number: int
    admin: Admin = Admin.MAINT
    up: bool = False
    proven: bool = False
    checking: bool = False
    checkable: bool = True


@dataclass(frozen=True, slots=True)
class AddServer:
    """A new server; `options` are keywords of ours, never anybody's text."""

    slot: Slot
    name: str
    number: int
    where: str
    options: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What HAProxy is told."""
        return " ".join([f"add server {self.slot}/{self.name} {self.where} id {self.number}", *self.options])


@dataclass(frozen=True, slots=True)
class SetState:
    """What to do with a server from now on."""

    slot: Slot
    name: str
    admin: Admin

    @property
    def text(self) -> str:
        """What HAProxy is told."""
        return f"set server {self.slot}/{self.name} state {self.admin.value}"


@dataclass(frozen=True, slots=True)
class EnableHealth:
    """Begin to check a server."""

    slot: Slot
    name: str

    @property
    def text(self) -> str:
        """What HAProxy is told."""
        return f"enable health {self.slot}/{self.name}"


@dataclass(frozen=True, slots=True)
class EndSessions:
    """End the connections that a server still has."""

    slot: Slot
    name: str

    @property
    def text(self) -> str:
        """What HAProxy is told."""
        return f"shutdown sessions server {self.slot}/{self.name}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Stop to listen at a slot's door, or go on. Whoever had not been let in yet when it stopped is cut off; who was stays."""

    slot: Slot
    on: bool

    @property
    def text(self) -> str:
        """What HAProxy is told."""
        return f"{'enable' if self.on else 'disable'} frontend {self.slot}"


@dataclass(frozen=True, slots=True)
class DeleteServer:
    """Forget a server."""

    slot: Slot
    name: str

    @property
    def text(self) -> str:
        """What HAProxy is told."""
        return f"del server {self.slot}/{self.name}"


@dataclass(frozen=True, slots=True)
class Put:
    """An entry of a table. `new`: the key is not there yet."""

    table: str
    key: str
    value: str
    new: bool

    def line(self, file: str) -> str:
        """The command, given the file by which HAProxy names the table."""
        return f"{'add' if self.new else 'set'} map {file} {self.key} {self.value}"


@dataclass(frozen=True, slots=True)
class Drop:
    """An entry of a table goes."""

    table: str
    key: str

    def line(self, file: str) -> str:
        """The command, given the file by which HAProxy names the table."""
        return f"del map {file} {self.key}"


ServerCommand: TypeAlias = AddServer | SetState | EnableHealth | EndSessions | DeleteServer
Command: TypeAlias = ServerCommand | Listen | Put | Drop


@dataclass(slots=True)
class Held:
    """What a HAProxy holds. `slots` has each slot that there is, also the empty ones, and `tables` each table that it knows: one that
    began with an older configuration may lack some.
    """

    tables: Mapping[str, Table] = field(default_factory=lambda: {name: {} for name in TABLES})
    slots: dict[Slot, dict[str, Server]] = field(default_factory=dict)

    def obey(self, command: Command) -> str | None:
        """Does what HAProxy does with `command`; a sentence if it refuses, and nothing changes."""
        match command:
            case Put() | Drop():
                return self._table(command)
            case AddServer():
                return self._add(command)
            case Listen():
                return None if command.slot in self.slots else "there is no such frontend"
            case _:
                return self._server(command)

    def differences(self, other: "Held") -> list[str]:
        """Where the two are not the same, but for what HAProxy finds out by itself."""
        found = [f"table {name}" for name in TABLES if self.tables.get(name) != other.tables.get(name)]
        for slot in sorted(self.slots.keys() | other.slots.keys()):
            ours, theirs = (
                {name: (server.number, server.admin) for name, server in held.slots.get(slot, {}).items()} for held in (self, other)
            )
            if ours != theirs:
                found.append(f"slot {slot}")
        return found

    def _table(self, command: Put | Drop) -> str | None:
        table = self.tables[command.table]
        if isinstance(command, Drop):
            return None if table.pop(command.key, None) is not None else "there is no such key"
        if command.new and command.key in table:
            return "the key would be there twice"
        if not command.new and command.key not in table:
            return "there is no such key"
        table[command.key] = command.value
        return None

    def _add(self, command: AddServer) -> str | None:
        servers = self.slots.get(command.slot)
        if servers is None:
            return "there is no such backend"
        if command.name in servers:
            return "the name is taken"
        if any(server.number == command.number for server in servers.values()):
            return "the number is taken"
        checkable = any(option.split()[0] == "check" for option in command.options)
        servers[command.name] = Server(command.number, checkable=checkable)
        return None

    def _server(self, command: SetState | EnableHealth | EndSessions | DeleteServer) -> str | None:
        server = self.slots.get(command.slot, {}).get(command.name)
        if server is None:
            return "there is no such server"
        servers = self.slots[command.slot]
        match command:
            case SetState(admin=admin):
                # Out of maintenance a server is up at once, whatever its checks may find later.
                up = admin is not Admin.MAINT and (server.up or server.admin is Admin.MAINT)
                proven = server.proven and Admin.MAINT not in {admin, server.admin}
                servers[command.name] = replace(server, admin=admin, up=up, proven=proven)
            case EnableHealth():
                if not server.checkable:
                    return "the server has no check"
                servers[command.name] = replace(server, checking=True)
            case DeleteServer():
                if server.admin is not Admin.MAINT:
                    return "the server is not in maintenance"
                del servers[command.name]
            case EndSessions():
                pass
        return None
