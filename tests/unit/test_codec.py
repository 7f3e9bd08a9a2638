"""The codec against the specification's own examples, against the CloudEvents SDK, and against hostile input."""

import contextlib
from datetime import datetime
from typing import Any

import msgpack
import pytest
import zstandard
from cloudevents.core.bindings import http
from cloudevents.core.formats.base import Format
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OracleEvent
from hypothesis import given
from hypothesis import strategies as st

from common.codec import COMPRESS_ABOVE, MSGPACK, MSGPACK_ZSTD, CodecError, decode, digest, encode
from common.contracts.events import CloudEvent

EXAMPLE = CloudEvent(
    id="1234-1234-1234", source="/mycontext/subcontext", type="com.example.someevent", time="2018-04-05T03:56:24Z", data={"a": 1}
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
extension_names = st.from_regex(r"x[a-z0-9]{0,19}", fullmatch=True)
events = st.builds(
    CloudEvent,
    id=printable,
    source=printable,
    type=printable,
    subject=printable | st.just(""),
    time=st.just("2018-04-05T03:56:24Z"),
    extensions=st.dictionaries(extension_names, printable, max_size=4),
    data=plain,
)


def test_the_example_of_the_nats_binding_is_written_as_printed_there() -> None:
    encoded = encode(EXAMPLE)
    assert encoded.headers == {
        "ce-specversion": "1.0",
        "ce-type": "com.example.someevent",
        "ce-time": "2018-04-05T03:56:24Z",
        "ce-id": "1234-1234-1234",
        "ce-source": "/mycontext/subcontext",
        "ce-datacontenttype": MSGPACK,
    }
    assert msgpack.unpackb(encoded.body) == {"a": 1}


def test_the_example_of_percent_encoding_is_written_as_printed_there() -> None:
    headers = encode(CloudEvent(id="1", source="/s", type="t", extensions={"text": 'Euro € 😀 "%"'})).headers
    assert headers["ce-text"] == "Euro%20%E2%82%AC%20%F0%9F%98%80%20%22%25%22"


def test_no_header_can_switch_the_reader_to_structured_mode() -> None:
    assert not any(name.lower() == "content-type" for name in encode(EXAMPLE).headers)


@given(events)
def test_every_event_comes_back_as_it_went(event: CloudEvent) -> None:
    encoded = encode(event)
    assert all("!" <= char <= "~" and char != '"' for value in encoded.headers.values() for char in value)
    assert decode(encoded.headers, encoded.body) == event


class _Msgpack(Format):
    """Lets the oracle carry our body; it knows no msgpack."""

    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:
        packed: bytes = msgpack.packb(data)
        return packed

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        return msgpack.unpackb(body)

    def write(self, event: Any) -> bytes:
        raise NotImplementedError

    def read(self, event_factory: Any, data: str | bytes) -> Any:
        raise NotImplementedError

    def get_content_type(self) -> str:
        return JSONFormat().get_content_type()


@given(events.filter(lambda event: event.data is not None))
def test_the_sdk_writes_the_same_headers(event: CloudEvent) -> None:
    attributes: dict[str, Any] = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "specversion": "1.0",
        **event.extensions,
    }
    attributes["time"] = datetime.fromisoformat(event.time)
    if event.subject:
        attributes["subject"] = event.subject
    oracle = http.to_binary(OracleEvent(attributes=attributes, data=event.data), _Msgpack())
    ours = encode(event)
    assert {name: value for name, value in ours.headers.items() if name != "ce-datacontenttype"} == oracle.headers


@given(events.filter(lambda event: event.data is not None))
def test_the_sdk_reads_what_we_write(event: CloudEvent) -> None:
    ours = encode(event)
    headers = {name: value for name, value in ours.headers.items() if name != "ce-datacontenttype"}
    body = zstandard.decompress(ours.body) if ours.headers["ce-datacontenttype"] == MSGPACK_ZSTD else ours.body
    read = http.from_binary(http.HTTPMessage(headers, body), _Msgpack(), OracleEvent)
    assert (read.get_id(), read.get_source(), read.get_type(), read.get_data()) == (event.id, event.source, event.type, event.data)
    assert all(read.get_extension(name) == value for name, value in event.extensions.items())


def test_a_body_is_compressed_above_four_kibibytes_and_not_below() -> None:
    small = encode(CloudEvent(id="1", source="/s", type="t", data="x" * (COMPRESS_ABOVE - 3)))
    large = encode(CloudEvent(id="1", source="/s", type="t", data="x" * (COMPRESS_ABOVE - 2)))
    assert (small.headers["ce-datacontenttype"], len(small.body)) == (MSGPACK, COMPRESS_ABOVE)
    assert large.headers["ce-datacontenttype"] == MSGPACK_ZSTD
    assert len(large.body) < 100


def test_an_event_without_data_has_an_empty_body() -> None:
    encoded = encode(CloudEvent(id="1", source="/s", type="t"))
    assert encoded.body == b""
    assert "ce-datacontenttype" not in encoded.headers


GOOD = encode(EXAMPLE)
BOMB = zstandard.ZstdCompressor().compress(bytes(65 * 1024 * 1024))


@pytest.mark.parametrize(
    ("changed", "body", "reason"),
    [
        ({"ce-specversion": "0.3"}, GOOD.body, "ce-specversion"),
        ({"ce-id": ""}, GOOD.body, "non-empty id"),
        ({"ce-datacontenttype": "application/json"}, b"{}", "application/json"),
        ({"ce-datacontenttype": MSGPACK}, b"\xc1", MSGPACK),
        ({"ce-datacontenttype": MSGPACK}, GOOD.body + b"\x00", MSGPACK),
        ({"ce-datacontenttype": MSGPACK_ZSTD}, b"not zstd", "zstd"),
        ({"ce-datacontenttype": MSGPACK_ZSTD}, BOMB, "at most"),
        ({"ce-bad_name": "x"}, GOOD.body, "bad_name"),
        ({"ce-source": "%FF"}, GOOD.body, "UTF-8"),
    ],
)
def test_what_is_not_an_event_is_refused_with_the_reason(changed: dict[str, str], body: bytes, reason: str) -> None:
    with pytest.raises(CodecError, match=reason):
        decode({**GOOD.headers, **changed}, body)


@given(st.dictionaries(st.sampled_from(sorted(GOOD.headers)), st.text(max_size=20)), st.binary(max_size=64))
def test_hostile_bytes_raise_nothing_but_codec_errors(changed: dict[str, str], body: bytes) -> None:
    with contextlib.suppress(CodecError):
        decode({**GOOD.headers, **changed}, body)


@given(plain)
def test_a_digest_does_not_depend_on_the_order_of_keys(data: Any) -> None:
    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return [backwards(item) for item in value] if isinstance(value, list) else value

    assert digest(data) == digest(backwards(data))


def test_a_digest_tells_different_data_apart() -> None:
    values: list[Any] = [None, 0, 1, "", "1", [], [1], {}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": [1, 2]}, {"a": [2, 1]}]
    assert len({digest(value) for value in values}) == len(values)
