"""What only some edges need is loaded when it is needed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("library", ["dns", "kubernetes_asyncio"])
def test_a_renderer_does_not_begin_with_a_library_that_it_may_never_need(library: str) -> None:
    program = f"import sys, nginx_config_renderer.__main__; print({library!r} in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.strip() == "False"
