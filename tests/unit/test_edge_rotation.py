"""What becomes of logs is a matter of their sizes and ages alone."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from nginx_config_renderer.rotation import LOGS, QUIET, LogFile, Rotation, Step, is_log, rotated_at, steps

NOW = dt.datetime(2026, 11, 24, 2, 15, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
ROTATION = Rotation(size=1000, every=86400, keep=3, budget=100_000)


def due(*files: LogFile, began: dt.datetime = NOW, rotation: Rotation = ROTATION) -> list[tuple[str, str]]:
    return [(step.do, step.name) for step in steps(files, dict.fromkeys(LOGS, began), NOW, rotation)]


def old(hour: int, size: int = 10, *, suffix: str = ".gz", silent: float = 3600, log: str = "access.log") -> LogFile:
    return LogFile(f"{log}-20261123T{hour:02}0000Z{suffix}", size, silent)


def test_a_large_log_gives_way_and_its_name_says_when() -> None:
    assert steps([LogFile("access.log", 1000, 0)], {}, NOW, ROTATION) == (
        Step("rotate", "access.log", "access.log-20261124T021500Z"),
    )
    assert due(LogFile("access.log", 999, 0)) == []


def test_an_old_log_gives_way_if_there_is_a_line_in_it() -> None:
    assert due(LogFile("error.log", 1, 0), began=NOW - 24 * HOUR) == [("rotate", "error.log")]
    assert due(LogFile("error.log", 1, 0), began=NOW - 23 * HOUR) == []
    assert due(LogFile("error.log", 0, 0), began=NOW - 24 * HOUR) == []


def test_what_gave_way_is_compressed_when_nobody_writes_to_it_any_more() -> None:
    assert due(old(1, suffix="", silent=QUIET - 1)) == []
    assert due(old(1, suffix="", silent=QUIET)) == [("compress", "access.log-20261123T010000Z")]


def test_the_oldest_of_too_many_go() -> None:
    assert due(*(old(hour) for hour in range(5))) == [
        ("remove", "access.log-20261123T000000Z.gz"),
        ("remove", "access.log-20261123T010000Z.gz"),
    ]
    assert due(*(old(hour) for hour in range(3)), *(old(hour, log="error.log") for hour in range(3))) == []


def test_the_oldest_of_any_log_go_until_all_fit() -> None:
    small = Rotation(size=1000, every=86400, keep=9, budget=1000)
    files = [old(3, 400), old(1, 400, log="error.log"), old(2, 400), LogFile("access.log", 500, 0)]
    assert due(*files, rotation=small) == [
        ("remove", "access.log-20261123T020000Z.gz"),
        ("remove", "error.log-20261123T010000Z.gz"),
    ]


def test_a_log_does_not_take_the_name_of_another() -> None:
    assert due(LogFile("access.log", 1000, 0), LogFile("access.log-20261124T021500Z", 1000, 0)) == []


def test_when_a_log_gave_way_last_is_read_from_the_names() -> None:
    names = ["access.log-20261123T010000Z.gz", "access.log-20261123T030000Z", "access.log", "access.log-x", "other"]
    assert rotated_at(names) == {"access.log": dt.datetime(2026, 11, 23, 3, tzinfo=dt.UTC)}
    assert [name for name in names if is_log(name)] == names[:3]


FILES = st.lists(
    st.one_of(
        st.builds(LogFile, st.sampled_from(LOGS), st.integers(0, 3000), st.floats(0, 100)),
        st.builds(old, st.integers(0, 23), st.integers(0, 3000), suffix=st.sampled_from(["", ".gz"]), log=st.sampled_from(LOGS)),
    ),
    max_size=20,
    unique_by=lambda file: file.name,
)


@given(FILES, st.integers(1, 5), st.integers(1, 20_000))
def test_what_is_left_is_within_its_bounds_and_no_log_is_removed(files: list[LogFile], keep: int, budget: int) -> None:
    found = steps(files, {}, NOW, Rotation(size=1000, every=86400, keep=keep, budget=budget))
    removed = {step.name for step in found if step.do == "remove"}
    left = [file for file in files if file.name not in removed]
    assert not removed & set(LOGS)
    assert all(step.name not in removed for step in found if step.do != "remove")
    for log in LOGS:
        assert sum(file.name.startswith(f"{log}-") for file in left) <= keep
    assert sum(file.size for file in left) <= budget or all(file.name in LOGS for file in left)
    assert found == steps(reversed(files), {}, NOW, Rotation(size=1000, every=86400, keep=keep, budget=budget))
