"""The cases of Kubernetes' conformance suite for Ingress controllers (kubernetes-sigs/ingress-controller-conformance), on a real cluster
with Seaway as pods: default backend, hosts, paths, load balancing, classes.

The suite wants a host with a certificate to answer by HTTP too; ingress-nginx, and we, send such requests to HTTPS unless told otherwise,
so that Ingress is told.
"""

import http.client
import json
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from common.testing import wait_until
from common.testing.authority import Authority
from common.testing.kubernetes.cluster import Cluster
from common.testing.kubernetes.images import ECHO
from common.testing.objects import tls_secret
from tests.cluster.conftest import cluster, shared_cluster  # noqa: F401 the machine's one cluster
from tests.cluster.installed import Installed, installed, with_keys

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

AUTHORITY = Authority()
PORT = 8080
SOON = 60.0

Raw = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back, and what the pod saw of the request."""

    status: int
    headers: dict[str, str]
    seen: Raw


@dataclass(frozen=True)
class Feature:
    """Seaway, and a namespace with the backends and the Ingress of a feature."""

    seaway: Installed
    namespace: str

    def ask(self, method: str, host: str, path: str, *, secure: bool = False) -> Answer:
        """One request; `secure` is by HTTPS with the certificate checked for `host`."""
        address = self.seaway.address
        with closing(_Secure(address, host) if secure else http.client.HTTPConnection(address, 80, timeout=10)) as connection:
            headers = {"User-Agent": "conformance/1.1"} | ({"Host": host} if host else {})
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        seen = json.loads(body) if response.status == 200 else {}
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, seen)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """In the namespace of the feature."""
        return self.seaway.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)


class _Secure(http.client.HTTPSConnection):
    """To an address, but for a host: its name is what is asked for and checked."""

    def __init__(self, address: str, host: str) -> None:
        context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
        super().__init__(host, 443, timeout=10, context=context)
        self._address = address
        self._create_connection = lambda _, *rest: socket.create_connection((address, 443), *rest)


@pytest.fixture(scope="module")
def seaway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:  # noqa: F811
    """Seaway, of which every pod is ready."""
    with installed(cluster, with_keys(tmp_path_factory.mktemp("seaway")) / "overlays/single") as found:
        yield found


def backend(name: str, *, replicas: int = 1) -> list[Raw]:
    """A Deployment that answers with `name`, and its Service."""
    container = {
        "name": "echo",
        "image": ECHO,
        "args": [f"-name={name}"] if replicas == 1 else [],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1},
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    ports = [{"name": "http", "port": PORT, "targetPort": PORT}]
    return [
        _object("apps/v1", "Deployment", name, {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}),
        _object("v1", "Service", name, {"selector": labels, "ports": ports}),
    ]


def ingress(name: str, spec: Raw, **annotations: str) -> Raw:
    made = _object("networking.k8s.io/v1", "Ingress", name, {"ingressClassName": "nginx"} | spec)
    made["metadata"]["annotations"] = {
        f"nginx.ingress.kubernetes.io/{key.replace('_', '-')}": text for key, text in annotations.items()
    }
    return made


def rule(host: str, *paths: tuple[str, str, str]) -> Raw:
    """A rule with (path, type, Service)."""
    made = [{"path": path, "pathType": kind, "backend": to(service)} for path, kind, service in paths]
    return {"host": host, "http": {"paths": made}}


def to(service: str, port: str = "") -> Raw:
    return {"service": {"name": service, "port": {"name": port} if port else {"number": PORT}}}


def _object(api: str, kind: str, name: str, spec: Raw) -> Raw:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


@contextmanager
def feature(seaway: Installed, *objects: Raw, shown: bool = True) -> Iterator[Feature]:
    """A feature whose pods are ready and whose Ingress says where it is served, as the suite wants it before each scenario."""
    found = Feature(seaway, f"conformance-{uuid.uuid4().hex[:8]}")
    seaway.cluster.kubectl("create", "namespace", found.namespace)
    try:
        found.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        if any(each["kind"] == "Deployment" for each in objects):
            found.kubectl("wait", "--for=condition=Available", "deployment", "--all", "--timeout=90s")
            # Another controller says where the pods are, later.
            ready = "--for=jsonpath={.endpoints[0].conditions.ready}=true"
            found.kubectl("wait", ready, "endpointslice", "--all", "--timeout=30s")
        if shown:
            path = "{.status.loadBalancer.ingress[0].ip}"
            found.kubectl("wait", f"--for=jsonpath={path}={seaway.address}", "ingress", "--all", "--timeout=30s")
        yield found
    finally:
        found.kubectl(
            "delete", "ingress", "--all", "--timeout=30s"
        )  # the next feature is asked about hosts that this one would answer
        seaway.cluster.kubectl("delete", "namespace", found.namespace, "--wait=false")


# ---- default backend


@pytest.fixture(scope="class")
def default_backend(seaway: Installed) -> Iterator[Feature]:
    alone = ingress("default-backend", {"defaultBackend": to("echo-service")})
    with feature(seaway, *backend("echo-service"), alone) as found:
        yield found


class TestDefaultBackend:
    """An Ingress without rules."""

    @pytest.mark.parametrize(
        ("method", "host", "path"),
        [
            ("GET", "my-host", "/"),
            ("GET", "my-host", "/sub-path"),
            ("POST", "some-host", "/"),
            ("PUT", "", "/resource"),
            ("DELETE", "some-host", "/resource"),
            ("PATCH", "my-host", "/resource"),
        ],
    )
    def test_an_ingress_without_rules_sends_every_request_to_its_default_backend(
        self, default_backend: Feature, method: str, host: str, path: str
    ) -> None:
        answer = default_backend.ask(method, host, path)
        assert answer.status == 200
        assert {"content-length", "content-type", "date", "server"} <= answer.headers.keys()
        seen = answer.seen
        assert (seen["name"], seen["method"], seen["target"], seen["proto"]) == ("echo-service", method, path, "HTTP/1.1")
        assert seen["headers"]["User-Agent"] == ["conformance/1.1"]


# ---- hosts


@pytest.fixture(scope="class")
def hosts(seaway: Installed) -> Iterator[Feature]:
    secret = tls_secret("conformance-tls", AUTHORITY.issue("foo.bar.com"))
    del secret["metadata"]["namespace"]
    named = {"path": "/", "pathType": "Prefix", "backend": to("foo-bar-com", "http")}
    rules = [rule("*.foo.com", ("/", "Prefix", "wildcard-foo-com")), {"host": "foo.bar.com", "http": {"paths": [named]}}]
    tls = [{"hosts": ["foo.bar.com"], "secretName": "conformance-tls"}]
    made = ingress("host-rules", {"tls": tls, "rules": rules}, ssl_redirect="false")
    with feature(seaway, secret, *backend("wildcard-foo-com"), *backend("foo-bar-com"), made) as found:
        yield found


class TestHosts:
    """Rules for hosts."""

    @pytest.mark.parametrize(
        ("scheme", "host", "served_by"),
        [
            ("https", "foo.bar.com", "foo-bar-com"),
            ("http", "foo.bar.com", "foo-bar-com"),
            ("http", "subdomain.bar.com", None),
            ("http", "bar.foo.com", "wildcard-foo-com"),
            ("http", "baz.bar.foo.com", None),
            ("http", "foo.com", None),
        ],
    )
    def test_a_host_is_itself_and_a_wildcard_is_one_label(
        self, hosts: Feature, scheme: str, host: str, served_by: str | None
    ) -> None:
        answer = hosts.ask("GET", host, "/", secure=scheme == "https")
        assert answer.status == (200 if served_by else 404)
        assert (answer.seen.get("name"), answer.seen.get("host")) == ((served_by, host) if served_by else (None, None))


# ---- paths


PATHS = [
    rule("exact-path-rules", ("/foo", "Exact", "foo-exact")),
    rule(
        "prefix-path-rules",
        ("/foo", "Prefix", "foo-prefix"),
        ("/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"),
        ("/aaa", "Prefix", "aaa-prefix"),
    ),
    rule("mixed-path-rules", ("/foo", "Prefix", "foo-prefix"), ("/foo", "Exact", "foo-exact")),
    rule(
        "trailing-slash-path-rules",
        ("/aaa/bbb/", "Prefix", "aaa-slash-bbb-slash-prefix"),
        ("/foo/", "Exact", "foo-slash-exact"),
    ),
]


@pytest.fixture(scope="class")
def paths(seaway: Installed) -> Iterator[Feature]:
    services = sorted({path["backend"]["service"]["name"] for each in PATHS for path in each["http"]["paths"]})
    made = [one for name in services for one in backend(name)]
    with feature(seaway, *made, ingress("path-rules", {"rules": PATHS})) as found:
        yield found


class TestPaths:
    """Rules for paths."""

    @pytest.mark.parametrize(
        ("host", "path", "served_by"),
        [
            ("exact-path-rules", "/foo", "foo-exact"),
            ("exact-path-rules", "/foo/", None),
            ("exact-path-rules", "/FOO", None),
            ("exact-path-rules", "/bar", None),
            ("prefix-path-rules", "/foo", "foo-prefix"),
            ("prefix-path-rules", "/foo/", "foo-prefix"),
            ("prefix-path-rules", "/FOO", None),
            ("prefix-path-rules", "/aaa/bbb", "aaa-slash-bbb-prefix"),
            ("prefix-path-rules", "/aaa/bbb/ccc", "aaa-slash-bbb-prefix"),
            ("prefix-path-rules", "/aaa/ccc", "aaa-prefix"),
            ("prefix-path-rules", "/aaaccc", None),
            ("mixed-path-rules", "/foo", "foo-exact"),
            ("trailing-slash-path-rules", "/aaa/bbb", "aaa-slash-bbb-slash-prefix"),
            ("trailing-slash-path-rules", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
            ("trailing-slash-path-rules", "/foo", None),
        ],
    )
    def test_paths_are_matched_by_type_and_by_element_the_longest_first(
        self, paths: Feature, host: str, path: str, served_by: str | None
    ) -> None:
        answer = paths.ask("GET", host, path)
        assert answer.status == (200 if served_by else 404)
        assert (answer.seen.get("name"), answer.seen.get("target")) == ((served_by, path) if served_by else (None, None))


# ---- load balancing, classes


async def test_all_pods_of_a_backend_are_used(seaway: Installed) -> None:
    alone = ingress("load-balancing", {"defaultBackend": to("echo-service")})
    with feature(seaway, *backend("echo-service", replicas=10), alone) as found:
        pods = set(found.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split())
        assert len(pods) == 10

        def all_used() -> bool:
            answers = [found.ask("GET", "load-balancing", "/") for _ in range(100)]
            assert {answer.status for answer in answers} == {200}
            return {answer.seen["address"].rpartition(":")[0] for answer in answers} == pods

        await wait_until(all_used, within=SOON)


def test_an_ingress_of_a_class_that_is_not_ours_shows_no_address(seaway: Installed) -> None:
    other = ingress("other", {"ingressClassName": "some-invalid-class-name", "defaultBackend": to("echo-service")})
    with feature(seaway, other, ingress("ours", {"rules": [rule("ours.example", ("/", "Prefix", "x"))]}), shown=False) as found:
        path = "{.status.loadBalancer.ingress[0].ip}"
        found.kubectl("wait", f"--for=jsonpath={path}={seaway.address}", "ingress/ours", "--timeout=30s")
        assert json.loads(found.kubectl("get", "ingress", "other", "-o", "json"))["status"]["loadBalancer"] == {}
