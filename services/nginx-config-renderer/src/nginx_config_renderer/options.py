"""Options: what an operator sets for the whole edge, as nginx.conf needs it. How it is written is in `option_keys.py`."""

from dataclasses import dataclass

from nginx_config_renderer import access_log
from nginx_config_renderer.policy import USUAL, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What nginx.conf says beside the machine's own settings. Times are in seconds, sizes in bytes. `usual` is the policy of everybody."""

    usual: Policy = USUAL
    template: str = ""
    client_header_timeout: int = 60
    client_body_timeout: int = 60
    client_header_buffer_size: int = 1024
    client_body_buffer_size: int = 8 * 1024
    large_client_header_buffers: tuple[int, int] = (4, 8 * 1024)
    keep_alive: int = 75
    keep_alive_requests: int = 1000
    upstream_keepalive_connections: int = 320
    upstream_keepalive_timeout: int = 60
    upstream_keepalive_requests: int = 10_000
    proxy_buffer_size: int = 4 * 1024
    proxy_buffers_number: int = 4
    worker_connections: int = 16384
    worker_shutdown_timeout: int = 240
    ssl_protocols: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    ssl_ciphers: str = ""
    ssl_prefer_server_ciphers: bool = False
    ssl_ecdh_curve: str = "auto"
    ssl_session_cache_size: int = 10 * 1024 * 1024
    ssl_session_timeout: int = 600
    hsts: bool = True
    hsts_max_age: int = 31_536_000
    hsts_include_subdomains: bool = True
    hsts_preload: bool = False
    use_http2: bool = True
    use_http3: bool = True
    ssl_session_tickets: bool = False
    use_proxy_protocol: bool = False
    use_forwarded_headers: bool = False
    compute_full_forwarded_for: bool = False
    trust_spans: bool = True
    forwarded_for_header: str = "X-Forwarded-For"
    trusted: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    custom_errors: tuple[int, ...] = ()
    strict_trailing_slash: bool = True
    redirect_code: int = 308
    server_tokens: bool = False
    error_log_level: str = "warn"
    disable_access_log: bool = False
    log_format: access_log.Format = access_log.UPSTREAM
    log_escape_json: bool = False
    log_escape_none: bool = False
    log_manner: tuple[str, ...] = ("buffer=64k", "flush=1s")
    log_skipped: tuple[str, ...] = ()
    underscores_in_headers: bool = False
    ignore_invalid_headers: bool = True
    backend_server_header: bool = False
    hide_headers: tuple[str, ...] = ()
    stream_timeout: int = 600
    stream_responses: int = 1
    gzip: bool = False
    gzip_level: int = 1
    gzip_min_length: int = 256
    gzip_types: tuple[str, ...] = ("application/javascript", "application/json", "text/css", "text/plain", "text/xml")

    @property
    def real_ip(self) -> bool:
        """Whether the client's address is taken from somebody who speaks for it."""
        return self.use_proxy_protocol or self.use_forwarded_headers

    @property
    def http3(self) -> bool:
        """Whether HTTP/3 can be spoken: QUIC carries no PROXY protocol, and its TLS is 1.3 (RFC 9001 §4.2)."""
        return self.use_http3 and not self.use_proxy_protocol and "TLSv1.3" in self.ssl_protocols

    @property
    def log_escape(self) -> access_log.Escape:
        """How values are escaped in the access log."""
        if self.log_format.escape is not None:
            return self.log_format.escape
        return "none" if self.log_escape_none else "json" if self.log_escape_json else "default"

    @property
    def hsts_header(self) -> str:
        """Strict-Transport-Security (RFC 6797 §6.1); empty for none."""
        if not self.hsts:
            return ""
        more = ("; includeSubDomains" if self.hsts_include_subdomains else "") + ("; preload" if self.hsts_preload else "")
        return f"max-age={self.hsts_max_age}{more}"
