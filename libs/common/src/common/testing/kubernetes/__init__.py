"""A real Kubernetes for tests, of Kubernetes' own programs.

`kube_api()` is an API server of a test's own, in some seconds and without root. `python -m common.testing.kubernetes up` is a whole cluster
of one node, with pods, for root.
"""

from common.testing.building import CannotBuild
from common.testing.kubernetes.binary import echo_program, kubernetes_programs
from common.testing.kubernetes.control_plane import KubeApi, KubectlError, kube_api
from common.testing.kubernetes.network import BackendNamespace, backend_namespace

__all__ = [
    "BackendNamespace",
    "CannotBuild",
    "KubeApi",
    "KubectlError",
    "backend_namespace",
    "echo_program",
    "kube_api",
    "kubernetes_programs",
]
