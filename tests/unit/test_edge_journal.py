"""The journal on a disk that fills up: what is in it counts, and it is whole again as soon as there is room."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.disk import files_up_to

from nginx_config_renderer.journal import Journal, Journals
from nginx_config_renderer.plan import HOSTS, PAIRS, POLICIES, Entry, Write

SMALL = Write(HOSTS, "small.example", "{}")
LARGE = Write(HOSTS, "large.example", "x" * 5000)


def spoilt(path: Path) -> int:
    """How many lines are not what was written."""
    return sum(
        hashlib.md5(line[33:], usedforsecurity=False).hexdigest() != line[:32].decode() for line in path.read_bytes().splitlines()
    )


def held(path: Path) -> dict[Entry, str]:
    """What nginx would have after a start with this journal."""
    found: dict[Entry, str | None] = {}
    for line in path.read_bytes().splitlines():
        if hashlib.md5(line[33:], usedforsecurity=False).hexdigest() == line[:32].decode():
            found |= {(table, key): value for table, key, value in json.loads(line[33:].decode(errors="surrogateescape"))["writes"]}
    return {entry: value for entry, value in found.items() if value is not None}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal")
    found.rewrite({(HOSTS, "first.example"): "{}"}, 1)
    yield found
    found.close()


def test_a_push_that_the_disk_takes_a_part_of_leaves_the_journal_as_it_was_before(journal: Journal, tmp_path: Path) -> None:
    before = (tmp_path / "journal").read_bytes()
    with files_up_to(1000):
        assert not journal.append([LARGE], 2)
    assert journal.trouble is not None
    assert (tmp_path / "journal").read_bytes() == before


def test_what_is_said_of_a_full_disk_names_the_file_the_reason_and_the_mend(journal: Journal, tmp_path: Path) -> None:
    with files_up_to(1000):
        journal.append([LARGE], 2)
    assert str(journal.trouble).startswith(f"the journal {tmp_path}/journal cannot be written: File too large; ")
    assert "make room there" in str(journal.trouble)


def test_a_full_disk_is_asked_again_from_time_to_time_and_not_at_every_push(journal: Journal) -> None:
    with files_up_to(1000):
        assert not journal.append([LARGE], 2), "shorter it may fit"
        journal.rewrite({(HOSTS, "large.example"): str(LARGE.value)}, 2)
        assert journal.append([SMALL], 3), "no push waits for a disk that was full a moment ago"
    assert not journal.due


def test_a_journal_that_was_written_again_is_whole_and_there_is_no_trouble_any_more(journal: Journal, tmp_path: Path) -> None:
    with files_up_to(1000):
        journal.append([LARGE], 2)
    journal.rewrite({(HOSTS, "large.example"): str(LARGE.value)}, 2)
    assert journal.append([SMALL], 3)
    assert journal.trouble is None
    assert spoilt(tmp_path / "journal") == 0
    assert held(tmp_path / "journal") == {(HOSTS, "large.example"): LARGE.value, (HOSTS, "small.example"): "{}"}


def test_what_nobody_knows_yet_stays_in_the_journal_as_it_was_and_what_a_crash_cut_off_spoils_nothing(tmp_path: Path) -> None:
    both = Journals(Journal(tmp_path / "journal"), Journal(tmp_path / "keys"))
    host, policy, gone = (HOSTS, "a.example\udcff"), (POLICIES, "shop/web"), (POLICIES, "shop/gone")
    before = {(PAIRS, "a"): "1", (PAIRS, "b"): "2", host: "\udcff", policy: "{}", gone: "{}", (HOSTS, "b.example"): "{}"}
    both.rewrite(before, 1)
    both.append([Write(*policy, '{"force":true}'), Write(*gone, None), Write(PAIRS, "a", "4")], 2)
    both.close()
    for name in ("journal", "keys"):
        with (tmp_path / name).open("ab") as file:
            file.write(b'0123456789abcdef0123456789abcdef {"to":2,"wri')
    unknown = {(PAIRS, "a"), host, policy, gone, (HOSTS, "never.example")}
    both.rewrite({(PAIRS, "c"): "3", policy: '{"deny":true}', (HOSTS, "c.example"): "{}"}, 2, unknown)
    assert held(tmp_path / "keys") == {(PAIRS, "a"): "4", (PAIRS, "c"): "3"}
    assert held(tmp_path / "journal") == {host: "\udcff", policy: '{"force":true}', (HOSTS, "c.example"): "{}"}
    assert spoilt(tmp_path / "keys") == spoilt(tmp_path / "journal") == 0
    both.close()
