"""Renews the generated documents: `docs/subjects.md` from the contracts, `docs/annotations.md`, `docs/service-annotations.md` and
`docs/settings.md` from the tables of the services.

With `--check` it only says whether they are current.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel

import haproxy_lb.annotations
from common.bus.streams import ALL
from common.contracts import balancers, subjects, vips
from common.contracts.addresses import WANTED, AddressesWanted
from common.contracts.facts import ALERT, FIRING, AddressGiven, Alert, Applied, Fact, Firing, ObjectName, Rejected
from common.contracts.objects import MODELS, Projection, Secret
from common.contracts.objects.meta import Part, kubernetes_name
from common.contracts.refs import ObjectRef
from common.contracts.state import APPLIED, DELETED, SYNC, SyncMarker
from common.knobs import Knob
from nginx_config_renderer import annotations, option_keys

ROOT = Path(__file__).resolve().parent.parent

HEAD = """\
# What stands where on the bus

Made from `libs/common/src/common/contracts` by `make docs`; a test fails when it is stale. Edit the contracts, not this file.

Every message is a CloudEvent 1.0 in binary mode: attributes are the headers `ce-*`, the body is msgpack, compressed with zstd when it is
above 4 KiB (`ce-datacontenttype` says which). Readers ignore fields that they do not know. Inside a version of a subject root, models grow
by optional fields only; anything else gets a new root.
"""


def streams() -> str:
    """The table of streams."""
    rows = [
        f"| `{stream.name}` | {', '.join(f'`{subject}`' for subject in stream.subjects)} | {stream.retention}"
        f"{', newest message a subject' if stream.per_subject == 1 else ''} | {_age(stream.max_age)} | {stream.description} |"
        for stream in ALL
    ]
    head = "## Streams\n\n| stream | subjects | retention | kept for | carries |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _age(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds else "as long as it is true"


def grammar() -> str:
    """The grammar, in the words of its module."""
    text = (subjects.__doc__ or "").split("\n\n", 1)[1]
    return f"## Subjects\n\n{text.rstrip()}\n"


def objects() -> str:
    """Each projection with its subject and fields."""
    head = f"""\
## Objects (`{APPLIED}`, `{DELETED}`)

`ce-id` is `<uid>.<resourceVersion>`, `ce-subject` is `<namespace>/<name>`; the extensions `k8sgvk`, `k8suid`, `k8srv` and `hash` name the
kind, the uid, the resource version and the digest of the body. A deleted object is an empty body with `KV-Operation: PURGE`, which the
server removes after an hour. The body holds Kubernetes' own fields, those named here; a field with its default is left out.
"""
    return head + "".join(_object(model) for model in MODELS)


def _object(model: type[Projection]) -> str:
    namespace = "shop" if model.namespaced else ""
    subject = subjects.state_subject("prod", ObjectRef(model.resource, namespace, "web"))
    note = "\nA notice: never the data.\n" if model is Secret else ""
    return f"\n### {model.kind} ({model.api_version})\n\n`{subject}`\n{note}\n{_fields(model)}"


def _fields(model: type[Any], indent: str = "") -> str:
    lines = []
    for name, annotation, required in _declared(model):
        lines.append(f"{indent}- `{name}`: {_type(annotation)}{', required' if required else ''}\n")
        if name != "metadata":
            lines.extend(_fields(part, indent + "  ") for part in _parts(annotation))
    return "".join(lines)


def _declared(model: type[Any]) -> Iterator[tuple[str, Any, bool]]:
    """The fields of a model: name on the wire, type, whether it must be there."""
    if issubclass(model, BaseModel):
        yield from ((info.alias or name, info.annotation, info.is_required()) for name, info in model.model_fields.items())
        return
    types = get_type_hints(model)
    for one in fields(model):
        yield kubernetes_name(one.name), types[one.name], one.default is MISSING and one.default_factory is MISSING


def _type(annotation: Any) -> str:
    text = str(annotation) if "[" in str(annotation) or "|" in str(annotation) else annotation.__name__
    for part in _parts(annotation):
        text = text.replace(f"{part.__module__}.{part.__qualname__}", part.__name__)
    return text.replace("typing.", "").replace("collections.abc.Mapping", "dict")


def _parts(annotation: Any) -> list[type[Any]]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel | Part)]


def markers_and_facts() -> str:
    """The models beside the objects."""
    parts: list[tuple[str, str, type[BaseModel]]] = [
        (f"Sync marker (`{SYNC}`)", "sync.v1.<cluster>.<group>.<resource>", SyncMarker),
        ("Fact: applied", "evt.v1.<cluster>.<service>.applied", Applied),
        ("Fact: rejected", "evt.v1.<cluster>.<service>.rejected", Rejected),
        ("Fact: address", "evt.v1.<cluster>.haproxy-lb.address", AddressGiven),
        ("Fact: held, released", "evt.v1.<cluster>.keepalived-vip.held", vips.VipMoved),
        ("Plan of floating addresses", "wanted.v1.<cluster>.keepalived-vip.plan", vips.VipPlan),
        ("What a node holds", "wanted.v1.<cluster>.keepalived-vip.node=2F<name>", vips.VipNode),
        ("What a balancer finds", "wanted.v1.<cluster>.haproxy-lb.node=2F<name>", balancers.BalancerFound),
        (f"Alert (`{ALERT}`)", "alerts.v1.<cluster>.<severity>.<service>.<name>", Alert),
        (f"What fires (`{FIRING}`)", "firing.v1.<cluster>.<service>.<instance>", Firing),
        (f"Addresses wanted (`{WANTED}`)", "wanted.v1.<cluster>.<service>.addresses", AddressesWanted),
    ]
    shown: set[type[BaseModel]] = {Fact, ObjectName, *(model for _, _, model in parts)}
    missing = {model.__name__ for model in Fact.__subclasses__()} - {model.__name__ for model in shown}
    if missing:
        raise SystemExit(f"scripts/docs.py does not show the facts {', '.join(sorted(missing))}; add them")
    return "".join(
        f"\n## {title}\n\n`{subject}`\n\n{' '.join((model.__doc__ or '').split())}\n\n{_fields(model)}"
        for title, subject, model in parts
    )


def subjects_page() -> str:
    """What stands where on the bus."""
    return f"{HEAD}\n{streams()}\n{grammar()}\n{objects()}{markers_and_facts()}"


ANNOTATIONS_HEAD = """\
# Annotations

Made from `annotations.py` of nginx-config-renderer by `make docs`; a test fails when it is stale. Edit the table there, not this file.

All of them begin with `nginx.ingress.kubernetes.io/` and mean what they mean to ingress-nginx; docs/compatibility.md has the differences. A
value that cannot be read is told to the Ingress, and stands for nothing: the route is served as if it were not there.
"""
_TITLES = {
    "policy": "How requests are treated",
    "tls": "Backends that speak TLS",
    "client": "Clients that must show a certificate",
    "affinity": "Clients that stay at their endpoint",
    "canary": "Canaries",
    "stream": "Connections",
    "emergency": "A Service that stands by",
}


def annotations_page() -> str:
    """Which annotations are known."""
    parts = [ANNOTATIONS_HEAD]
    for of, title in _TITLES.items():
        rows = "\n".join(_row(one, annotations.PREFIX) for one in annotations.TABLE.of(of))
        parts.append(f"\n## {title}\n\n| annotation | what it does | unless given |\n|---|---|---|\n{rows}\n")
    return "".join(parts)


def _row(knob: Knob, prefix: str = "") -> str:
    return f"| `{knob.name.removeprefix(prefix)}` | {knob.text} | {f'`{knob.default}`' if knob.default else ''} |"


SERVICES_HEAD = """\
# Annotations of Services

Made from `annotations.py` of haproxy-lb by `make docs`; a test fails when it is stale. Edit the table there, not this file.

They are for Services of type LoadBalancer that haproxy-lb answers, and begin with `seaway.dev/`. A value that cannot be read is told to the
Service, and stands for nothing: it is served as if the annotation were not there.
"""
_OF_SERVICES = {
    "address": "Its address",
    "endpoints": "Who answers",
    "treatment": "How connections are treated",
    "check": "Health checks",
    "timeouts": "Times",
}


def service_annotations_page() -> str:
    """Which annotations of Services are known."""
    parts = [SERVICES_HEAD]
    for of, title in _OF_SERVICES.items():
        rows = "\n".join(_row(one, haproxy_lb.annotations.PREFIX) for one in haproxy_lb.annotations.TABLE.of(of))
        parts.append(f"\n## {title}\n\n| annotation | what it does | unless given |\n|---|---|---|\n{rows}\n")
    return "".join(parts)


SETTINGS_HEAD = """\
# Settings of the edge

Made from `option_keys.py` of nginx-config-renderer by `make docs`; a test fails when it is stale. Edit the table there, not this file.

They are keys of one ConfigMap, `seaway-edge/nginx-config` unless `--configmap` (`SEAWAY_CONFIGMAP`) names another, such as
`ingress-nginx/ingress-nginx-controller`. The keys are those of ingress-nginx. A change of the ConfigMap is tried by nginx in isolation
first, and costs one reload. If any key is unknown or cannot be read, or nginx does not take the result, the whole ConfigMap is refused,
each fault is told, and what was in force stays so, also over restarts. Routes, endpoints and certificates never wait for it.

The key `template.conf.j2` holds a whole template for nginx.conf (Jinja; begin with the one in the image). It is rendered in a sandbox and
tried like everything else; where the machine permits no isolation it is refused.
"""


def settings_page() -> str:
    """Which keys the ConfigMap may have."""
    rows = "\n".join(map(_row, option_keys.TABLE))
    return f"{SETTINGS_HEAD}\n| key | what it does | unless given |\n|---|---|---|\n{rows}\n"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/subjects.md": subjects_page,
    "docs/annotations.md": annotations_page,
    "docs/service-annotations.md": service_annotations_page,
    "docs/settings.md": settings_page,
}


def main() -> None:
    """Writes the documents, or says which are stale."""
    stale = [name for name, page in DOCUMENTS.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != page()]
    if "--check" in sys.argv[1:] and stale:
        sys.exit(f"{', '.join(stale)}: stale; run `make docs` and commit the result")
    for name in stale:
        (ROOT / name).write_text(DOCUMENTS[name]())


if __name__ == "__main__":
    main()
