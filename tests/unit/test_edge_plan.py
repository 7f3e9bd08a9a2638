"""The plan leads from whatever nginx holds to what it should hold, without a moment in between that is wrong."""

from hypothesis import given
from hypothesis import strategies as st

from nginx_config_renderer.plan import BACKENDS, CERTIFICATES, HOSTS, PAIRS, Entry, Write, chunks, digest, plan, to_bytes

tables = st.sampled_from([BACKENDS, HOSTS, CERTIFICATES, PAIRS])
entries = st.dictionaries(st.tuples(tables, st.text("abc", max_size=2)), st.text(min_size=1, max_size=20), max_size=12)


def digests(held: dict[Entry, str]) -> dict[Entry, str]:
    return {entry: str(digest(value)) for entry, value in held.items()}


@given(entries, entries)
def test_after_the_plan_nginx_holds_what_it_should(running: dict[Entry, str], wanted: dict[Entry, str]) -> None:
    held = dict(running)
    for write in plan(digests(running), wanted, running.keys() | wanted.keys()):
        if write.value is None:
            del held[write.table, write.key]
        else:
            assert held.get((write.table, write.key)) != write.value, "nothing is written twice"
            held[write.table, write.key] = write.value
    assert held == wanted
    assert plan(digests(held), wanted, running.keys() | wanted.keys()) == ()


@given(entries, entries)
def test_what_is_named_comes_before_what_names_it_and_goes_after_it(running: dict[Entry, str], wanted: dict[Entry, str]) -> None:
    writes = plan(digests(running), wanted, running.keys() | wanted.keys())
    for named, naming in ((BACKENDS, HOSTS), (PAIRS, CERTIFICATES)):
        steps = [(write.table, write.value is None) for write in writes if write.table in {named, naming}]
        order = {(named, False): 0, (naming, False): 1, (naming, True): 2, (named, True): 3}
        assert [order[step] for step in steps] == sorted(order[step] for step in steps)


def test_only_the_named_entries_are_written() -> None:
    wanted: dict[Entry, str] = {(HOSTS, "a"): "1", (HOSTS, "b"): "2"}
    assert plan({}, wanted, [(HOSTS, "a")]) == (Write(HOSTS, "a", "1"),)


@given(st.lists(st.integers(0, 60), max_size=30))
def test_pushes_are_bounded_and_keep_everything_in_order(sizes: list[int]) -> None:
    writes = [Write(HOSTS, f"{number:02}", "x" * size) for number, size in enumerate(sizes)]
    made = list(chunks(writes, largest=64))
    assert [write for chunk in made for write in chunk] == writes
    assert all(len(chunk) == 1 or sum(2 + len(str(write.value)) for write in chunk) <= 64 for chunk in made)
    assert all(made)


def test_a_path_of_any_bytes_is_written_as_it_is() -> None:
    assert to_bytes(b"/\xff\xc3".decode(errors="surrogateescape")) == b"/\xff\xc3"
