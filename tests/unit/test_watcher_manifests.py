"""A folder of manifests as a listing."""

import pytest

from common.contracts.objects import Ingress, Service
from common.contracts.refs import ResourceVersion
from watcher.manifests import Broken, File, merge, parse

VERSION = ResourceVersion("1000")
GOOD = """\
# a comment
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, creationTimestamp: 2026-01-02T03:04:05Z}
spec: {ports: [{port: 80}]}
---
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: a.example.org}]}
---
apiVersion: example.org/v1
kind: Unknown
metadata: {name: x}
"""


def good(path: str, text: str) -> File:
    parsed = parse(path, text, VERSION)
    assert isinstance(parsed, File)
    return parsed


def test_every_document_of_a_file_is_an_object_with_its_line() -> None:
    file = good("web.yaml", GOOD)
    assert [(found.model, found.ref.namespace, found.ref.name, found.line) for found in file.manifests] == [
        (Service, "shop", "web", 2),
        (Ingress, "default", "web", 8),
    ]
    assert file.ignored == 1


def test_an_object_has_the_same_uid_tomorrow() -> None:
    first, second = (parse("web.yaml", GOOD, ResourceVersion(version)) for version in ("1", "2"))
    assert isinstance(first, File)
    assert isinstance(second, File)
    assert [f.raw["metadata"]["uid"] for f in first.manifests] == [s.raw["metadata"]["uid"] for s in second.manifests]


def test_a_list_is_unfolded_and_json_is_read() -> None:
    text = '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}]}'
    assert [found.ref.name for found in good("list.json", text).manifests] == ["a"]


def test_an_empty_file_defines_nothing() -> None:
    assert good("empty.yaml", "# nothing yet\n") == File(())


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("a.yaml", "kind: Service\n  bad: indent\n", ["a.yaml:2:", "mapping values"]),
        ("a.yaml", "a: [1, 2\n", ["a.yaml:2:"]),
        ("a.json", '{\n"kind": }', ["a.json:2:", "Expecting value"]),
        ("a.yaml", "just a text\n", ["a.yaml:1:", "apiVersion and kind"]),
        ("a.yaml", "---\nkind: Service\n", ["a.yaml:2:", "apiVersion and kind"]),
        ("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {}\n", ["a.yaml:1:", "Service", "metadata.name"]),
        (
            "a.yaml",
            "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: x}]}\n",
            ["a.yaml:3:", "Service default/web", "spec.ports.0.port", "'x'"],
        ),
        ("a.yaml", "a: \x00\n", ["a.yaml:1:", "unacceptable"]),
    ],
)
def test_a_broken_file_is_told_with_file_line_and_reason(path: str, text: str, words: list[str]) -> None:
    broken = parse(path, text, VERSION)
    assert isinstance(broken, Broken)
    assert all(word in broken.problem.message for word in words), broken.problem.message


def test_an_object_of_two_files_belongs_to_the_first_and_the_second_is_told() -> None:
    files = {path: good(path, GOOD) for path in ("b.yaml", "a.yaml")}
    objects, problems = merge(files)
    assert len(objects) == 2
    assert len(problems) == 2
    assert "b.yaml:2: services shop/web is already defined in a.yaml:2" in problems[0].message
