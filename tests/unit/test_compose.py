"""docker-compose.yml asks for nothing that is not there.

Its images, ports, volumes, health checks and knobs are those of the Dockerfiles and of the services' settings.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.packaging import ROOT, Stage, copies, entrypoint, environment, images, port, read_settings, script, stages

from common.runtime.settings import ServiceSettings
from nginx_config_renderer.settings import Settings as RendererSettings
from seaway.nats_conf import CLIENT_PORT, MONITOR_PORT, RENDERER, WATCHER, inbox, roles, variable
from watcher.settings import Settings as WatcherSettings

SERVICES: dict[str, tuple[str, type[ServiceSettings]]] = {
    "watcher": (WATCHER, WatcherSettings),
    "nginx-config-renderer": (RENDERER, RendererSettings),
}
# What a build makes there is not in the repository: keys, and the folder of a person's own manifests.
KEYS = Path("deploy/secrets")
OWN = Path("manifests")


def interpolate(text: str) -> str:
    """The text with the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolate((ROOT / "docker-compose.yml").read_text()))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name in CONTAINERS if name != "nats"]


def stage(name: str) -> Stage:
    return images()[CONTAINERS[name]["image"]]


def mounts(name: str) -> dict[str, str]:
    """What is mounted where."""
    return {volume.split(":")[1]: volume.split(":")[0] for volume in CONTAINERS[name]["volumes"]}


def settings_of(name: str, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    return read_settings(SERVICES[name][1], CONTAINERS[name]["environment"], monkeypatch)


def test_it_is_the_bus_and_every_image_that_serves_one_machine() -> None:
    """Floating addresses are of a cluster's nodes and of their own network: see deploy/."""
    assert CONTAINERS["nats"]["image"] == script("images").NATS
    built = {image.tag: image.service for image in script("images").IMAGES}
    assert {CONTAINERS[name]["image"] for name in OURS} == {
        tag for tag, service in built.items() if service not in {"haproxy-lb", "keepalived-vip"}
    }


@pytest.mark.parametrize("name", OURS)
def test_an_image_is_built_from_the_stage_that_it_is_named_for(name: str) -> None:
    build = CONTAINERS[name]["build"]
    assert stages(ROOT / build["context"] / build["dockerfile"])[build["target"]] == stage(name)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_may_do_nothing_that_it_need_not(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "nginx" else [])
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in container
    assert "network_mode" not in container
    if name in OURS:
        assert "user" not in container
        assert stage(name).last("USER") == "65532:65532"


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_file_that_is_mounted_is_in_the_repository_or_made_by_make_keys(name: str) -> None:
    keys = script("nats-keys")
    made = {keys.USERS, *keys.CERTIFICATES, *(f"{role}.nkey" for role in roles())}
    for source in [*mounts(name).values(), *CONTAINERS[name].get("env_file", ())]:
        path = Path(source)
        if source in COMPOSE["volumes"] or path == OWN:
            continue
        assert path.name in made if path.parent == KEYS else (ROOT / path).is_file(), source


def test_every_volume_is_used() -> None:
    assert set(COMPOSE["volumes"]) <= {source for name in CONTAINERS for source in mounts(name).values()}


def test_the_server_of_the_bus_finds_what_its_configuration_names() -> None:
    there = mounts("nats")
    nats = CONTAINERS["nats"]
    config = nats["entrypoint"][nats["entrypoint"].index("--config") + 1]
    text = (ROOT / there[config]).read_text()
    named = set(re.findall(r'"(/[^"]+)"', text))
    assert named == set(there) - {config}
    assert named >= {script("deploy").TLS.key, "/data"}
    given = {*nats["environment"], *(variable(role) for role in roles())}
    assert set(re.findall(r"\$([A-Z][A-Z0-9_]*)\b", text.replace("$JS.", ""))) <= given


def test_clients_call_the_bus_by_a_name_for_which_it_has_a_certificate() -> None:
    names = script("nats-keys").NAMES
    for name in SERVICES:
        host, _, number = CONTAINERS[name]["environment"]["SEAWAY_BUS__URL"].removeprefix("nats://").partition(":")
        assert host in CONTAINERS
        assert host in names
        assert int(number) == CLIENT_PORT


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_knob_and_every_file_that_it_names_is_mounted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(name, monkeypatch)
    role = SERVICES[name][0]
    assert settings.bus.inbox == inbox(role)
    assert mounts(name)[str(settings.bus.nkey_file)] == f"./{KEYS}/{role}.nkey"
    assert str(settings.bus.tls_ca) in mounts(name)


@pytest.mark.parametrize("source", ["manifests", "kubeconfig"])
@pytest.mark.parametrize("name", SERVICES)
def test_each_service_follows_either_source(source: str, name: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text().replace("${SEAWAY_SOURCE:-manifests}", source)
    service = yaml.safe_load(interpolate(text))["services"][name]
    settings = SERVICES[name][1](_cli_parse_args=service["command"])
    assert str(getattr(settings, source)) in mounts(name)


def test_keys_are_kept_in_memory_where_nginx_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("nginx-config-renderer", monkeypatch)
    assert isinstance(settings, RendererSettings)
    vault = mounts("nginx-config-renderer")[str(settings.vault)]
    assert mounts("nginx")[str(settings.vault)] == vault
    assert COMPOSE["volumes"][vault]["driver_opts"]["type"] == "tmpfs"


def test_nginx_and_its_renderer_share_the_directory_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("nginx-config-renderer", monkeypatch)
    assert isinstance(settings, RendererSettings)
    state = str(settings.state)
    assert CONTAINERS["nginx"]["environment"]["SEAWAY_STATE"] == state
    assert mounts("nginx")[state] == mounts("nginx-config-renderer")[state]
    base = stages(ROOT / "services/nginx-config-renderer/Dockerfile")["edge"]
    assert f"install -d -o 65532 -g 65532 -m 0700 {state}" in base.last("RUN")
    assert "/tmp" in CONTAINERS["nginx-config-renderer"]["tmpfs"]  # noqa: S108 where a configuration is tested


def test_the_ports_are_those_on_which_nginx_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("nginx-config-renderer", monkeypatch)
    assert isinstance(settings, RendererSettings)
    assert [port(each) for each in CONTAINERS["nginx"]["ports"]] == [settings.http_port, settings.https_port]


def test_the_bus_is_open_to_this_machine_alone() -> None:
    assert CONTAINERS["nats"]["ports"] == [f"127.0.0.1:{CLIENT_PORT}:{CLIENT_PORT}"]
    for name in SERVICES:
        assert "ports" not in CONTAINERS[name]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_health_check_asks_what_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, program, *arguments = CONTAINERS[name]["healthcheck"]["test"]
    assert kind == "CMD"
    if name in SERVICES:
        assert program == entrypoint(stage(name))[0]
        assert arguments == ["-m", "common.runtime.probe", "readyz"]
        assert importlib.util.find_spec(arguments[1]) is not None
        assert port(settings_of(name, monkeypatch).probes) > 0
    elif name == "nginx":
        assert program in copies(stage(name))
    else:
        assert f":{MONITOR_PORT}/healthz" in arguments[-1]


@pytest.mark.parametrize("name", OURS)
def test_a_program_is_found_on_the_path_of_its_image(name: str) -> None:
    """The base may set no PATH, and runtimes differ in what they take instead."""
    assert {"/usr/bin", "/bin"} <= set(environment(stage(name))["PATH"].split(":"))
    assert Path(entrypoint(stage(name))[0]).is_absolute()
