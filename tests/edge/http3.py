"""A client of HTTP/3: one request on a connection of its own."""

import asyncio
import ssl
from collections import defaultdict
from pathlib import Path
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent
from cryptography import x509

from tests.edge.world import SOON, Answer


class Client(QuicConnectionProtocol):
    """A connection."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)
        self._headers: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = defaultdict(bytes)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def get(self, host: str, target: str) -> Answer:
        """What is answered."""
        stream = self._quic.get_next_available_stream_id()
        self._waiting[stream] = asyncio.get_running_loop().create_future()
        pseudo = {":method": "GET", ":scheme": "https", ":authority": host, ":path": target}
        self._http.send_headers(stream, [(name.encode(), value.encode()) for name, value in pseudo.items()], end_stream=True)
        self.transmit()
        async with asyncio.timeout(SOON):
            await self._waiting[stream]
        headers = self._headers[stream]
        return Answer(int(headers[":status"]), headers, self._bodies[stream].decode())

    @property
    def certificate(self) -> x509.Certificate:
        """What the server showed."""
        shown: Any = self._quic.tls._peer_certificate
        assert isinstance(shown, x509.Certificate)
        return shown

    def quic_event_received(self, event: QuicEvent) -> None:
        for one in self._http.handle_event(event):
            if isinstance(one, HeadersReceived):
                self._headers.setdefault(one.stream_id, {name.decode(): value.decode() for name, value in one.headers})
            if isinstance(one, DataReceived):
                self._bodies[one.stream_id] += one.data
            if isinstance(one, HeadersReceived | DataReceived) and one.stream_ended:
                self._waiting[one.stream_id].set_result(None)


def configuration(host: str, authority: Path | None = None) -> QuicConfiguration:
    """A client that trusts `authority`, or anybody, and says that it wants `host`."""
    made = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host)
    if authority is not None:
        made.load_verify_locations(cafile=str(authority))
    else:
        made.verify_mode = ssl.CERT_NONE
    return made


async def ask(port: int, host: str, target: str = "/", authority: Path | None = None) -> tuple[Answer, x509.Certificate]:
    """What is answered, and the certificate that was shown."""
    async with asyncio.timeout(SOON):
        async with connect("127.0.0.1", port, configuration=configuration(host, authority), create_protocol=Client) as client:
            assert isinstance(client, Client)
            return await client.get(host if port == 443 else f"{host}:{port}", target), client.certificate
