"""What a test needs of the machine: root, or a program. Where it is missing the test is skipped, and says what would mend that."""

import os
import shutil

import pytest

_WHERE = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where servers are is not always in a person's path


def needs(program: str, *, package: str = "") -> pytest.MarkDecorator:
    """Skips where `program` is missing; `package` is the Debian package that it comes with, if that has another name."""
    reason = f"{program} is missing: apt-get install {package or program}"
    return pytest.mark.skipif(shutil.which(program, path=_WHERE) is None, reason=reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `root` for everybody else."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces, mounts or users"))
