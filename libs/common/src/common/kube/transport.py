"""HTTP to one API server: authenticated, with a deadline for everything, and with typed errors.

Nothing is tried again here, except once with new credentials after a 401: a retry belongs to the loop that calls. Environment proxies
and `.netrc` are not looked at; a kubeconfig's `proxy-url` is.
"""

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import structlog
from yarl import URL

from common.kube.access import Access, Credentials
from common.kube.errors import Call, Misconfigured, Silent, Unreachable, refusal
from common.kube.lines import LineSplitter

JSON: Final = "application/json"
DEADLINE: Final = 30.0  # seconds for a request and its whole answer
CONNECT: Final = 10.0  # seconds until a connection stands
BUFFER: Final = 2**20  # bytes of a stream that may wait for us before the server is slowed down
METHODS: Final = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    call: Call
    timeout: aiohttp.ClientTimeout
    headers: Mapping[str, str]
    query: Mapping[str, str] | None = None
    body: bytes | None = None


class Transport:
    """An open way to an API server. Use as an asynchronous context."""

    def __init__(self, credentials: Credentials, agent: str) -> None:
        self._credentials = credentials
        self._agent = agent
        self._tls = ssl.create_default_context()
        self._closing = AsyncExitStack()
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        access = await self._credentials.access()
        self._trust(access)
        if not access.verify:
            log.warning("kube.tls_not_verified", host=access.host, mend="remove insecure-skip-tls-verify from the kubeconfig")
        # One connection a watch: a limit would let watches starve everything else.
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls, socket_factory=_socket)
        # The server compresses lists; within a data centre that costs more time than it saves.
        headers = {"User-Agent": self._agent, "Accept-Encoding": "identity"}
        http = aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=BUFFER, cookie_jar=aiohttp.DummyCookieJar())
        self._http = await self._closing.enter_async_context(http)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._closing.aclose()

    async def send(
        self,
        call: Call,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        deadline: float = DEADLINE,
    ) -> bytes:
        """The answer's body. Raises KubeError."""
        timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=CONNECT)
        headers = {"Accept": accept} if body is None else {"Accept": accept, "Content-Type": content_type}
        async with self._exchange(_Request(call, timeout, headers, query, body)) as response:
            return await response.read()

    @asynccontextmanager
    async def stream(
        self, call: Call, *, query: Mapping[str, str], silence: float, deadline: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """The lines of an answer that goes on, in batches as they come.

        Raises Silent when nothing came for `silence` seconds, or it goes on beyond `deadline`.
        """
        timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=CONNECT, sock_read=silence)
        async with (
            self._exchange(_Request(call, timeout, {"Accept": JSON}, query)) as response,
            aclosing(_lines(response, call, silence)) as lines,
        ):
            yield lines

    @asynccontextmanager
    async def _exchange(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        call = request.call
        access = await self._credentials.access()
        try:
            response = await self._send(request, access)
            if response.status == 401:
                response.close()
                access = await self._credentials.access(renew=True)
                self._trust(access)
                response = await self._send(request, access)
            async with response:
                if not 200 <= response.status < 300:
                    raise refusal(call, response.status, await response.read(), response.headers.get("Retry-After"))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.ClientSSLError):
                self._trust(access)  # the files may hold new certificates; the next request will see
            reason = f"no whole answer from the API server at {access.host} ({str(error) or type(error).__name__})"
            raise Unreachable(f"{call}: {reason}; check that it runs and can be reached from here") from error

    async def _send(self, request: _Request, access: Access) -> aiohttp.ClientResponse:
        url = URL(access.host + request.call.path, encoded=True)
        proof = {"Authorization": access.authorization} if access.authorization else {}
        return await self._http.request(
            METHODS.get(request.call.verb, "GET"),
            url.update_query(request.query) if request.query else url,
            data=None if request.body is None else BytesIO(request.body),
            headers={**request.headers, **proof},
            timeout=request.timeout,
            proxy=access.proxy,
            server_hostname=access.server_name,
            allow_redirects=False,
        )

    def _trust(self, access: Access) -> None:
        try:
            access.trust(self._tls)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"the certificates for {access.host} cannot be loaded: {error}") from error


async def _lines(response: aiohttp.ClientResponse, call: Call, silence: float) -> AsyncGenerator[list[bytes]]:
    splitter = LineSplitter()
    try:
        async for chunk in response.content.iter_any():
            if lines := splitter.feed(chunk):
                yield lines
    except TimeoutError as error:
        raise Silent(f"{call}: the stream said nothing for {silence:g} s") from error


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose kernel notices a dead peer within about 45 s, also when nothing is sent."""
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    for option, value in (
        (socket.TCP_KEEPIDLE, 30),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 45_000),
    ):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made
