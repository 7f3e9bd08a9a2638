"""What was found alive by a long look of the collector is not looked at again, and goes when nobody refers to it."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from common.runtime.collector import Sparing


class Value:
    pass


@pytest.fixture
def thawed() -> Iterator[None]:
    before = list(gc.callbacks)
    yield
    gc.callbacks[:] = before
    gc.unfreeze()


@pytest.mark.parametrize(("long", "spared"), [(0.0, True), (3600.0, False)])
def test_what_a_long_look_found_alive_is_put_aside(long: float, spared: bool, thawed: None) -> None:
    value = Value()
    gc.callbacks.append(Sparing(long))
    gc.collect()
    assert (not any(one is value for one in gc.get_objects())) is spared


def test_what_was_put_aside_goes_with_the_last_reference_to_it(thawed: None) -> None:
    value = Value()
    seen = weakref.ref(value)
    gc.callbacks.append(Sparing(0.0))
    gc.collect()
    del value
    assert seen() is None


def test_a_look_at_young_objects_puts_nothing_aside(thawed: None) -> None:
    before = gc.get_freeze_count()
    gc.callbacks.append(Sparing(0.0))
    gc.collect(1)
    assert gc.get_freeze_count() == before
