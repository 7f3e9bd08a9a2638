"""Readers of what is shipped: Dockerfiles, manifests, and the knobs that services really have."""

import importlib.util
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from common.runtime.settings import PREFIX, ServiceSettings, unknown

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def script(name: str) -> ModuleType:
    """A program of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Stage:
    """A stage of a Dockerfile: its instructions in their order, and what it stands on."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def last(self, instruction: str) -> str:
        """The instruction that holds, as the last one of its kind."""
        return [rest for word, rest in self.instructions if word == instruction][-1]

    def all(self, instruction: str) -> list[str]:
        """Every instruction of a kind."""
        return [rest for word, rest in self.instructions if word == instruction]


def stages(dockerfile: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile."""
    found: list[Stage] = []
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name, base, ()))
        elif word:
            stage = found[-1]
            found[-1] = Stage(stage.name, stage.base, (*stage.instructions, (word, rest.strip())))
    return {stage.name: stage for stage in found}


def images() -> dict[str, Stage]:
    """Our images by their tags: the stage that each is made of."""
    return {image.tag: stages(image.dockerfile)[image.target] for image in script("images").IMAGES}


def copies(stage: Stage) -> list[str]:
    """Where an image has the files that it takes from the repository one by one."""
    return [rest.split()[-1] for rest in stage.all("COPY") if not rest.startswith("--from")]


def entrypoint(stage: Stage) -> list[str]:
    """What a container of this image runs. In the form without a shell, or a signal would not arrive."""
    command = json.loads(stage.last("ENTRYPOINT"))
    assert isinstance(command, list)
    return command


def environment(stage: Stage) -> dict[str, str]:
    """The variables that an image sets."""
    return dict(pair.split("=", 1) for line in stage.all("ENV") for pair in shlex.split(line))


def manifests(*parts: str) -> Iterator[dict[str, Any]]:
    """The objects in the given bases of deploy/, or in all of them."""
    for part in parts or tuple(path.parent.name for path in DEPLOY.glob("*/kustomization.yaml")):
        kustomization = yaml.safe_load((DEPLOY / part / "kustomization.yaml").read_text())
        for resource in kustomization.get("resources", ()):
            yield from yaml.safe_load_all((DEPLOY / part / resource).read_text())


def one(kind: str, name: str, *parts: str) -> dict[str, Any]:
    """The one object of that kind and name."""
    (found,) = [each for each in manifests(*parts) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def read_settings(kind: type[ServiceSettings], given: Mapping[str, str], monkeypatch: Any) -> ServiceSettings:
    """The settings that a service makes of an environment. Asserts that it knows every variable meant for it."""
    ours = {name: value for name, value in given.items() if name.startswith(PREFIX)}
    assert unknown(kind, ours) == []
    with monkeypatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        settings = kind(_cli_parse_args=[])
    for name in ours:
        found: Any = settings
        for field in name.removeprefix(PREFIX).lower().split("__"):
            assert hasattr(found, field), f"{name} is no knob"
            found = getattr(found, field)
    return settings


def port(address: str) -> int:
    """The port of HOST:PORT."""
    return int(address.rpartition(":")[2])


def arguments(command: Sequence[str]) -> dict[str, str]:
    """Flags and their values."""
    return dict(zip(command[::2], command[1::2], strict=True))
