"""Shown: the certificate for hosts that have none of their own, by a setting of the operator.

It is ingress-nginx's `--default-ssl-certificate`. Without it, and while its Secret cannot be used, that is a self-signed one. It stands in
the tables under a key that no host and no Secret can have.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from common.contracts.objects import Projection, Secret
from common.contracts.objects.meta import Metadata
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.store import Derived, Index, Reads
from nginx_config_renderer.derive.certificates import Need
from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.model import PairKey

SHOWN: Final = "@default"  # in the tables of certificates and of key pairs
_UNTIL: Final = "Until then hosts without a certificate of their own are served with a self-signed one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Projection):
    """The setting, named like the Secret. No bus carries it."""

    resource: ClassVar = Resource("edge.seaway.dev", "showncertificates")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "ShownCertificate"


BY_SHOWN: Final = Index(Shown, lambda one: (PairKey(one.metadata.namespace, one.metadata.name),))


def shown(secret: ObjectRef) -> Shown:
    """The object that says so."""
    return Shown(metadata=Metadata(namespace=secret.namespace, name=secret.name))


def shown_pairs() -> Callable[[Reads, PairKey], Derived[KeyPair]]:
    """The derivation of the key pair."""

    def derive(view: Reads, key: PairKey) -> Derived[KeyPair]:
        ref = ObjectRef(Secret.resource, key.namespace, key.name)
        where = f"Secret {key}, which --default-ssl-certificate names"
        if view.get(Secret, key.namespace, key.name) is None:
            text = f"{where}, does not exist; create it, of type kubernetes.io/tls. {_UNTIL}"
            return Derived(None, (Problem(ref, "SecretNotFound", text),))
        found = view.get(KeyPair, key.namespace, key.name)
        if found is not None and found.problem:
            return Derived(None, (Problem(ref, "BadCertificate", f"{where}: {found.problem}. {_UNTIL}"),))
        return Derived(found)

    return derive


def shown_needs() -> Callable[[Reads, PairKey], Derived[Need]]:
    """The derivation of the Secret whose data must be read."""

    def derive(view: Reads, key: PairKey) -> Derived[Need]:
        notice = view.get(Secret, key.namespace, key.name)
        return Derived(Need(notice.data_version if notice is not None else ""))

    return derive
