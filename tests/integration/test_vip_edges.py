"""What a local edge answers, and what is made of it."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from common.testing.ports import free_port
from keepalived_vip.edges import Gone, ask, parse_edge

AT_ONCE = struct.pack("ii", 1, 0)  # l_onoff, l_linger: close(2) resets (socket(7))


@contextlib.contextmanager
def who_hangs_up() -> Iterator[int]:
    """The port of somebody who resets each connection at once; in a thread, or it would always be too late for that."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listening:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    made, _ = listening.accept()
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    made.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_who_hangs_up_at_once_is_there_and_who_does_not_listen_is_gone() -> None:
    """HAProxy resets a connection to no Service. Whether that comes before the connection is seen to be made, is a matter of luck."""
    with who_hangs_up() as port:
        assert {await ask(parse_edge(f"tcp:127.0.0.1:{port}")) for _ in range(300)} == {None}
    with pytest.raises(Gone):
        await ask(parse_edge(f"tcp:127.0.0.1:{free_port()}"))
