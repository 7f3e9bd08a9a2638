"""What a test needs of the machine: root, or a program. Where it is missing the test is skipped, and says what would mend that."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("anywhere", deadline=None)  # how long an example takes says more of the machine than of the code
settings.load_profile("anywhere")

_RUN_NGINX = {"compat", "e2e", "edge"}
_LUA = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
_WHERE = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where servers are is not always in a person's path


def needs(program: str, *, package: str = "") -> pytest.MarkDecorator:
    """Skips where `program` is missing; `package` is the Debian package that it comes with, if that has another name."""
    reason = f"{program} is missing: apt-get install {package or program}"
    return pytest.mark.skipif(shutil.which(program, path=_WHERE) is None, reason=reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `root` for everybody else, and what runs nginx where there is none."""
    for item in items:
        if os.geteuid() != 0 and item.get_closest_marker("root") is not None:
            item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces, mounts or users"))
        if item.path.parent.name in _RUN_NGINX and not _LUA.exists():
            item.add_marker(pytest.mark.skip(reason="nginx or its Lua is missing: python3 scripts/setup.py edge"))
