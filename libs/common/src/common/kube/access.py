"""Access: how an API server is reached, and who we are to it; and what a source of it promises.

Credentials are read again every minute, since tokens rotate on disk and plugins hand out short-lived ones, and at once when the server
refuses them.
"""

import ssl
from dataclasses import dataclass
from typing import Final, Protocol

FRESH: Final = 60.0  # seconds after which credentials are read again
DEADLINE: Final = 60.0  # seconds for reading them; a plugin may ask a person's identity provider


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server and what to show it. Its text says nothing of the secret."""

    host: str
    authorization: str
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    verify: bool
    server_name: str | None
    proxy: str | None

    def __repr__(self) -> str:
        return f"Access(host={self.host!r})"

    def trust(self, context: ssl.SSLContext) -> None:
        """Loads our certificates into `context`; done again, new connections use the new ones."""
        if self.ca_file is not None:
            context.load_verify_locations(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        # Cluster authorities often lack the extensions that Python 3.13 began to demand; Go and kubectl do not ask for them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE


class Credentials(Protocol):
    """A source of access."""

    async def access(self, *, renew: bool = False) -> Access:
        """Access as it is now. `renew` reads everything again: what we had was refused. Raises Misconfigured."""
        ...
