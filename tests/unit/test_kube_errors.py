"""Every refusal is a sentence that names the object and the mend."""

import json

import pytest

from common.contracts.refs import Resource
from common.kube import errors
from common.kube.errors import Call, KubeError, from_status, refusal

INGRESSES = Resource("networking.k8s.io", "ingresses")
LIST = Call("list", "/apis/networking.k8s.io/v1/ingresses", INGRESSES)
GET = Call("get", "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web", INGRESSES, "shop", "web")


def status(code: int, message: str = "so it is", **more: object) -> bytes:
    return json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, errors.Invalid),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (405, errors.Invalid),
        (409, errors.Conflict),
        (410, errors.Gone),
        (422, errors.Invalid),
        (429, errors.TooManyRequests),
        (500, errors.ServerFault),
        (502, errors.Unreachable),
        (503, errors.Unreachable),
        (504, errors.Unreachable),
        (307, errors.Invalid),
    ],
)
def test_an_answer_becomes_the_error_of_its_code_and_names_the_request(code: int, kind: type[KubeError]) -> None:
    error = refusal(GET, code, status(code))
    assert type(error) is kind
    assert str(error).startswith("get ingresses.networking.k8s.io shop/web: ")
    assert "so it is" in str(error)


def test_an_answer_that_is_no_status_is_quoted_and_cut() -> None:
    error = refusal(LIST, 502, b"<html>" + b"x" * 10_000)
    assert "<html>xxx" in str(error)
    assert len(str(error)) < 700


def test_a_missing_permission_names_the_rule_to_add() -> None:
    message = (
        'ingresses.networking.k8s.io is forbidden: User "system:serviceaccount:seaway:watcher" cannot list resource "ingresses" '
        'in API group "networking.k8s.io" at the cluster scope'
    )
    assert str(refusal(LIST, 403, status(403, message))) == (
        "list ingresses.networking.k8s.io: system:serviceaccount:seaway:watcher has no permission; add the rule "
        '{apiGroups: ["networking.k8s.io"], resources: ["ingresses"], verbs: ["list"]} to the ClusterRole that is bound to it'
    )


def test_a_refusal_by_admission_is_told_as_the_server_tells_it() -> None:
    error = refusal(GET, 403, status(403, 'admission webhook "policy.example.org" denied the request: no'))
    assert str(error).endswith('admission webhook "policy.example.org" denied the request: no')


def test_a_busy_server_says_how_long_to_wait() -> None:
    assert refusal(LIST, 429, status(429), "7").retry_after == 7
    assert refusal(LIST, 429, status(429, details={"retryAfterSeconds": 3})).retry_after == 3
    assert refusal(LIST, 429, status(429), "Wed, 21 Oct 2015 07:28:00 GMT").retry_after is None


def test_a_taken_field_names_its_owner() -> None:
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using apps/v1', "field": ".spec.replicas"}
    error = refusal(GET, 409, status(409, details={"causes": [cause]}))
    assert isinstance(error, errors.Owned)
    assert error.fields == ((".spec.replicas", 'conflict with "kubectl" using apps/v1'),)
    assert '.spec.replicas (conflict with "kubectl" using apps/v1)' in str(error)


def test_a_name_that_is_taken_is_a_conflict_of_its_own() -> None:
    assert type(refusal(GET, 409, status(409, reason="AlreadyExists"))) is errors.AlreadyExists


def test_an_object_of_the_same_name_that_is_another_is_a_conflict() -> None:
    cause = {"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}
    error = refusal(GET, 422, status(422, details={"causes": [cause]}))
    assert type(error) is errors.Conflict
    assert "another object has this name now" in str(error)


@pytest.mark.parametrize(
    "more",
    [
        {"message": "Timeout: Too large resource version: 5, current: 4"},
        {"message": "Timeout", "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}},
    ],
)
def test_a_version_that_the_server_has_not_seen_is_told_from_a_busy_server(more: dict[str, object]) -> None:
    assert type(from_status(LIST, {"code": 504, **more})) is errors.VersionTooLarge
