"""How the values of annotations and settings are read: text → typed value, or ValueError with what to write instead.

The forms are those of ingress-nginx, so that what works there works here. Those that all tables have are in `common.knobs`.
"""

import re
from typing import Final

from common.knobs import one_of
from nginx_config_renderer.policy import Balance, Condition, Scheme

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,15})([kmg]?)b?", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)  # RFC 9110 §5.6.2
_COOKIE_TEXT: Final = re.compile(r"[\x21-\x3a\x3c-\x7e]{0,255}", re.ASCII)  # RFC 6265 §4.1.1 without the semicolon
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{0,255}", re.ASCII)
_LONGEST_SECONDS: Final = 86400 * 30
_CONDITIONS: Final[dict[str, Condition]] = {
    "error": "error",
    "timeout": "timeout",
    "invalid_header": "status",
    "http_500": "status",
    "http_502": "status",
    "http_503": "status",
    "http_504": "status",
    "non_idempotent": "non_idempotent",
}
_VARIABLES: Final = {
    "args",
    "binary_remote_addr",
    "host",
    "http_host",
    "query_string",
    "remote_addr",
    "remote_port",
    "remote_user",
    "request_method",
    "request_uri",
    "scheme",
    "server_name",
    "server_port",
    "ssl_client_s_dn",
    "uri",
}
_VARIABLE: Final = re.compile(r"\$\{?([a-z0-9_]{1,100})\}?", re.ASCII)
_PARTS: Final = re.compile(r"\$\{[a-z0-9_]+\}|\$[a-z0-9_]+|[^$]+", re.ASCII)
_OF_REQUEST: Final = ("http_", "cookie_", "arg_")


def service(value: str) -> tuple[str, str]:
    """`name` or `name:port`: a Service, and its port if one is given."""
    name, colon, port = value.partition(":")
    if not _LABEL.fullmatch(name) or (colon and not _LABEL.fullmatch(port)):
        raise ValueError("write the name of a Service of the same namespace, such as standby or standby:8080")
    return name, port


def secret(value: str) -> tuple[str, str]:
    """`name` or `namespace/name` of a Secret."""
    namespace, slash, name = value.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not _LABEL.fullmatch(namespace)):
        raise ValueError("write the name of a Secret of the same namespace, such as backend-ca")
    return namespace, name


def host(value: str) -> str:
    """The name of a host."""
    if not _NAME.fullmatch(value.lower()):
        raise ValueError("write the name of a host, such as db.example.org")
    return value.lower()


def switch(value: str) -> bool:
    """`on` or `off`."""
    if value not in {"on", "off"}:
        raise ValueError("write on or off")
    return value == "on"


def size(value: str) -> int:
    """Bytes: a number, with k, m or g."""
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("write a size such as 512k, 8m or 1g; 0 is no limit")
    return int(found[1]) * _UNITS[found[2].lower()]


def seconds(value: str) -> int:
    """Seconds: a whole number, also with an s."""
    digits = value.removesuffix("s")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) <= _LONGEST_SECONDS):
        raise ValueError(f"write seconds as a whole number from 1 to {_LONGEST_SECONDS}")
    return int(digits)


def scheme(value: str) -> Scheme:
    """How a backend speaks."""
    schemes: dict[str, Scheme] = {"HTTP": "http", "HTTPS": "https", "GRPC": "grpc", "GRPCS": "grpcs"}
    return one_of(schemes)(value.upper())


BALANCES: Final[dict[str, Balance]] = {"round_robin": "round_robin", "least_conn": "least_conn", "ewma": "ewma"}


def retries(value: str) -> frozenset[Condition]:
    """When another endpoint is tried, in nginx's words."""
    words = value.split()
    if words == ["off"]:
        return frozenset()
    unknown = [word for word in words if word not in _CONDITIONS]
    if unknown or not words:
        raise ValueError(f"write off, or some of {', '.join(_CONDITIONS)}")
    return frozenset(_CONDITIONS[word] for word in words)


def hash_key(value: str) -> tuple[str, ...]:
    """Text with variables of a request in it, as nginx writes them."""
    parts = _PARTS.findall(value)
    if not value or "".join(parts) != value or not _PRINTABLE.fullmatch(value) or ";" in value:
        raise ValueError("write variables of a request such as $request_uri, with plain text between them")
    return tuple(_variable(part) if part.startswith("$") else part for part in parts)


def _variable(part: str) -> str:
    found = _VARIABLE.fullmatch(part)
    name = found[1] if found is not None else ""
    if name not in _VARIABLES and not name.startswith(_OF_REQUEST):
        raise ValueError(
            f"{part[:80]} is no variable of a request; use one such as $request_uri, $http_NAME, $cookie_NAME or $arg_NAME"
        )
    return f"${name}"


def token(value: str) -> str:
    """The name of a header or a cookie."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("write letters, digits and dashes")
    return value


def cookie_text(value: str) -> str:
    """The value of a cookie's attribute."""
    if not _COOKIE_TEXT.fullmatch(value):
        raise ValueError("write printable ASCII without spaces and semicolons")
    return value


def text(value: str) -> str:
    """A line of printable ASCII."""
    if not _PRINTABLE.fullmatch(value):
        raise ValueError("write at most 255 printable ASCII characters")
    return value
