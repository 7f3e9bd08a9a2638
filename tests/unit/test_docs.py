"""Documents that are made from the code."""

import pytest
from tests.packaging import ROOT, script

DOCS = script("docs")


@pytest.mark.parametrize("name", sorted(DOCS.DOCUMENTS))
def test_a_made_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text() == DOCS.DOCUMENTS[name](), "run `make docs` and commit the result"
