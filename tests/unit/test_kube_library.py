"""A kubeconfig is read by the library that knows what it means, and the rest of that library is not loaded."""

import subprocess
import sys

import pytest

MODELS = "kubernetes_asyncio.client.models"
SAY = f"print(sum(name.startswith('{MODELS}') for name in sys.modules))"


def loaded(*statements: str) -> int:
    """How many modules of models there are after these statements, in a process of its own."""
    program = "; ".join(("import sys", *statements, SAY))
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60).stdout)


def test_to_read_a_kubeconfig_loads_no_models_of_kubernetes_objects() -> None:
    assert loaded("import common.kube.kubeconfig") == 0


@pytest.mark.parametrize(
    "order", [("common.kube.kubeconfig", "kubernetes_asyncio"), ("kubernetes_asyncio", "common.kube.kubeconfig")]
)
def test_whoever_wants_the_whole_library_gets_it_before_and_after(order: tuple[str, str]) -> None:
    last = "assert kubernetes_asyncio.config.load_kube_config and kubernetes_asyncio.client.ApiClient and kubernetes_asyncio.client.V1Pod"
    assert loaded(*(f"import {name}" for name in order), "import kubernetes_asyncio", last) > 100
