"""The operator's log format means what it meant between the single quotes of ingress-nginx, and never ends early."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_config_renderer.access_log import Format, quoted, read_format, read_manner, read_skipped


def unquoted(token: str) -> str:
    """What nginx reads from a string of nginx.conf; it must be one string."""
    found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', token, re.DOTALL)
    assert found is not None
    meant = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}
    return re.sub(r"\\(.)", lambda one: meant.get(one[1], one[0]), found[1], flags=re.DOTALL)


@given(st.text())
def test_a_quoted_text_is_one_string_that_nginx_reads_as_it_was(text: str) -> None:
    assert unquoted(quoted(text)) == text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('$remote_addr "$request"', '$remote_addr "$request"'),
        (r"\"$request\"", '"$request"'),
        (r"it\'s", "it's"),
        (r"a\\b\x", r"a\b\x"),
        ("a\n b", "a\n b"),
    ],
)
def test_a_format_means_what_it_meant(written: str, meant: str) -> None:
    assert read_format(written) == Format(meant)
    assert unquoted(str(read_format(written))) == meant


def test_json_is_a_format_of_ours() -> None:
    assert read_format("json").escape == "json"


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("a'; include /etc/passwd; '", "a single quote ends the format"),
        (r"a\\'", "a single quote ends the format"),
        ("", "write a format"),
        ("a\0b", "control characters"),
    ],
)
def test_what_is_no_format_is_refused_with_its_mend(written: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        read_format(written)


def test_paths_and_patterns_are_left_out() -> None:
    assert read_skipped("/healthz, ~^/static/") == ('"/healthz"', '"~^/static/"')
    with pytest.raises(ValueError, match="separated by commas"):
        read_skipped("healthz")


def test_how_lines_are_written_is_bounded_to_what_nginx_knows() -> None:
    assert read_manner("buffer=16k flush=5m") == ("buffer=16k", "flush=5m")
    with pytest.raises(ValueError, match="such as buffer=64k"):
        read_manner("buffer=16k gzip")
