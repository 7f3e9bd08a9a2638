"""The codec: a CloudEvent as NATS headers and bytes, and back.

Binary content mode of the CloudEvents NATS protocol binding (1.0.2 §3.1): each attribute is a header `ce-<name>`, the body is the data
alone. Header values are percent-encoded where they leave U+0021 to U+007E, and at `"` and `%`. The body is msgpack, compressed with zstd
when it is above 4 KiB; `ce-datacontenttype` says which. An event without data has an empty body and no content type.

    CodecError     the headers or the body are not what this codec writes; the text says which and why
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import zstandard

from common.contracts.events import CloudEvent

MSGPACK: Final = "application/msgpack"
MSGPACK_ZSTD: Final = "application/msgpack+zstd"
COMPRESS_ABOVE: Final = 4096
LARGEST_BODY: Final = 64 * 1024 * 1024

_PREFIX: Final = "ce-"
_UNSAFE: Final = re.compile(r"[^!#$&-~]")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_CONTENT_TYPES: Final = frozenset({MSGPACK, MSGPACK_ZSTD})


class CodecError(ValueError):
    """Not an event of ours."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event, ready for the bus."""

    headers: dict[str, str]
    body: bytes


def encode(event: CloudEvent) -> Encoded:
    """`event` in binary mode."""
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        "dataschema": event.dataschema,
        **dict(sorted(event.extensions.items())),
    }
    body, content_type = _pack(event.data)
    attributes["datacontenttype"] = content_type
    return Encoded({_PREFIX + name: _escape(value) for name, value in attributes.items() if value}, body)


def decode(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The event that `headers` and `body` carry. Raises CodecError."""
    attributes = decode_attributes(headers)
    content_type = attributes.pop("datacontenttype", "")
    try:
        return CloudEvent(
            id=attributes.pop("id", ""),
            source=attributes.pop("source", ""),
            type=attributes.pop("type", ""),
            subject=attributes.pop("subject", ""),
            time=attributes.pop("time", ""),
            dataschema=attributes.pop("dataschema", ""),
            extensions=attributes,
            data=_unpack(body, content_type),
        )
    except CodecError:
        raise
    except ValueError as error:
        raise CodecError(str(error)) from error


def decode_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """The CloudEvents attributes alone, without `specversion`. Raises CodecError."""
    attributes = {name[3:].lower(): _unescape(value) for name, value in headers.items() if name[:3].lower() == _PREFIX}
    version = attributes.pop("specversion", "")
    if version != "1.0":
        raise CodecError(f"ce-specversion is {version!r}, and only 1.0 is known")
    return attributes


def digest(data: Any) -> str:
    """A fingerprint of plain data that does not depend on the order of its keys: 128 bits, in hex."""
    return hashlib.blake2b(msgpack.packb(_ordered(data)), digest_size=16).hexdigest()


def _ordered(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _ordered(data[key]) for key in sorted(data)}
    if isinstance(data, list | tuple):
        return [_ordered(item) for item in data]
    return data


def _pack(data: Any) -> tuple[bytes, str]:
    if data is None:
        return b"", ""
    packed: bytes = msgpack.packb(data)
    if len(packed) <= COMPRESS_ABOVE:
        return packed, MSGPACK
    return zstandard.compress(packed), MSGPACK_ZSTD


def _unpack(body: bytes, content_type: str) -> Any:
    if not body and not content_type:
        return None
    if content_type not in _CONTENT_TYPES:
        raise CodecError(f"ce-datacontenttype is {content_type!r}, and only {MSGPACK} and {MSGPACK_ZSTD} are known")
    try:
        packed = _inflate(body) if content_type == MSGPACK_ZSTD else body
        return msgpack.unpackb(packed)
    except (zstandard.ZstdError, msgpack.UnpackException, ValueError) as error:
        raise CodecError(f"the body is not {content_type}: {error}") from error


def _inflate(body: bytes) -> bytes:
    size = zstandard.frame_content_size(body)
    if not 0 <= size <= LARGEST_BODY:
        raise CodecError(f"the compressed body claims {size} bytes, and at most {LARGEST_BODY} are taken")
    return zstandard.decompress(body, max_output_size=LARGEST_BODY)


def _escape(value: str) -> str:
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), value)


def _unescape(value: str) -> str:
    if "%" not in value:
        return value
    try:
        return _ESCAPES.sub(lambda match: bytes.fromhex(match[0].replace("%", "")).decode(), value)
    except UnicodeDecodeError as error:
        raise CodecError(f"the header value {value!r} is not percent-encoded UTF-8") from error
