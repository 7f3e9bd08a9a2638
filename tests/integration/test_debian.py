"""Programs of another Debian, beside this machine's."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from common.testing.debian import THIS_MACHINE, debian13

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]  # the root is made here if nobody did before


@pytest.mark.parametrize(("name", "version"), [("nginx", "nginx/1.26."), ("haproxy", "version 3.0."), ("keepalived", "v2.3.")])
def test_a_program_of_debian_13_runs_as_a_command_and_as_a_file(name: str, version: str) -> None:
    for command in (debian13().command(name), [debian13().program(name)]):
        done = subprocess.run([*command, "-v"], capture_output=True, text=True, check=True)
        assert version in done.stdout + done.stderr


def test_it_is_the_process_that_was_started_sees_our_files_and_leaves_nothing_mounted(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    script = f"cat /etc/debian_version; echo $$ > {tmp_path}/pid; touch /usr/of-the-root"
    with subprocess.Popen(
        debian13().command("sh", "-c", script), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said, complained = process.communicate(timeout=60)
    assert said.startswith("13.")
    assert "Read-only file system" in complained
    assert int((tmp_path / "pid").read_text()) == process.pid
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not (Path(debian13().root) / "usr/of-the-root").exists()


def test_it_sees_a_directory_of_ours_that_was_not_there_when_it_was_made() -> None:
    root = Path(debian13().root)
    with tempfile.TemporaryDirectory(prefix="seaway-test-", dir="/") as directory:
        try:
            (Path(directory) / "file").write_text("of this machine")
            done = subprocess.run(debian13().command("cat", f"{directory}/file"), capture_output=True, text=True, check=True)
            assert done.stdout == "of this machine"
        finally:
            root.joinpath(directory.lstrip("/")).rmdir()


def test_this_machines_programs_are_found_where_servers_are() -> None:
    assert THIS_MACHINE.command("nginx", "-v") == ["nginx", "-v"]
    assert os.access(THIS_MACHINE.program("sh"), os.X_OK)
