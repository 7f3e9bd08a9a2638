"""The renderer's knobs."""

import resource
from pathlib import Path
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from common.contracts.objects import ConfigMap, Secret, Service
from common.contracts.refs import ObjectRef, Resource
from common.kube.election import LEASES, Terms, lasting
from common.runtime.settings import ServiceSettings
from nginx_config_renderer.configuration import Edge
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.derive.reach import Reach
from nginx_config_renderer.options import Options
from nginx_config_renderer.rotation import Rotation
from nginx_config_renderer.streams import Entrances
from nginx_config_renderer.wanted import Around

MODULES: Final = ("ndk_http_module.so", "ngx_http_lua_module.so")
STREAM_MODULES: Final = ("ngx_stream_module.so", "ngx_stream_js_module.so")
_NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?"
_NAME_OR_NONE: Final = rf"^({_NAME})?$"
_LONGEST_SOCKET: Final = 107  # unix(7)


class Settings(ServiceSettings):
    """Which Ingresses are served, where, and by which nginx."""

    state: Path = Field(
        Path("/run/seaway/nginx"),
        description="Directory that nginx and its renderer share. Its `run`, with the admin socket, must belong to nginx's user.",
    )
    vault: Path | None = Field(
        None,
        description="Directory in memory (tmpfs) where key pairs are kept for an nginx that starts while its renderer is away; "
        "nginx and its renderer share it. Without one they are in nginx's memory only.",
    )
    manifests: Path | None = Field(None, description="A folder of manifests that holds the Secrets, instead of an API server.")
    kubeconfig: Path | None = Field(
        None, description="How to reach the API server for Secrets; else KUBECONFIG, the pod's account, ~/.kube/config."
    )
    lease_namespace: str = Field("seaway-edge", description="Namespace of the edges, and of the Lease by which one of them speaks.")
    lease_name: str = Field("seaway-edge", description="Name of that Lease; empty where there is one edge alone.")
    lease_duration: int = Field(15, ge=3, description="Seconds after which an edge that is silent has lost the Lease.")
    publish_status: bool = Field(default=True, description="Whether Ingresses show in their status where they are served.")
    publish_status_address: tuple[str, ...] = Field(
        (), description="Addresses or names to show, such as a floating address; without one those of the nodes of all edges."
    )
    publish_service: str = Field(
        "",
        pattern=_NAME_OR_NONE,
        description="Namespace and name of a Service whose addresses are shown instead, such as that of a balancer before the edges.",
    )
    publish_status_pods: str = Field(
        "app.kubernetes.io/name=nginx-config-renderer",
        description="Label selector of the edges' pods in the namespace of the Lease.",
    )
    http_port: int = Field(80, ge=1, le=65535, description="Port of HTTP.")
    https_port: int = Field(443, ge=0, le=65535, description="Port of HTTPS; 0 is none.")
    ssl_passthrough: bool = Field(
        default=False,
        description="Whether TLS connections to the hosts of Ingresses with the annotation ssl-passthrough go to their Services unopened.",
    )
    tcp_services_configmap: str = Field(
        "seaway-edge/tcp-services",
        pattern=_NAME_OR_NONE,
        description="Namespace and name of the ConfigMap with the TCP ports to open; empty is none.",
    )
    udp_services_configmap: str = Field(
        "seaway-edge/udp-services",
        pattern=_NAME_OR_NONE,
        description="Namespace and name of the ConfigMap with the UDP ports to open; empty is none.",
    )
    default_backend_service: str = Field(
        "",
        pattern=_NAME_OR_NONE,
        description="Namespace and name of a Service whose first port answers what no Ingress claims, instead of 404.",
    )
    default_ssl_certificate: str = Field(
        "",
        pattern=_NAME_OR_NONE,
        description="Namespace and name of a Secret with the certificate of hosts that have none; a self-signed one without it.",
    )
    disable_svc_external_name: bool = Field(
        default=False, description="Whether Services of type ExternalName are refused instead of looked up."
    )
    loopback_endpoints: bool | None = Field(
        None, description="Whether endpoints may be on the loopback address; unless given, with a folder of manifests alone."
    )
    ingress_class: str = Field("nginx", description="Value of the old annotation kubernetes.io/ingress.class that is ours.")
    configmap: str = Field(
        "seaway-edge/nginx-config",
        pattern=rf"^{_NAME}$",
        description="Namespace and name of the ConfigMap with the settings of the edge; see docs/settings.md.",
    )
    failover_configmap: str = Field(
        "seaway-edge/failover",
        pattern=rf"^{_NAME}$",
        description="Namespace and name of the ConfigMap that says which Ingresses are switched to their stand-by Service.",
    )
    controller: str = Field("k8s.io/ingress-nginx", description="IngressClasses with this spec.controller are ours.")
    workers: int = Field(0, ge=0, le=1024, description="Worker processes of nginx; 0 is one a processor.")
    worker_connections: int = Field(16384, ge=64, description="Connections that a worker may have, to clients and to backends.")
    open_files: int = Field(
        default_factory=lambda: min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1] & 0x7FFFFFFF),
        ge=64,
        description="Files and connections that a worker may have open; more than the machine allows is refused to it.",
    )
    strict_trailing_slash: bool = Field(
        default=True,
        description="Whether /foo is not /foo/, as Kubernetes defines; if not, who asks for /foo is sent to an Exact /foo/, "
        "as ingress-nginx does.",
    )
    worker_shutdown_timeout: int = Field(
        240, ge=1, description="Seconds that an old worker may finish its requests after a reload."
    )
    table_size: int = Field(
        64, ge=1, description="MiB of shared memory for each table; 64 hold about 100 000 hosts, or 10 000 key pairs."
    )
    ipv6: bool = Field(default_factory=lambda: Path("/proc/net/if_inet6").exists(), description="Whether to listen on IPv6 too.")
    log_directory: Path | None = Field(
        None,
        description="Directory of nginx's access.log and error.log, which must belong to nginx's user; "
        "without one requests are logged to nginx's output.",
    )
    log_rotate: bool = Field(
        default=True, description="Whether the renderer rotates the logs of that directory; if not, somebody else must."
    )
    log_rotate_size: int = Field(100, ge=1, description="MiB at which a log is rotated.")
    log_rotate_hours: int = Field(24, ge=1, description="Hours after which a log is rotated.")
    log_keep: int = Field(14, ge=1, description="Rotated logs of each kind that are kept, compressed.")
    log_budget: int = Field(1024, ge=4, description="MiB that all logs together may take; the oldest ones go first.")
    nginx: str = Field("nginx", description="The nginx that tests the configuration; the same version as the one that runs it.")
    modules: Path = Field(Path("/usr/lib/nginx/modules"), description="Directory of nginx's modules, where Debian has it.")

    @field_validator("state")
    @classmethod
    def _socket_fits(cls, state: Path) -> Path:
        length = len(str(state.absolute() / "run/admin.sock"))
        if length > _LONGEST_SOCKET:
            raise ValueError(f"the path is too long for a unix socket by {length - _LONGEST_SOCKET} bytes; choose a shorter one")
        return state.absolute()

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.publish_service and self.publish_status_address:
            raise ValueError("publish_service and publish_status_address both say which addresses to show; give one of them")
        return self

    @model_validator(mode="after")
    def _something_to_pass(self) -> Self:
        if self.ssl_passthrough and not self.https_port:
            raise ValueError("ssl_passthrough needs https_port, since it is the connections to HTTPS that are passed on")
        return self

    @model_validator(mode="after")
    def _logs_fit(self) -> Self:
        if self.log_budget < 4 * self.log_rotate_size:
            raise ValueError("log_budget must be four times log_rotate_size, since there are two logs and each may be there twice")
        return self

    @property
    def rotation(self) -> Rotation:
        """When a log gives way to a new one."""
        mib = 1024 * 1024
        return Rotation(self.log_rotate_size * mib, self.log_rotate_hours * 3600, self.log_keep, self.log_budget * mib)

    @property
    def lease(self) -> ObjectRef | None:
        """The Lease by which one of several edges speaks, if there may be several."""
        return ObjectRef(LEASES, self.lease_namespace, self.lease_name) if self.lease_name else None

    @property
    def lease_terms(self) -> Terms:
        """How long the lease lasts, and what follows from that."""
        return lasting(self.lease_duration)

    @property
    def ours(self) -> Class:
        """The class of Ingresses that is served."""
        return Class(self.ingress_class, self.controller)

    @property
    def admin_socket(self) -> Path:
        """Where nginx lets the renderer in."""
        return self.state / "run/admin.sock"

    @property
    def inquiry_socket(self) -> Path:
        """Where nginx says what becomes of a request."""
        return self.state / "run/ask.sock"

    @property
    def key_journal(self) -> Path | None:
        """Where key pairs are kept, if they are."""
        return self.vault / "keys" if self.vault is not None else None

    @property
    def options_ref(self) -> ObjectRef:
        """The operator's ConfigMap."""
        return _configmap(self.configmap)

    @property
    def entrances(self) -> Entrances:
        """What is let in beside HTTP."""
        tcp, udp = self.tcp_services_configmap, self.udp_services_configmap
        return Entrances(
            tcp=_configmap(tcp) if tcp else None,
            udp=_configmap(udp) if udp else None,
            reserved=self._reserved,
            passthrough=self.ssl_passthrough,
        )

    @property
    def _reserved(self) -> frozenset[int]:
        """The ports that the edge has for itself."""
        probes = self.probes.rpartition(":")[2]
        return frozenset({self.http_port, self.https_port, int(probes) if probes.isdigit() else 0} - {0})

    @property
    def around(self) -> Around:
        """What is around the edge."""
        loopback = self.manifests is not None if self.loopback_endpoints is None else self.loopback_endpoints
        return Around(
            fallback=_ref(Service.resource, self.default_backend_service),
            shown=_ref(Secret.resource, self.default_ssl_certificate),
            published=_ref(Service.resource, self.publish_service),
            reach=Reach(loopback=loopback, external=not self.disable_svc_external_name, reserved=self._reserved),
        )

    @property
    def switches(self) -> ObjectRef:
        """The ConfigMap with the switches of operators."""
        return _configmap(self.failover_configmap)

    @property
    def configmaps(self) -> tuple[ObjectRef, ...]:
        """Every ConfigMap that is read."""
        return tuple(sorted({self.options_ref, self.switches, *self.entrances.refs}))

    @property
    def stream_files(self) -> Path:
        """Where nginx finds the endpoints of what it does not open."""
        return self.state / "streams"

    @property
    def options(self) -> Options:
        """What holds where that ConfigMap says nothing."""
        return Options(
            worker_connections=self.worker_connections,
            worker_shutdown_timeout=self.worker_shutdown_timeout,
            strict_trailing_slash=self.strict_trailing_slash,
        )

    def edge(self) -> Edge:
        """What nginx.conf depends on."""
        return Edge(
            http_port=self.http_port,
            https_port=self.https_port,
            workers=str(self.workers or "auto"),
            open_files=self.open_files,
            state=str(self.state),
            run=str(self.state / "run"),
            admin_socket=str(self.admin_socket),
            program=str(self.state / "program"),
            certificate=str(self.state / "default.crt"),
            certificate_key=str(self.state / "default.key"),
            modules=tuple(str(self.modules / module) for module in MODULES),
            journals=tuple(str(path) for path in (self.state / "journal", self.key_journal) if path is not None),
            table_size=self.table_size,
            ipv6=self.ipv6,
            passes=self.ssl_passthrough,
            logs=str(self.log_directory.absolute()) if self.log_directory is not None else "",
            streams=str(self.stream_files),
            authorities=str(self.state / "authorities"),
            stream_modules=tuple(str(self.modules / module) for module in STREAM_MODULES),
        )


def _ref(resource: Resource, text: str) -> ObjectRef | None:
    namespace, _, name = text.partition("/")
    return ObjectRef(resource, namespace, name) if text else None


def _configmap(text: str) -> ObjectRef:
    namespace, _, name = text.partition("/")
    return ObjectRef(ConfigMap.resource, namespace, name)
