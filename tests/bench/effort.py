"""How much is measured: enough for figures, or so little that only a broken bench is noticed."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path


class CannotRun(Exception):
    """Why a bench cannot run here, in a sentence that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much of each thing."""

    sites: int  # ingresses that are there throughout
    many_sites: int  # ... in the second part of the bench of requests
    changes: int  # of endpoints
    routes: int  # new ingresses
    runs: int  # of the load generator against each edge; the median counts
    seconds: int  # of one such run
    objects: int  # in the API server whose replica is made
    hosts: int  # ingresses of the large cluster
    at_once: int  # ... that are made at once beside them
    lost: int  # ... without a Service, whose Events are waited for
    endpoint_changes: int  # over which memory must stay as it is
    certificate_changes: int  # likewise
    joins: int  # followers that join, one after another
    balanced: int  # Services of type LoadBalancer


FULL = Effort(
    sites=100,
    many_sites=1000,
    changes=120,
    routes=60,
    runs=5,
    seconds=4,
    objects=10_000,
    hosts=10_000,
    at_once=1000,
    lost=40,
    endpoint_changes=100_000,
    certificate_changes=1000,
    joins=5,
    balanced=1000,
)
TINY = Effort(
    sites=2,
    many_sites=3,
    changes=2,
    routes=1,
    runs=1,
    seconds=1,
    objects=20,
    hosts=5,
    at_once=2,
    lost=2,
    endpoint_changes=100,
    certificate_changes=20,
    joins=1,
    balanced=20,
)


def program(name: str, package: str) -> str:
    """The program called `name`: beside this Python, or the machine's. Raises CannotRun, which names the package."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise CannotRun(f"{name} is not installed: {package}")
    return found
