"""Which Services are ours: those of type LoadBalancer of our class, and those of none if we are the default.

`spec.loadBalancerClass` cannot be changed while a Service is of that type (v1 ServiceSpec), so nobody else has begun to serve it. One that
is being deleted is nobody's any more.
"""

from dataclasses import dataclass

from common.contracts.objects import Service


@dataclass(frozen=True, slots=True)
class Class:
    """The class that we serve; `default`: also Services that name none."""

    name: str = "seaway.dev/haproxy"
    default: bool = False


def belongs(ours: Class, service: Service) -> bool:
    """Whether `service` is ours."""
    spec = service.spec
    named = spec.load_balancer_class == ours.name if spec.load_balancer_class else ours.default
    return spec.type == "LoadBalancer" and named and not service.metadata.deletion_timestamp
