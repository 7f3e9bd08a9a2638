"""Container images without a registry: one layer, written by Python, in the archive format that every runtime imports.

The format is `docker save`'s (manifest.json, a config and layers; https://github.com/moby/docker-image-spec). The same files make the same
bytes, so importing an image again changes nothing.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.testing.kubernetes.binary import echo_program

PAUSE = "localhost/seaway/pause:1"
ECHO = "localhost/seaway/echo:1"
BUSYBOX = "localhost/seaway/busybox:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NOBODY = "65534:65534"
_BUSYBOX = Path("/bin/busybox")  # of Debian's busybox-static


@dataclass(frozen=True, slots=True)
class Image:
    """What is in an image. Every file may be executed; paths are absolute."""

    name: str
    files: Mapping[str, bytes | Path]
    entrypoint: tuple[str, ...]
    links: Mapping[str, str] = field(default_factory=dict)
    user: str = _NOBODY


def pause_image() -> Image:
    """Holds a pod's namespaces open."""
    return Image(PAUSE, {"/bin/busybox": _BUSYBOX}, ("/bin/busybox", "sleep", "2147483647"))


def busybox_image() -> Image:
    """A shell and some clients, for looking at a cluster from inside."""
    applets = ("cat", "nslookup", "sh", "sleep", "wget")
    return Image(BUSYBOX, {"/bin/busybox": _BUSYBOX}, ("/bin/sh",), {f"/bin/{applet}": "busybox" for applet in applets})


def echo_image() -> Image:
    """The HTTP backend of `echo_program`, on port 8080."""
    return Image(ECHO, {"/echo": echo_program()}, ("/echo",))


def write_archive(image: Image, path: Path) -> None:
    """Writes the archive of one image."""
    layer = _layer(image)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": image.entrypoint, "User": image.user, "WorkingDir": "/", "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [image.name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in {"manifest.json": manifest, config_name: config, "layer.tar": layer}.items():
            _add(archive, name, content)


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        paths = [*image.files, *image.links]
        for directory in sorted({parent for path in paths for parent in Path(path).parents if parent != Path("/")}):
            entry = tarfile.TarInfo(str(directory).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        for path, content in sorted(image.files.items()):
            _add(layer, path.lstrip("/"), content if isinstance(content, bytes) else content.read_bytes())
        for path, target in sorted(image.links.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))
