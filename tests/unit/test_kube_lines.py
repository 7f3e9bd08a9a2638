"""Lines come out of chunks whole and in order, however the chunks are cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from common.kube.lines import LineSplitter

LINES = st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(lines=LINES, cuts=st.lists(st.integers(min_value=0)))
def test_lines_survive_any_cut(lines: list[bytes], cuts: list[int]) -> None:
    splitter = LineSplitter()
    found = [line for chunk in cut(b"".join(line + b"\n" for line in lines), cuts) for line in splitter.feed(chunk)]
    assert found == [line for line in lines if line]


@given(lines=LINES, rest=st.binary(min_size=1).filter(lambda data: b"\n" not in data), cuts=st.lists(st.integers(min_value=0)))
def test_a_line_whose_end_did_not_come_is_no_line(lines: list[bytes], rest: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter()
    data = b"".join(line + b"\n" for line in lines) + rest
    found = [line for chunk in cut(data, cuts) for line in splitter.feed(chunk)]
    assert found == [line for line in lines if line]


def test_a_line_of_many_megabytes_in_small_chunks_is_one_line() -> None:
    splitter = LineSplitter()
    chunks = [b"x" * 1024] * 20_000
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == []
    assert [len(line) for line in splitter.feed(b"\n")] == [20_000 * 1024]
