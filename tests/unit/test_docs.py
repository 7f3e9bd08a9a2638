"""Documents that are made from the code."""

from tests.packaging import ROOT, script


def test_the_page_on_subjects_is_what_the_contracts_say() -> None:
    assert (ROOT / "docs/subjects.md").read_text() == script("docs").render(), "run `make docs` and commit the result"
