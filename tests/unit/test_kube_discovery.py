"""Resources find their paths, and no name leads to a path of somebody else."""

import pytest

from common.contracts.refs import Resource
from common.kube.discovery import Api, read

INGRESS = Api(Resource("networking.k8s.io", "ingresses"), "v1", "Ingress", namespaced=True)
SERVICE = Api(Resource("", "services"), "v1", "Service", namespaced=True)
NODE = Api(Resource("", "nodes"), "v1", "Node", namespaced=False)
ROLE = Api(Resource("rbac.authorization.k8s.io", "clusterroles"), "v1", "ClusterRole", namespaced=False)


@pytest.mark.parametrize(
    ("api", "namespace", "name", "subresource", "path"),
    [
        (SERVICE, "", "", "", "/api/v1/services"),
        (SERVICE, "shop", "", "", "/api/v1/namespaces/shop/services"),
        (SERVICE, "shop", "web", "status", "/api/v1/namespaces/shop/services/web/status"),
        (INGRESS, "shop", "web", "", "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web"),
        (NODE, "", "worker-3.example.org", "", "/api/v1/nodes/worker-3.example.org"),
        (ROLE, "", "system:node", "", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"),
        (SERVICE, "shop", "../../../nodes/x?a=b#c", "", "/api/v1/namespaces/shop/services/..%2F..%2F..%2Fnodes%2Fx%3Fa%3Db%23c"),
    ],
)
def test_an_object_has_one_path(api: Api, namespace: str, name: str, subresource: str, path: str) -> None:
    assert api.call("get", namespace, name, subresource).path == path


@pytest.mark.parametrize(
    ("api", "namespace", "name"), [(SERVICE, "..", "web"), (SERVICE, "shop", "."), (SERVICE, "", "web"), (NODE, "shop", "n")]
)
def test_a_name_that_no_object_can_have_has_no_path(api: Api, namespace: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"no name|needs a namespace|of the cluster"):
        api.call("get", namespace, name)


def test_a_resource_is_served_in_the_preferred_version_that_has_it() -> None:
    def found(plural: str, kind: str) -> dict[str, object]:
        return {"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced"}

    versions = [
        {"version": "v2", "resources": [found("anchors", "Anchor")]},
        {"version": "v1", "resources": [found("anchors", "Anchor"), found("buoys", "Buoy")]},
        {"version": "v1beta1", "freshness": "Stale"},
    ]
    apis = read([{"items": [{"metadata": {"name": "sea.example.org"}, "versions": versions}]}])
    assert {resource.plural: api.api_version for resource, api in apis.items()} == {
        "anchors": "sea.example.org/v2",
        "buoys": "sea.example.org/v1",
    }
