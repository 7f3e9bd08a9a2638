"""Which Ingresses are ours.

As in ingress-nginx: the old annotation decides alone where it stands; else `spec.ingressClassName` must name an IngressClass of our
controller; an Ingress without a class belongs to the default class (networking.k8s.io/v1 IngressClass), if that is ours. The API server
fills the default class in when an Ingress is created; a folder of manifests has nobody who does.

An Ingress with a name that none can have is nobody's: the API server has checked it, but whoever can publish on the bus has skipped it.
"""

import re
from dataclasses import dataclass
from typing import Final

from common.contracts.objects import Ingress, IngressClass
from common.contracts.problems import Problem
from common.store import Reads
from nginx_config_renderer.derive.indexes import ALL, CLASSES

ANNOTATION: Final = "kubernetes.io/ingress.class"
IS_DEFAULT: Final = "ingressclass.kubernetes.io/is-default-class"


_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE: Final = re.compile(_LABEL, re.ASCII)  # RFC 1123 label
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Class:
    """The class that we serve: the name that the old annotation has, and the controller of the IngressClasses that are ours."""

    name: str = "nginx"
    controller: str = "k8s.io/ingress-nginx"


def belongs(view: Reads, ours: Class, ingress: Ingress) -> bool | Problem:
    """Whether `ingress` is ours; a problem if it surely wants to be, and its class does not exist."""
    if not _NAMESPACE.fullmatch(ingress.metadata.namespace) or not _NAME.fullmatch(ingress.metadata.name):
        return False
    annotated = ingress.metadata.annotations.get(ANNOTATION)
    if annotated is not None:
        return annotated == ours.name
    name = ingress.spec.ingress_class_name
    if not name:
        return any(
            found.spec.controller == ours.controller and found.metadata.annotations.get(IS_DEFAULT) == "true"
            for found in view.by(CLASSES, ALL)
        )
    found = view.get(IngressClass, "", name)
    if found is not None:
        return found.spec.controller == ours.controller
    if name != ours.name:
        return False
    mend = f"create an IngressClass {name} with spec.controller {ours.controller}"
    return Problem(ingress.ref, "ClassNotFound", f"spec.ingressClassName {name!r} does not exist; {mend}")
