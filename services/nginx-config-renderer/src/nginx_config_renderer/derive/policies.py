"""Policies: how the requests of each Ingress are treated, where that is not as for everybody."""

from collections.abc import Callable

from common.contracts.objects import Ingress
from common.store import Derived, Reads
from nginx_config_renderer.annotations import wishes
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.secured import secured
from nginx_config_renderer.derive.usual import usual
from nginx_config_renderer.model import IngressKey
from nginx_config_renderer.policy import Special


def policies(ours: Class) -> Callable[[Reads, IngressKey], Derived[Special]]:
    """The derivation for one class of Ingresses."""

    def derive(view: Reads, key: IngressKey) -> Derived[Special]:
        ingress = view.get(Ingress, key.namespace, key.name)
        if ingress is None or belongs(view, ours, ingress) is not True:
            return Derived(None)
        everybody = usual(view)
        asked = wishes(ingress, everybody)
        if asked.canary is not None or asked.policy == everybody:
            return Derived(None, asked.problems)
        special, problems = secured(view, ingress, Special(asked.policy, everybody))
        return Derived(special, (*asked.problems, *problems))

    return derive
