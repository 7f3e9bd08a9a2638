"""What images are made of, as their Dockerfiles say. What is really in them is seen in tests/cluster."""

import re
from pathlib import Path

import pytest
from tests.packaging import ROOT, Stage, entrypoint, images, script, stages

from common.runtime.settings import ServiceSettings
from haproxy_lb.settings import Settings as BalancerSettings
from keepalived_vip.settings import Settings as VipSettings
from nginx_config_renderer.settings import Settings as RendererSettings

IMAGES = script("images").IMAGES
SERVICES = sorted({image.service for image in IMAGES})


def stage(name: str) -> Stage:
    image = next(image for image in IMAGES if image.name == name)
    return stages(image.dockerfile)[image.target]


def test_every_service_has_an_image() -> None:
    assert sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml")) == SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_every_stage_stands_on_debian_or_on_another_stage(service: str) -> None:
    found = stages(ROOT / "services" / service / "Dockerfile")
    assert {each.base for each in found.values()} <= {script("images").BASE, *found}


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_locked_packages_of_a_service_are_installed(service: str) -> None:
    build = stages(ROOT / "services" / service / "Dockerfile")["build"]
    assert f"requirements/build.txt requirements/{service}.txt requirements/" in build.all("COPY")
    for line in build.all("RUN"):
        for command in re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&]*", line):
            assert "--require-hashes" in command or "--no-index --no-deps" in command


@pytest.mark.parametrize("service", SERVICES)
def test_everything_that_is_copied_is_there_and_reaches_the_build(service: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored.count("*") == 1
    for source in script("images").copied(ROOT / "services" / service / "Dockerfile"):
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignored


@pytest.mark.parametrize("name", [image.name for image in IMAGES])
def test_an_image_runs_one_program_as_nobody_in_particular(name: str) -> None:
    """The form without a shell, or a signal would not arrive."""
    assert stage(name).last("USER") == "65532:65532"
    assert Path(entrypoint(stage(name))[0]).is_absolute()
    assert set(images()) == {image.tag for image in IMAGES}


def test_every_program_on_the_way_to_nginx_has_its_capability() -> None:
    shell, *_ = entrypoint(stage("nginx"))
    capable = set(re.findall(r"setcap cap_net_bind_service=ep (\S+)", stage("nginx").last("RUN")))
    assert capable == {shell, "/usr/sbin/nginx"}
    assert "setcap" not in stages(ROOT / "services/nginx-config-renderer/Dockerfile")["edge"].last("RUN")


@pytest.mark.parametrize("name", ["haproxy-lb", "keepalived-vip", "keepalived"])
def test_what_an_ordinary_user_is_given_is_asked_for_by_the_first_program_alone(name: str) -> None:
    """A capability that only the bounding set has is lost at the first program whose file does not ask for it."""
    image = next(image for image in IMAGES if image.name == name)
    first, *words = entrypoint(stage(name))
    runs = [line for each in stages(image.dockerfile).values() if each.name in {name, stage(name).base} for line in each.all("RUN")]
    (asked,) = [found for line in runs for found in re.findall(r"setcap (\S+)=ep (\S+)", line)]
    assert asked[1] == first
    assert any(f"install -D /usr/bin/setpriv {first}" in line for line in runs)
    for option in ("--inh-caps", "--ambient-caps"):
        handed_on = words[words.index(option) + 1]
        assert {f"cap_{each.removeprefix('+')}" for each in handed_on.split(",")} == set(asked[0].split(","))


def test_haproxy_has_no_capability() -> None:
    dockerfile = ROOT / "services/haproxy-lb/Dockerfile"
    for name in ("haproxy", stage("haproxy").base):
        assert not any("setcap" in line for line in stages(dockerfile)[name].all("RUN"))


@pytest.mark.parametrize(
    ("script_name", "variables"),
    [
        ("nginx-config-renderer/nginx.sh", {"state": ("SEAWAY_STATE", RendererSettings, "state")}),
        ("nginx-config-renderer/nginx-answers.sh", {"state": ("SEAWAY_STATE", RendererSettings, "state")}),
        *(
            (
                f"haproxy-lb/{name}",
                {
                    "state": ("SEAWAY_STATE", BalancerSettings, "state"),
                    "sockets": ("SEAWAY_SOCKETS", BalancerSettings, "sockets"),
                },
            )
            for name in ("haproxy.sh", "haproxy-answers.sh")
        ),
        ("keepalived-vip/keepalived.sh", {"run": ("SEAWAY_RUN", VipSettings, "run")}),
        ("keepalived-vip/keepalived-runs.sh", {"run": ("SEAWAY_RUN", VipSettings, "run")}),
    ],
)
def test_a_script_looks_where_its_service_writes(
    script_name: str, variables: dict[str, tuple[str, type[ServiceSettings], str]]
) -> None:
    text = (ROOT / "services" / script_name).read_text()
    for name, (variable, settings, field) in variables.items():
        assert f"{name}=${{{variable}:-{settings.model_fields[field].default}}}" in text


@pytest.mark.parametrize("name", ["nginx", "haproxy", "keepalived"])
def test_a_script_that_a_container_or_its_probe_runs_is_a_program(name: str) -> None:
    dockerfile = next(image for image in IMAGES if image.name == name).dockerfile
    scripts = [ROOT / source for source in script("images").copied(dockerfile) if source.endswith(".sh")]
    programs = {path for path in scripts if path.read_text().startswith("#!")}
    assert programs == {path for path in scripts if path.stat().st_mode & 0o111}
    assert {path.name for path in scripts if path not in programs} == {f"{name}.sh"}, "what keep.sh reads is none"
