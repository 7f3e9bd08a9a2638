"""How to reach the bus: every knob with its unit, its default and its reason."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class BusSettings(BaseModel):
    """The connection to NATS. Secrets come as files, never as values: files can be rotated, and no list of processes shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field("nats://127.0.0.1:4222", description="Where the servers are; several, separated by commas.")
    name: str = Field("seaway", pattern=r"^[A-Za-z0-9_-]+$", description="Names this client in the server's lists and its readers.")
    inbox: str = Field("_INBOX", description="Root of the subjects on which answers arrive; of its own where users are kept apart.")
    nkey_file: Path | None = Field(None, description="The user's nkey seed.")
    creds_file: Path | None = Field(None, description="The user's JWT and seed, where the servers run in operator mode.")
    tls_ca: Path | None = Field(None, description="Authority that signed the servers' certificates. Turns TLS on.")
    tls_cert: Path | None = Field(None, description="This client's certificate, where the servers ask for one.")
    tls_key: Path | None = Field(None, description="The key of `tls_cert`.")
    tls_first: bool = Field(
        default=True, description="TLS before anything else (`handshake_first` in the server), so nobody can talk us out of it."
    )
    patience: float = Field(0, ge=0, description="Seconds after which the first connection is given up; 0 is never.")
    connect_timeout: int = Field(2, ge=1, description="Seconds for one server to answer a connection.")
    reconnect_wait: float = Field(0.5, gt=0, description="Seconds between two tries to connect to the same server.")
    request_timeout: float = Field(5, gt=0, description="Seconds for the answer to a request.")
    heartbeat: float = Field(
        5, ge=0.5, le=15, description="Seconds between signs of life of a quiet reader; two missed ones end it."
    )
    watch_interval: float = Field(10, gt=0, description="Seconds between two pings of the watchdog.")
    watch_timeout: int = Field(5, ge=1, description="Seconds for the answer to a ping.")

    @field_validator("url")
    @classmethod
    def _no_credentials(cls, url: str) -> str:
        for server in url.split(","):
            parts = urlsplit(server.strip())
            if parts.scheme not in {"nats", "tls"} or not parts.hostname:
                raise ValueError("each server of the bus must be nats://host:port")
            if parts.username or parts.password:
                raise ValueError("the address of the bus must not hold credentials; give them as nkey_file or creds_file")
        return url

    @property
    def servers(self) -> list[str]:
        """The addresses one by one."""
        return [server.strip() for server in self.url.split(",")]

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context, or None where TLS is off."""
        if self.tls_ca is None:
            return None
        context = ssl.create_default_context(cafile=str(self.tls_ca))
        if self.tls_cert is not None:
            context.load_cert_chain(str(self.tls_cert), str(self.tls_key) if self.tls_key else None)
        return context
