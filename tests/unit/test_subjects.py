"""The subject grammar and the order of resource versions."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contracts import subjects
from common.contracts.refs import ObjectRef, Resource, ResourceVersion

texts = st.text(min_size=1, max_size=253).filter(lambda text: text != "." and text.isprintable())
names = st.one_of(texts, st.from_regex(r"[a-z0-9]([a-z0-9.:_-]{0,251}[a-z0-9])?", fullmatch=True))
groups = st.one_of(st.just(""), names.filter(lambda group: group != "core"))
refs = st.builds(ObjectRef, st.builds(Resource, groups, names), st.one_of(st.just(""), names), names)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("web", "web"),
        ("kube-root-ca.crt", "kube-root-ca_crt"),
        ("system:node", "system=3Anode"),
        ("a_b", "a=5Fb"),
        ("a=b", "a=3Db"),
        ("*", "=2A"),
        (">", "=3E"),
        ("Größe", "Gr=C3=B6=C3=9Fe"),
        (" ", "=20"),
    ],
)
def test_a_token_is_readable_and_safe(text: str, token: str) -> None:
    assert subjects.encode(text) == token
    assert subjects.decode(token) == text


@pytest.mark.parametrize("token", ["", "_", "a.b", "a b", "=", "=2", "=2a", "=41", "=2E", "=5f", "=FF", "*", ">", "a\n"])
def test_a_token_that_is_never_written_is_never_read(token: str) -> None:
    with pytest.raises(subjects.SubjectError):
        subjects.decode(token)


@pytest.mark.parametrize("text", ["", "."])
def test_a_text_without_a_token_is_refused(text: str) -> None:
    with pytest.raises(subjects.SubjectError):
        subjects.encode(text)


@given(names, names)
def test_two_texts_never_share_a_token(first: str, second: str) -> None:
    assert (subjects.encode(first) == subjects.encode(second)) == (first == second)


@given(names, refs)
def test_the_state_subject_names_exactly_one_object(cluster: str, ref: ObjectRef) -> None:
    subject = subjects.state_subject(cluster, ref)
    assert subjects.parse_state(subject) == subjects.StateSubject(cluster, ref)
    assert subject.startswith(subjects.state_filter(cluster, ref.resource).removesuffix(">"))
    assert len(subject.split(".")) == 7
    assert subject.isascii()


def test_the_longest_names_of_kubernetes_fit_into_a_line_of_the_protocol() -> None:
    longest = "a" * 253
    subject = subjects.state_subject(longest, ObjectRef(Resource(longest, longest), longest, longest))
    assert len(subject) < 4096


def test_objects_without_a_namespace_stand_under_a_token_of_their_own() -> None:
    node = ObjectRef(Resource("", "nodes"), "", "worker-3")
    assert subjects.state_subject("prod", node) == "state.v1.prod.core.nodes._.worker-3"


@pytest.mark.parametrize(
    "subject",
    ["state.v1.prod.core.nodes._", "state.v2.prod.core.nodes._.a", "state.v1.prod.core.nodes._.a.b", "evt.v1.prod.x.y", ""],
)
def test_another_subject_is_not_taken_for_an_object(subject: str) -> None:
    with pytest.raises(subjects.SubjectError):
        subjects.parse_state(subject)


def test_no_group_can_pose_as_the_core_group() -> None:
    with pytest.raises(subjects.SubjectError, match="core"):
        subjects.state_filter("prod", Resource("core", "services"))


def test_a_sync_subject_is_read_back() -> None:
    ingresses = Resource("networking.k8s.io", "ingresses")
    assert subjects.parse_sync(subjects.sync_subject("prod", ingresses)) == ("prod", ingresses)


def test_a_dead_letter_keeps_the_tokens_of_its_job() -> None:
    job = subjects.job_subject("prod", "ceph", "provision")
    assert subjects.dead_letter_subject(job) == "dlq.v1.prod.ceph.provision"
    with pytest.raises(subjects.SubjectError):
        subjects.dead_letter_subject("state.v1.prod")


def test_resource_versions_are_ordered_as_numbers_of_any_length() -> None:
    texts_in_order = ["1", "9", "10", "99", "100", "18446744073709551615", "18446744073709551616", "9" * 40]
    versions = [ResourceVersion(text) for text in texts_in_order]
    for earlier, later in itertools.combinations(versions, 2):
        assert earlier < later
        assert not later < earlier


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "1.5", "x", " 1", "1\n", "\u0661"])
def test_what_is_no_resource_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="resourceVersion"):
        ResourceVersion(text)
