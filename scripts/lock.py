"""Renews the locks: requirements/<member>.txt with hashes, and requirements/dev.txt for everything.

`uv.lock` names the hosts of registries, so it stays out of git; what is committed names versions and hashes only.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
SERVICES = {
    "seaway": "seaway",
    "watcher": "seaway-watcher",
    "nginx-config-renderer": "seaway-nginx-config-renderer",
    "haproxy-lb": "seaway-haproxy-lb",
    "keepalived-vip": "seaway-keepalived-vip",
}
UV = "uv==0.13.9"
BUILD = "hatchling==1.33.0\nsetuptools==84.2.1"  # for our own members, and for the one dependency that comes as source


def uv() -> str:
    """The uv that scripts/setup.py keeps."""
    import setup  # noqa: PLC0415 a script beside this one

    return setup.find_uv()


def export(program: str, lock: str, *selection: str) -> None:
    """One lock from the resolved workspace."""
    command = [program, "export", "--quiet", "--no-emit-workspace", "--no-header", "--no-annotate", *selection]
    (LOCKS / lock).write_text(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def compile_one(program: str, requirement: str, lock: str) -> None:
    """The lock of a single tool."""
    command = [program, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--universal", "-"]
    done = subprocess.run(command, cwd=ROOT, input=requirement, capture_output=True, text=True, check=True)
    (LOCKS / lock).write_text(done.stdout)


def main() -> None:
    """Renews every lock."""
    program = uv()
    subprocess.run([program, "lock", "--quiet", "--upgrade"], cwd=ROOT, check=True)
    export(program, "dev.txt", "--all-packages", "--all-extras")
    for service, package in SERVICES.items():
        export(program, f"{service}.txt", "--package", package, "--no-dev")
    compile_one(program, UV, "setup.txt")
    compile_one(program, BUILD, "build.txt")


if __name__ == "__main__":
    main()
