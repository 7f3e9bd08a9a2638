"""What a copy amounts to is kept current, and is what it would be if it were made from nothing."""

from hypothesis import given
from hypothesis import strategies as st

from common.contracts.objects import Service
from common.contracts.refs import ObjectRef
from common.contracts.state import fold
from common.fingerprints import Fingerprints

names = st.sampled_from(["a", "b", "c"])
changes = st.lists(st.tuples(names, st.none() | st.sampled_from(["x", "y"])), max_size=20)


def ref(name: str) -> ObjectRef:
    return ObjectRef(Service.resource, "shop", name)


@given(changes)
def test_it_is_the_fold_of_what_is_there_whatever_was_there_before(history: list[tuple[str, str | None]]) -> None:
    kept, held = Fingerprints(), dict[ObjectRef, str]()
    for name, digest in history:
        if digest is None:
            kept.drop(ref(name))
            held.pop(ref(name), None)
        else:
            kept.put(ref(name), digest)
            held[ref(name)] = digest
        assert (kept.fold, len(kept)) == (fold(held.items()), len(held))


def test_an_object_can_be_kept_as_another_copy_has_it() -> None:
    old, new = Fingerprints(), Fingerprints()
    old.put(ref("a"), "x")
    new.keep(ref("a"), old)
    assert ref("a") in new
    assert new.fold == old.fold
