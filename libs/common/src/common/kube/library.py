"""`kubernetes_asyncio`'s reader of kubeconfigs, without the rest of that library.

Whoever imports any module of it gets all of it: its packages import a thousand modules of models and calls, which take a second and
60 MB, and stay. The reader needs none of them. A package whose name is in `sys.modules` is not run when something in it is imported
(docs.python.org/3/reference/import.html#the-module-cache), so while the reader is loaded two empty ones stand there. They are taken away
again, and who imports the library afterwards gets it whole, with the same reader.
"""

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_NAME: Final = "kubernetes_asyncio"
_CLIENT: Final = f"{_NAME}.client"


class _NoClient:
    """In the place of a class that the reader only names."""


def load() -> Any:
    """The module `kubernetes_asyncio.config.kube_config`. Raises ImportError where there is no such library."""
    reader = f"{_NAME}.config.kube_config"
    if _NAME in sys.modules or reader in sys.modules:
        return import_module(reader)
    spec = importlib.util.find_spec(_NAME)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{_NAME} is not installed", name=_NAME)
    places = list(spec.submodule_search_locations)
    sys.modules[_NAME] = _package(_NAME, places)
    sys.modules[_CLIENT] = client = _package(_CLIENT, [f"{place}/client" for place in places])
    try:
        vars(client).update(ApiClient=_NoClient, Configuration=import_module(f"{_CLIENT}.configuration").Configuration)
        return import_module(reader)
    finally:
        del sys.modules[_NAME], sys.modules[_CLIENT]


def _package(name: str, places: list[str]) -> ModuleType:
    made = ModuleType(name)
    made.__path__ = places
    return made
