"""The configuration of the bus's servers: who may say and hear what, and how messages are kept.

A service gets the subjects of its own role and nothing else. Only the watcher writes state, so nobody else can tell the others a false
cluster; each service reports in its own name; answers arrive on an inbox of its own, so nobody reads what others were answered. What
JetStream's API needs for that is derived from the verbs of `common.bus.nats` (`$JS.API.…`, ADR-1, ADR-15).

Two things cannot be said with permissions, because they stand in the body of a request. A reader with several filters can name any, so
whoever follows STATE can read all of it; it holds no secret. And a reader can ask for delivery to a subject of its choice: never to one of
the same stream (the server refuses a cycle), and elsewhere only to who has subscribed to exactly that subject, which no stream does. What a
service said itself it reads again as the last message of one subject (a direct get, ADR-31), for which it needs no reader.

The same rules serve the embedded server of `seaway up`, the compose file and the cluster. `render` is pure: same arguments, same text.
A key, or any other text, that is `$NAME` is read by the server from its environment.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from common.bus import streams, wire
from common.contracts import subjects

WATCHER: Final = "watcher"
RENDERER: Final = "nginx-config-renderer"
BALANCER: Final = "haproxy-lb"
VIP: Final = "keepalived-vip"
OPERATOR: Final = "seaway"

CLIENT_PORT: Final = 4222
ROUTE_PORT: Final = 6222
MONITOR_PORT: Final = 8222

_KEY: Final = re.compile(r"U[A-Z2-7]{55}|\$[A-Z][A-Z0-9_]*", re.ASCII)
_EVERY: Final = tuple(stream.name for stream in streams.ALL)
# A second consumer on a queue would take jobs away from their worker, so nobody reads queues along.
_LOGS: Final = tuple(stream.name for stream in streams.ALL if stream.retention == "limits")


@dataclass(frozen=True, slots=True)
class Role:
    """What a service is to the bus: the streams that it keeps as they should be, those it follows, what it says and what it is asked."""

    name: str
    publishes: tuple[str, ...] = ()
    recalls: tuple[str, ...] = ()  # what of its own it reads again, and changes
    follows: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    looks_up: tuple[str, ...] = ()  # streams of which single messages are read
    answers: tuple[str, ...] = ()  # questions of the operator that it hears


@dataclass(frozen=True, slots=True)
class Permissions:
    """The subjects of one user, as the server checks them. Whatever is not named is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    """A service and the public half of its nkey."""

    role: str
    nkey: str


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of the server's certificate. `authority` signed those of the other servers, which prove themselves with them."""

    certificate: str
    key: str
    authority: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """The servers of one bus, each named by its host."""

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """One server. Sizes are texts such as `8GB`, as nats-server reads them."""

    name: str
    store: str
    listen: str = f"127.0.0.1:{CLIENT_PORT}"
    monitor: str = f"127.0.0.1:{MONITOR_PORT}"  # empty is none
    max_file: str = "8GB"  # the limits of all streams must fit, or the server refuses to make the last of them
    max_memory: str = "256MB"  # readers keep their state in memory, messages do not
    tls: Tls | None = None
    cluster: Cluster | None = None


def roles(cluster: str = "") -> dict[str, Role]:
    """The role of each service, for one Kubernetes cluster or, by default, for whichever it is called."""
    where = subjects.encode(cluster) if cluster else "*"
    state = (f"{subjects.STATE}.{where}.>", f"{subjects.SYNC}.{where}.>")
    known = (
        Role(
            WATCHER,
            recalls=_firing(where, WATCHER),
            publishes=(*state, *_reports(where, WATCHER)),
            follows=(streams.STATE.name,),
            looks_up=(streams.STATE.name,),
            keeps=_EVERY,
        ),
        Role(
            BALANCER,
            recalls=_firing(where, BALANCER),
            publishes=(f"{subjects.WANTED}.{where}.{BALANCER}.*", *_reports(where, BALANCER)),
            follows=(streams.STATE.name,),
            looks_up=(streams.WANTED.name,),
        ),
        Role(
            VIP,
            recalls=_firing(where, VIP),
            publishes=(f"{subjects.WANTED}.{where}.{VIP}.*", *_reports(where, VIP)),
            follows=(streams.STATE.name, streams.WANTED.name),
        ),
        Role(
            RENDERER,
            recalls=_firing(where, RENDERER),
            publishes=_reports(where, RENDERER),
            follows=(streams.STATE.name,),
            answers=(f"{subjects.ASK}.{where}.{RENDERER}.*",),
        ),
        Role(OPERATOR, publishes=(f"{subjects.ASK}.{where}.>",), follows=_LOGS, looks_up=_EVERY),
    )
    return {role.name: role for role in known}


def permissions(role: Role) -> Permissions:
    """What `role` needs of the server, subject by subject."""
    api = {f"{wire.API}.INFO"}
    for stream in (*role.keeps, *role.follows, *role.looks_up):
        api.add(f"{wire.API}.STREAM.INFO.{stream}")
    for stream in role.keeps:
        api |= {f"{wire.API}.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE")}
    for stream in role.follows:
        api |= {f"{wire.API}.CONSUMER.CREATE.{stream}.>"}
        api |= {f"{wire.API}.CONSUMER.{verb}.{stream}.*" for verb in ("DELETE", "MSG.NEXT")}
    for stream in role.looks_up:
        api.add(f"{wire.API}.STREAM.MSG.GET.{stream}")
    for subject in role.recalls:
        api.add(f"{wire.API}.DIRECT.GET.{streams.FIRING.name}.{subject}")
    # Not the server's own leave to answer: it holds for whatever subject the one who asks names.
    answers = (f"{inbox(OPERATOR)}.>",) if role.answers else ()
    return Permissions(tuple(sorted({*api, *role.publishes, *role.recalls, *answers})), (f"{inbox(role.name)}.>", *role.answers))


def inbox(role: str) -> str:
    """The root of the subjects on which `role` is answered; the client must be told it (`BusSettings.inbox`)."""
    return f"_INBOX_{role}"


def variable(role: str) -> str:
    """The environment variable in which a server in a container finds the public key of `role`."""
    return f"{role.replace('-', '_').upper()}_NKEY"


def render(server: Server, users: Iterable[User]) -> str:
    """The text of nats.conf. Raises ValueError for a key that is none, and KeyError for a role that nobody has."""
    known = roles()
    parts = [
        _head(server),
        _tls(server.tls, first=True) if server.tls else "",
        _cluster(server.cluster, server.tls) if server.cluster else "",
        "authorization {\n  users: [\n",
        *(_user(known[user.role], user.nkey) for user in sorted(users, key=lambda user: user.role)),
        "  ]\n}\n",
    ]
    return "".join(parts)


def _reports(where: str, service: str) -> tuple[str, ...]:
    token = subjects.encode(service)
    return f"{subjects.EVENTS}.{where}.{token}.*", f"{subjects.ALERTS}.{where}.*.{token}.*"


def _firing(where: str, service: str) -> tuple[str, ...]:
    return (f"{subjects.FIRING}.{where}.{subjects.encode(service)}.*",)


def _head(server: Server) -> str:
    monitor = f"http: {_text(server.monitor)}\n" if server.monitor else ""
    return f"""\
# Made from seaway.nats_conf; a test fails when it is stale. Edit that module, not this file.
server_name: {_text(server.name)}
listen: {_text(server.listen)}
{monitor}
# An object of Kubernetes may have 1.5 MiB in etcd, and more as JSON.
max_payload: 4MB

jetstream {{
  store_dir: {_text(server.store)}
  max_file_store: {server.max_file}
  max_memory_store: {server.max_memory}
}}

# The second version of acknowledgement subjects breaks clients that count the tokens of the first one.
feature_flags {{ js_ack_fc_v2: false }}

"""


def _tls(tls: Tls, *, first: bool) -> str:
    """TLS for clients (before the server says a word), or for the servers among themselves, who all show a certificate."""
    mode = "handshake_first: true" if first else f"ca_file: {_text(tls.authority)}, verify: true"
    text = f"tls {{ cert_file: {_text(tls.certificate)}, key_file: {_text(tls.key)}, {mode} }}"
    return f"{text}\n\n" if first else text


def _cluster(cluster: Cluster, tls: Tls | None) -> str:
    routes = ", ".join(_text(f"nats://{host}:{ROUTE_PORT}") for host in cluster.hosts)
    mutual = f"  {_tls(tls, first=False)}\n" if tls else ""
    return f"""\
cluster {{
  name: {_text(cluster.name)}
  listen: "0.0.0.0:{ROUTE_PORT}"
  routes: [{routes}]
  # Clients stay with the address that they were given, for which there is a certificate.
  no_advertise: true
{mutual}}}

"""


def _user(role: Role, nkey: str) -> str:
    if not _KEY.fullmatch(nkey):
        raise ValueError(
            f"{nkey!r} is not the public key of an nkey user (U and 55 letters and digits), nor the name of a variable"
        )
    allowed = permissions(role)
    return f"""\
    # {role.name}
    {{
      nkey: {nkey}
      permissions: {{
        publish: {_list(allowed.publish)}
        subscribe: {_list(allowed.subscribe)}
      }}
    }}
"""


def _list(texts: Sequence[str]) -> str:
    lines = "".join(f"          {_text(text)}\n" for text in texts)
    return f"{{ allow: [\n{lines}        ] }}"


def _text(value: str) -> str:
    """A quoted text; a variable stands unquoted, or the server would take it literally."""
    return value if re.fullmatch(r"\$[A-Z][A-Z0-9_]*", value) else json.dumps(value)
