"""The policy of everybody, which the operator's ConfigMap has: a local object of the store, so that what depends on it is derived again."""

from dataclasses import dataclass
from typing import ClassVar, Final

from common.contracts.objects import Projection
from common.contracts.objects.meta import Metadata
from common.contracts.refs import Resource
from common.store import Reads
from nginx_config_renderer.policy import USUAL, Policy

_NAME: Final = "usual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual(Projection):
    """What was accepted. No bus carries it."""

    resource: ClassVar = Resource("edge.seaway.dev", "usual")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "Usual"
    namespaced: ClassVar = False

    policy: Policy


def accepted(policy: Policy) -> Usual:
    """The object that says so."""
    return Usual(metadata=Metadata(name=_NAME), policy=policy)


def usual(view: Reads) -> Policy:
    """How requests are treated where their Ingress does not say."""
    found = view.get(Usual, "", _NAME)
    return found.policy if found is not None else USUAL
