"""Trouble: what passes at once moves no addresses, and what is grave or lasts does."""

from haproxy_lb.trouble import LASTING, Trouble


def test_whoever_has_not_begun_is_in_grave_trouble() -> None:
    assert Trouble("nobody has looked yet").counts(0.0) == "nobody has looked yet"


def test_trouble_that_passes_does_not_count_and_trouble_that_lasts_does_whatever_it_is_called_meanwhile() -> None:
    trouble = Trouble("nobody has looked yet")
    trouble.over()
    trouble.begin("it refuses", 10.0, grave=False)
    assert (trouble.reason, trouble.counts(10.0 + 0.9 * LASTING)) == ("it refuses", None)
    trouble.begin("it refuses again", 10.0 + 0.9 * LASTING, grave=False)
    assert trouble.counts(10.0 + LASTING) == "it refuses again"
    trouble.over()
    trouble.begin("it refuses", 20.0, grave=False)
    assert trouble.counts(20.0 + 0.9 * LASTING) is None, "what was over does not count"


def test_grave_trouble_counts_at_once_until_it_is_over() -> None:
    trouble = Trouble("nobody has looked yet")
    trouble.over()
    trouble.begin("it refuses", 10.0, grave=False)
    trouble.begin("it is gone", 10.1, grave=True)
    assert trouble.counts(10.1) == "it is gone"
    trouble.begin("it has come back as another one", 10.2, grave=False)
    assert trouble.counts(10.2) == "it has come back as another one"
    trouble.over()
    assert trouble.counts(10.3) is None
