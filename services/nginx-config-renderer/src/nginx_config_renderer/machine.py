"""Machine: what the kernel permits, held against what an edge needs. Pure.

What is too low shows as connections that are refused, or wait, at the worst moment; so it is said at the start, with the value to set.

| what | at least | since |
|---|---|---|
| net.core.somaxconn | the backlog of our listeners | listen(2): a longer backlog is cut to it without a word |
| net.ipv4.ip_local_port_range | a port for each connection of all workers to one endpoint, 28 000 at most | ip(7) |
| net.ipv4.tcp_max_syn_backlog | 1024, unless there are SYN cookies | tcp(7) |
| open files of a process | two for each connection of a worker: the client's, and the one to the backend | getrlimit(2) |
"""

from collections.abc import Callable, Iterator
from typing import Final

BACKLOG: Final = 4096  # as templates/nginx.conf.j2 has it
_PORTS: Final = 28_000  # what Linux has by itself
_FIRST_PORT: Final = 1024
_LAST_PORT: Final = 65535
_SYN_BACKLOG: Final = 1024

Read = Callable[[str], str | None]


def too_low(read: Read, *, open_files: int, connections: int, workers: int) -> tuple[str, ...]:
    """A sentence for each limit that is too low. `read` gives the text of a sysctl, or None where this kernel has none."""
    return (
        *_accepting(read),
        *_connecting(read, min(_PORTS, workers * connections)),
        *_files(open_files, 2 * connections),
    )


def _accepting(read: Read) -> Iterator[str]:
    most = _number(read("net.core.somaxconn"))
    if most is not None and most < BACKLOG:
        yield _set("net.core.somaxconn", most, BACKLOG, "where more connections wait to be accepted, new ones are dropped")
    most = _number(read("net.ipv4.tcp_max_syn_backlog"))
    if most is not None and most < _SYN_BACKLOG and _number(read("net.ipv4.tcp_syncookies")) == 0:
        yield _set("net.ipv4.tcp_max_syn_backlog", most, _SYN_BACKLOG, "a flood of half-open connections keeps others out")


def _connecting(read: Read, wanted: int) -> Iterator[str]:
    first, _, last = (read("net.ipv4.ip_local_port_range") or "").strip().partition("\t")
    low, high = _number(first), _number(last)
    if low is not None and high is not None and high - low + 1 < wanted:
        why = "a backend that takes more connections than there are ports is answered with 502"
        yield _set("net.ipv4.ip_local_port_range", f"{low} {high}", f"{_FIRST_PORT} {_LAST_PORT}", why)


def _files(open_files: int, wanted: int) -> Iterator[str]:
    if open_files < wanted:
        yield (
            f"a process may have {open_files} files and connections open, and {wanted} are needed for all connections of a worker; "
            f"set `LimitNOFILE={wanted}` in its unit, or `ulimit -Hn {wanted}` before it is started, or lower max-worker-connections"
        )


def _set(name: str, is_: object, wanted: object, why: str) -> str:
    value = f'"{wanted}"' if " " in str(wanted) else wanted
    return f"{name} is {is_}: {why}; set it with `sysctl -w {name}={value}`"


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None
