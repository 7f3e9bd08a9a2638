"""deploy/ asks for no more than the services need, and for nothing that is not there. That it works is seen in tests/cluster."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.packaging import DEPLOY, ROOT, copies, images, manifests, one, port, read_settings, script

from common.bus.streams import ALL
from common.contracts.objects import MODELS, ConfigMap
from common.pools import KEY, read_pools
from common.runtime.settings import ServiceSettings
from haproxy_lb.settings import Settings as BalancerSettings
from keepalived_vip.settings import Settings as VipSettings
from nginx_config_renderer.settings import Settings as RendererSettings
from seaway.nats_conf import BALANCER, RENDERER, VIP, WATCHER, inbox, roles
from watcher.settings import Settings as WatcherSettings

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
EDGE = "nginx-config-renderer"
LB = "haproxy-lb"
VIPS = "keepalived-vip"
PARTS = ("nats", "watcher", EDGE, LB, VIPS)
SERVICES: dict[str, tuple[str, type[ServiceSettings]]] = {
    "watcher": (WATCHER, WatcherSettings),
    EDGE: (RENDERER, RendererSettings),
    LB: (BALANCER, BalancerSettings),
    VIPS: (VIP, VipSettings),
}
# What a container may do that others may not; each has its reason in its Dockerfile.
CAPABILITIES = {
    "nginx": {"NET_BIND_SERVICE"},
    LB: {"NET_ADMIN"},
    VIPS: {"NET_ADMIN", "NET_RAW"},
    "keepalived": {"NET_ADMIN", "NET_RAW", "SYS_NICE"},
}


def workloads() -> list[dict[str, Any]]:
    return [each for each in manifests() if each["kind"] in WORKLOADS]


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [(each["metadata"]["name"], each["spec"]["template"]["spec"]) for each in workloads()]


def containers() -> list[Any]:
    return [
        pytest.param(spec, container, id=f"{name}/{container['name']}") for name, spec in pods() for container in spec["containers"]
    ]


def pod(name: str) -> dict[str, Any]:
    (spec,) = [spec for each, spec in pods() if each == name]
    return spec


def mounted(container: dict[str, Any], volume: str) -> str:
    """Where a container has a volume."""
    (path,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == volume]
    assert isinstance(path, str)
    return path


def variables(container: dict[str, Any]) -> dict[str, str]:
    """What a container finds in its environment, with the overlay's ConfigMap `seaway`."""
    found = {each["name"]: each.get("value", "a-name") for each in container.get("env", ())}
    for source in container.get("envFrom", ()):
        if source.get("configMapRef", {}).get("name") == "seaway":
            found |= dict(line.split("=", 1) for line in (DEPLOY / "overlays/single/seaway.env").read_text().splitlines())
    return found


def kustomization(part: str) -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / part / "kustomization.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_generated_configurations_are_current() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/deploy.py"), "--check"], check=True)


def test_no_key_is_in_the_repository() -> None:
    kept = subprocess.run(["git", "ls-files", "deploy/secrets"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert kept.split() == ["deploy/secrets/.gitignore", "deploy/secrets/kustomization.yaml"]


def test_every_generated_secret_is_of_a_file_that_the_script_writes() -> None:
    keys = script("nats-keys")
    written = {keys.USERS, *keys.CERTIFICATES, *(f"{role}.nkey" for role in roles())}
    generators = kustomization("secrets")
    named = [file.rpartition("=")[2] for each in generators["secretGenerator"] for file in each["files"]]
    named += [file for each in generators["configMapGenerator"] for file in each["envs"]]
    assert set(named) <= written


@pytest.mark.parametrize(("spec", "container"), containers())
def test_a_container_may_do_nothing_that_it_need_not(spec: dict[str, Any], container: dict[str, Any]) -> None:
    """The Pod Security Standard `restricted`, and more (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    assert set(context["capabilities"].get("add", ())) == CAPABILITIES.get(container["name"], set())
    assert {"runAsUser", "runAsGroup", "runAsNonRoot", "privileged"}.isdisjoint(context)
    assert not spec.get("hostPID")
    assert not spec.get("hostIPC")
    assert spec["enableServiceLinks"] is False
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("spec", "container"), containers())
def test_a_container_is_probed_where_it_listens(spec: dict[str, Any], container: dict[str, Any]) -> None:
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]
        if "exec" in probe:
            assert probe["exec"]["command"][0] in copies(images()[container["image"]])
        else:
            assert probe["httpGet"]["port"] in ports
    if container["name"] in SERVICES:
        address = variables(container)["SEAWAY_PROBES"]
        assert ports["probes"] == port(address)
        assert address.startswith("127.0.0.1:" if spec.get("hostNetwork") else "0.0.0.0:")
        assert container["readinessProbe"]["httpGet"].get("host") == ("127.0.0.1" if spec.get("hostNetwork") else None)


@pytest.mark.parametrize(("spec", "container"), containers())
def test_every_image_is_one_that_is_built_or_the_server_of_the_bus(spec: dict[str, Any], container: dict[str, Any]) -> None:
    assert container["image"] in {*images(), script("images").NATS}


@pytest.mark.parametrize(("spec", "container"), containers())
def test_everything_mounted_is_there(spec: dict[str, Any], container: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        assert mount["name"] in volumes
    generated = {each["name"] for each in kustomization("secrets")["secretGenerator"]}
    wanted = {volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume}
    assert wanted <= generated


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_knob_and_its_value_is_taken(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    role, kind = SERVICES[service]
    (container,) = [container for _, spec in pods() for container in spec["containers"] if container["name"] == service]
    settings = read_settings(kind, variables(container), monkeypatch)
    assert settings.instance == "a-name"
    assert settings.bus.inbox == inbox(role)
    assert settings.bus.nkey_file is not None
    assert settings.bus.tls_ca is not None


def test_only_the_edge_is_on_the_hosts_network() -> None:
    namespaces = {each["metadata"]["name"]: each["metadata"]["labels"] for each in manifests("namespaces")}
    for part in PARTS:
        strict = namespaces[kustomization(part)["namespace"]]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert [spec.get("hostNetwork", False) for name, spec in pods() if name == part] == [not strict]
        assert strict is (part in {"nats", "watcher"})


def test_selectors_select_the_pods_of_their_own_part() -> None:
    for part in PARTS:
        mine = {"app.kubernetes.io/name": part}
        labels = kustomization(part)["labels"]
        assert labels[0]["pairs"].items() >= mine.items()
        assert labels[0]["includeTemplates"] is True
        for each in manifests(part):
            spec = each.get("spec", {})
            if each["kind"] in {*WORKLOADS, "PodDisruptionBudget"}:
                assert spec["selector"] == {"matchLabels": mine}
            if each["kind"] == "Service":
                assert spec["selector"] == mine
            if each["kind"] == "NetworkPolicy":
                assert spec["podSelector"] == {"matchLabels": mine}


def test_the_bus_is_open_to_those_who_carry_its_label_and_each_of_its_clients_does() -> None:
    policy = one("NetworkPolicy", "nats", "nats")["spec"]["ingress"]
    (clients,) = [rule["from"] for rule in policy if {"port": "client"} in rule["ports"]]
    assert clients == [{"podSelector": {"matchLabels": {"seaway.dev/bus": "client"}}}]
    assert all(rule.get("from") for rule in policy)
    for each in workloads():
        names = [env["name"] for container in each["spec"]["template"]["spec"]["containers"] for env in container.get("env", ())]
        if "SEAWAY_BUS__URL" in names:
            assert each["spec"]["template"]["metadata"]["labels"]["seaway.dev/bus"] == "client"


def test_the_watcher_may_read_exactly_what_it_follows() -> None:
    rules = one("ClusterRole", "seaway-watcher", "watcher")["rules"]
    granted = [(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]]
    assert sorted(granted) == sorted((model.resource.group, model.resource.plural) for model in MODELS)
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_the_watcher_may_hold_its_own_lease_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = WatcherSettings(_cli_parse_args=[])
    assert kustomization("watcher")["namespace"] == settings.lease_namespace
    rules = one("Role", "watcher", "watcher")["rules"]
    assert {resource for rule in rules for resource in rule["resources"]} == {"leases"}
    named = [rule for rule in rules if rule["verbs"] != ["create"]]
    assert [rule["resourceNames"] for rule in named] == [[settings.lease_name]]


def test_the_edge_may_read_one_secret_at_a_time_and_tell_what_became_of_ingresses() -> None:
    assert one("ClusterRole", "seaway-nginx-config-renderer", EDGE)["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]


def test_the_edge_may_hold_its_own_lease_and_no_other() -> None:
    settings = RendererSettings(_cli_parse_args=[])
    assert kustomization(EDGE)["namespace"] == settings.lease_namespace
    rules = one("Role", EDGE, EDGE)["rules"]
    assert {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]} == {
        ("leases", "create"),
        ("leases", "get"),
        ("leases", "update"),
        ("pods", "list"),
    }
    assert [rule["resourceNames"] for rule in rules if "resourceNames" in rule] == [[settings.lease_name]]
    name, _, value = settings.publish_status_pods.partition("=")
    labels = kustomization(EDGE)["labels"][0]
    assert (labels["pairs"][name], labels["includeTemplates"]) == (value, True), "its own pods are found by their label"


def test_the_balancer_may_tell_services_and_keep_its_record_and_no_more() -> None:
    settings = BalancerSettings(_cli_parse_args=[])
    assert one("ClusterRole", "seaway-haproxy-lb", LB)["rules"] == [
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    namespace = kustomization(LB)["namespace"]
    assert namespace == settings.lease_namespace
    named = {
        (resource, name): rule["verbs"]
        for rule in one("Role", LB, LB)["rules"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    assert named == {
        ("leases", ""): ["create"],
        ("leases", settings.lease_name): ["get", "update"],
        ("configmaps", ""): ["create"],
        ("configmaps", settings.reservations.name): ["get", "patch"],
    }
    assert settings.reservations.namespace == namespace


def test_addresses_are_held_without_any_right_in_the_cluster() -> None:
    assert [each["kind"] for each in manifests(VIPS)] == ["ServiceAccount", "DaemonSet"]


def test_nobody_gets_a_token_that_does_not_need_it() -> None:
    with_token = set()
    for name, spec in pods():
        assert spec["automountServiceAccountToken"] is (name == "watcher")
        assert spec["serviceAccountName"] == name
        given = {volume["name"] for volume in spec["volumes"] if "serviceAccountToken" in str(volume.get("projected"))}
        with_token |= {
            container["name"]
            for container in spec["containers"]
            if any(mount["name"] in given for mount in container["volumeMounts"])
        }
    assert with_token == {EDGE, LB}


def test_only_those_who_hold_addresses_have_something_on_the_node() -> None:
    found = {(name, volume["hostPath"]["path"]) for name, spec in pods() for volume in spec["volumes"] if "hostPath" in volume}
    settings = VipSettings(_cli_parse_args=[])
    assert found == {(VIPS, str(settings.run)), (VIPS, str(settings.state))}


def test_the_only_container_of_root_gives_two_directories_away_and_can_do_nothing_else() -> None:
    spec = pod(VIPS)
    (first,) = spec["initContainers"]
    assert not [name for name, other in pods() if name != VIPS and "initContainers" in other]
    assert first["command"] == ["chown", "65532:65532", mounted(first, "run"), mounted(first, "state")]
    assert first["image"] in images()
    context = first["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)


def test_haproxy_reads_what_its_service_writes_and_is_spoken_to_at_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    service, haproxy = pod(LB)["containers"]
    settings = read_settings(BalancerSettings, variables(service), monkeypatch)
    assert isinstance(settings, BalancerSettings)
    assert variables(haproxy) == {"SEAWAY_STATE": str(settings.state), "SEAWAY_SOCKETS": str(settings.sockets)}
    for container in (service, haproxy):
        assert mounted(container, "configuration") == str(settings.state)
        assert mounted(container, "sockets") == str(settings.sockets)
    (shared,) = [mount for mount in haproxy["volumeMounts"] if mount["name"] == "configuration"]
    assert shared["readOnly"] is True, "who breaks into HAProxy writes nothing that the service, with its token, then reads"
    assert {mount["name"] for mount in haproxy["volumeMounts"]} == {"configuration", "sockets"}
    assert [each["containerPort"] for each in haproxy["ports"]] == [settings.port]


def test_keepalived_and_its_service_share_their_directory_and_their_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = pod(VIPS)
    service, keepalived = spec["containers"]
    settings = read_settings(VipSettings, variables(service), monkeypatch)
    assert isinstance(settings, VipSettings)
    assert spec["shareProcessNamespace"] is True
    assert settings.run_keepalived is False
    assert variables(keepalived) == {"SEAWAY_RUN": str(settings.run)}
    assert mounted(service, "run") == mounted(keepalived, "run") == str(settings.run)
    assert mounted(service, "state") == str(settings.state)


def test_a_node_holds_addresses_while_its_balancer_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    service, haproxy = pod(LB)["containers"]
    settings = read_settings(VipSettings, variables(pod(VIPS)["containers"][0]), monkeypatch)
    assert isinstance(settings, VipSettings)
    assert set(settings.edges) == {
        f"tcp:127.0.0.1:{haproxy['ports'][0]['containerPort']}",
        f"http://{variables(service)['SEAWAY_PROBES']}",
    }


@pytest.mark.parametrize("name", ["single-lb", "cluster-lb"])
def test_the_pools_are_where_services_look_for_them_and_are_good(name: str) -> None:
    overlay = kustomization(f"overlays/{name}")
    assert overlay["components"] == ["../../components/load-balancer"]
    (made,) = overlay["configMapGenerator"]
    for settings in (BalancerSettings(_cli_parse_args=[]), VipSettings(_cli_parse_args=[])):
        assert settings.pools_configmap == f"{made['namespace']}/{made['name']}"
    assert made["options"]["disableNameSuffixHash"] is True
    assert made["files"] == [KEY]
    text = (DEPLOY / "overlays" / name / KEY).read_text()
    example = "\n".join(line.removeprefix("#     ") for line in text.splitlines() if line.startswith("#     "))
    for pools in (text, example):
        read = read_pools(ConfigMap.read({"metadata": {"name": "p", "namespace": "e"}, "data": {KEY: pools}}))
        assert (read.problems, read.pools is not None) == ((), True)


def test_no_two_containers_on_the_hosts_network_have_the_same_port() -> None:
    ports = [
        (each["containerPort"], each.get("protocol", "TCP"))
        for _, spec in pods()
        if spec.get("hostNetwork")
        for container in spec["containers"]
        for each in container.get("ports", ())
    ]
    assert len(set(ports)) == len(ports)


def test_nginx_and_its_renderer_share_the_directory_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    (spec,) = [spec for name, spec in pods() if name == EDGE]
    renderer, nginx = spec["containers"]
    settings = read_settings(RendererSettings, variables(renderer), monkeypatch)
    assert isinstance(settings, RendererSettings)
    assert variables(nginx) == {"SEAWAY_STATE": str(settings.state)}
    for container in (renderer, nginx):
        (shared,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "edge"]
        assert settings.state.parent.as_posix() == shared
        (keys,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "keys"]
        assert variables(renderer)["SEAWAY_VAULT"] == keys
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "keys"]
    assert volume["emptyDir"]["medium"] == "Memory", "keys are on no disk"
    http, https = settings.http_port, settings.https_port
    assert {"http": (http, "TCP"), "https": (https, "TCP"), "http3": (https, "UDP")} == {
        each["name"]: (each["containerPort"], each.get("protocol", "TCP")) for each in nginx["ports"]
    }


def test_no_service_is_killed_while_it_ends_in_order() -> None:
    for service, (_, kind) in SERVICES.items():
        (grace,) = [spec["terminationGracePeriodSeconds"] for name, spec in pods() if name == service]
        assert grace > kind.model_fields["shutdown_deadline"].default


def test_the_class_is_the_one_that_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RendererSettings(_cli_parse_args=[])
    offered = one("IngressClass", settings.ingress_class, EDGE)
    assert offered["spec"]["controller"] == settings.controller


def test_servers_have_a_certificate_for_every_name_by_which_they_are_called() -> None:
    names = script("nats-keys").NAMES
    deploy = script("deploy")
    called = {re.sub(r"^nats-\d+\.", "*.", host) for host in deploy.THREE.hosts}
    for _, spec in pods():
        for container in spec["containers"]:
            url = variables(container).get("SEAWAY_BUS__URL")
            called |= {url.removeprefix("nats://").partition(":")[0]} if url else set()
    assert called <= set(names)


def test_the_store_of_a_server_has_room_for_all_streams() -> None:
    volume = next(
        volume for volume in one("StatefulSet", "nats", "nats")["spec"]["template"]["spec"]["volumes"] if volume["name"] == "data"
    )
    limit = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3
    assert sum(stream.max_bytes for stream in ALL) < 8 * 1024**3 < limit


def test_three_servers_keep_three_copies_on_three_nodes() -> None:
    servers = yaml.safe_load((DEPLOY / "overlays/cluster/three-servers.yaml").read_text())["spec"]
    copies = yaml.safe_load((DEPLOY / "overlays/cluster/three-copies.yaml").read_text())["spec"]["template"]["spec"]["containers"][
        0
    ]
    assert servers["replicas"] == len(script("deploy").THREE.hosts) == int(variables(copies)["SEAWAY_STREAM_REPLICAS"])
    assert servers["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]


def test_logs_in_a_directory_are_for_both_containers_of_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the component patches is there, and the setting that it makes is one."""
    (patch,) = kustomization("components/log-directory")["patches"]
    patched = yaml.safe_load(patch["patch"])
    edge = next(each for each in workloads() if (each["kind"], each["metadata"]["name"]) == (patch["target"]["kind"], EDGE))
    spec, there = patched["spec"]["template"]["spec"], edge["spec"]["template"]["spec"]
    assert [each["name"] for each in spec["containers"]] == [each["name"] for each in there["containers"]]
    assert not {each["name"] for each in spec["volumes"]} & {each["name"] for each in there["volumes"]}
    (mount,) = {each["volumeMounts"][0]["mountPath"] for each in spec["containers"]}
    settings = read_settings(RendererSettings, variables(spec["containers"][0]), monkeypatch)
    assert isinstance(settings, RendererSettings)
    assert settings.log_directory == Path(mount)
