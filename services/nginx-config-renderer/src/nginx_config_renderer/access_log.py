"""The access log: how the operator's format becomes nginx's, and which requests are left out.

The format is ingress-nginx's `log-format-upstream`, which stood between single quotes in nginx.conf there. It is read as nginx would have
read it and written anew between double quotes, so it means the same and cannot end before its end.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

Escape = Literal["default", "json", "none"]

_UPSTREAM: Final = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" '
    "$request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr "
    "$upstream_response_length $upstream_response_time $upstream_status $req_id"
)
_JSON: Final = (
    '{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method","host":"$host","uri":"$request_uri",'
    '"protocol":"$server_protocol","status":$status,"bytes":$body_bytes_sent,"request_bytes":$request_length,"seconds":$request_time,'
    '"namespace":"$namespace","ingress":"$ingress_name","service":"$service_name","port":"$service_port",'
    '"upstream":"$upstream_addr","upstream_status":"$upstream_status","upstream_seconds":"$upstream_response_time",'
    '"referer":"$http_referer","user_agent":"$http_user_agent","tls":"$ssl_protocol","request_id":"$req_id"}'
)
_LONGEST: Final = 8192
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_MEANT: Final = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}
_URL: Final = re.compile(r"(/|~\*?\^?)[\x21-\x7e]{0,500}", re.ASCII)
_BUFFER: Final = re.compile(r"buffer=([1-9][0-9]{0,6})(k|m)?", re.ASCII)
_FLUSH: Final = re.compile(r"flush=([1-9][0-9]{0,4})(ms|s|m|h)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Format:
    """A format as nginx understands it, unquoted, and how values are escaped in it."""

    text: str
    escape: Escape | None = None

    def __str__(self) -> str:
        return quoted(self.text)


UPSTREAM: Final = Format(_UPSTREAM)


def read_format(value: str) -> Format:
    """From `log-format-upstream`. `json` is a format of ours. Raises ValueError with the mend."""
    if value == "json":
        return Format(_JSON, "json")
    if not value or len(value) > _LONGEST:
        raise ValueError(f"write a format of at most {_LONGEST} characters, or json")
    if re.search(r"(?<!\\)(\\\\)*'", value):
        raise ValueError("a single quote ends the format; write \\' for it")
    if any(ord(character) < 32 and character not in "\t\n" for character in value):
        raise ValueError("it has control characters; remove them")
    return Format(_ESCAPED.sub(lambda found: _MEANT.get(found[1], found[0]), value))


def read_skipped(value: str) -> tuple[str, ...]:
    """From `skip-access-log-urls`: paths, or patterns that begin with `~`, as strings of nginx.conf. Raises ValueError with the mend."""
    found = tuple(word.strip() for word in value.split(",") if word.strip())
    if not all(map(_URL.fullmatch, found)):
        raise ValueError("write paths that begin with / or patterns that begin with ~, separated by commas")
    return tuple(map(quoted, found))


def read_manner(value: str) -> tuple[str, ...]:
    """From `access-log-params`: how lines are kept together before they are written. Raises ValueError with the mend."""
    words = tuple(value.split())
    if not all(_BUFFER.fullmatch(word) or _FLUSH.fullmatch(word) for word in words):
        raise ValueError("write buffer=SIZE and flush=TIME, such as buffer=64k flush=1s")
    return words


def quoted(text: str) -> str:
    """As a string of nginx.conf, which ends where `text` ends (ngx_conf_read_token)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r")
    return f'"{escaped}"'
