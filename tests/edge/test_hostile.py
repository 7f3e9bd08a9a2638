"""What users write is data: whatever it is, nginx.conf stays as it was, nginx lives on, and nobody else is touched.

The API server refuses most of this; but whoever can publish on the bus has skipped it.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from common.testing.objects import endpoint_slice, ingress, rule, service
from tests.edge.world import EdgeWorld, Raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = (
    '"',
    "'",
    "\\",
    '\\\\"',
    "\n",
    "\r\nSet-Cookie: a=b",
    "\t",
    ";",
    "{",
    "}",
    "#",
    "\x00",
    "\x7f",
    "a b",
    "$document_root",
    "${var}",
    "$1?",
    "%00",
    "%",
    "../../etc/passwd",
    "/etc/passwd",
    "alias /etc/;",
    "a.com; } server { listen 1;",
    "~^.*$",
    "*.*.com",
    "*",
    "_",
    "shop.example.",
    "xn--bcher-kva.example",
    "bücher.example",
    "\u202e",
    "]]",
    '"]}',
    "--[[",
    "ngx.exit(1)",
    "x" * 70_000,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def neighbour(shared: EdgeWorld) -> None:
    """A site that must be served throughout."""
    await shared.put(ingress("good", rule("good.example", "/", "good:80")), service("good"), *await shared.serve("good"))


def everywhere(text: str) -> list[Raw]:
    """Objects with that text in each field that a user writes."""
    annotated = ingress(
        "annotated",
        rule("annotated.example", "/", "web:80"),
        annotations={f"nginx.ingress.kubernetes.io/{text}": text, "nginx.ingress.kubernetes.io/ssl-redirect": text},
    )
    sealed = ingress("sealed", rule("sealed.example", "/", "web:80"))
    sealed["spec"]["tls"] = [{"hosts": [text, "sealed.example"], "secretName": text}]
    addressed = endpoint_slice("web", text)
    return [
        ingress("host", rule(text, "/", "web:80")),
        ingress("path", rule("path.example", f"/{text}", "web:80", "Exact"), rule("path.example", text, "web:80")),
        ingress("type", rule("type.example", "/", "web:80", text)),
        ingress("backend", rule("backend.example", "/", f"{text}:http"), default=f"web:{text}x"),
        ingress("class", rule("class.example", "/", "web:80"), class_name=text),
        annotated,
        sealed,
        service("web"),
        addressed,
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text)[:30] for text in HOSTILE])
async def test_hostile_text_changes_nothing_for_anybody_else(shared: EdgeWorld, text: str) -> None:
    conf = shared.settings.state / "nginx.conf"
    before, status = conf.read_bytes(), await shared.admin.status()
    objects = everywhere(text)
    await shared.put(*objects)
    assert conf.read_bytes() == before
    assert await shared.holds() == shared.should_hold(), "and what is in the tables came through as it was"
    assert (await shared.ask("good.example")).by == "good"
    for host, target in itertools.product(("path.example", "host.example", "annotated.example"), ("/", "/%00", "/x")):
        assert (await shared.ask(host, target)).status in {200, 308, 400, 404, 502, 503}
    await shared.remove(*objects)
    after = await shared.admin.status()
    assert (after.instance, after.fingerprint) == (status.instance, status.fingerprint)
    assert await shared.holds() == shared.should_hold()


NAMES = ("../../x", '"', "a\nb", "x y", "]]", "a/b", "x" * 70_000, "shop\u202e")


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
@pytest.mark.parametrize("text", NAMES, ids=[repr(text)[:20] for text in NAMES])
async def test_a_forged_name_of_an_object_is_nobodys_file_and_no_text_of_a_configuration(
    shared: EdgeWorld, field: str, text: str
) -> None:
    conf = shared.settings.state / "nginx.conf"
    before = conf.read_bytes(), sorted(path.name for path in shared.settings.state.iterdir())
    forged = ingress(
        "forged", rule("forged.example", "/", "web:80"), annotations={"nginx.ingress.kubernetes.io/proxy-body-size": "9m"}
    )
    forged["spec"]["tls"] = [{"hosts": ["forged.example"], "secretName": "cert"}]
    forged["metadata"][field] = text
    await shared.put(forged, service("web"))
    assert (conf.read_bytes(), sorted(path.name for path in shared.settings.state.iterdir())) == before
    assert await shared.holds() == shared.should_hold()
    assert (await shared.ask("good.example")).by == "good"
    assert (await shared.ask("forged.example")).status in {308, 404, 503}
    await shared.remove(forged, service("web"))


ENORMOUS = b"{" + b'"a":' * 2_000_000
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda body: body[:-7],
    "empty": lambda _: b"",
    "of another form": lambda _: b"\x93\x01\x02\x03",
    "no MessagePack at all": lambda _: b"\xc1\xff\x00",
    "oversized": lambda _: ENORMOUS,
    "bombed": lambda _: b"\x91" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_message_of_the_bus_that_cannot_be_read_changes_nothing_and_is_told(
    shared: EdgeWorld, damage: Callable[[bytes], bytes]
) -> None:
    site = ingress("bus", rule("bus.example", "/", "good:80"))
    await shared.put(site)
    before = dict(shared.wanted.entries)
    stored = shared._message(ingress("bus", rule("evil.example", "/", "good:80")))
    shared._take(shared.wanted.change([replace(stored, body=damage(stored.body))]))
    await shared.settle()
    assert shared.wanted.entries == before
    assert "bus" in {problem.ref.name for problem in shared.wanted.problems}, "it is told of the object that it was for"
    assert [(await shared.ask(host)).by for host in ("bus.example", "evil.example", "good.example")] == ["good", "404", "good"]
    await shared.put(site)
    assert "bus" not in {problem.ref.name for problem in shared.wanted.problems}
    await shared.remove(site)


async def test_a_message_for_another_object_than_its_subject_says_changes_nothing(shared: EdgeWorld) -> None:
    site = ingress("own", rule("own.example", "/", "good:80"))
    await shared.put(site)
    stored = shared._message(ingress("own", rule("evil.example", "/", "good:80")))
    forged = replace(stored, subject=shared._message(service("good")).subject)
    shared._take(shared.wanted.change([forged]))
    await shared.settle()
    assert [(await shared.ask(host)).by for host in ("own.example", "evil.example", "good.example")] == ["good", "404", "good"]
    await shared.remove(site)
    await shared.put(service("good"))


async def test_an_object_of_three_megabytes_and_one_of_5000_paths_hold_nobody_up(shared: EdgeWorld) -> None:
    many = ingress("many", *(rule("many.example", f"/p{number}", "good:80") for number in range(5000)))
    long = ingress("long", *(rule("long.example", f"/{number}" + "x" * 4000, "good:80") for number in range(750)))
    assert len(json.dumps(long)) > 3_000_000
    served = True

    async def ask() -> None:
        while asking:
            nonlocal served
            served &= (await shared.ask("good.example")).by == "good"

    asking = True
    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        await shared.put(many, long)
        asking = False
    assert served
    assert [(await shared.ask("many.example", path)).by for path in ("/p0", "/p4999/x", "/p5000")] == ["good", "good", "404"]
    assert (await shared.ask("long.example", "/7" + "x" * 4000)).by == "good"
    assert await shared.holds() == shared.should_hold()
    await shared.remove(many, long)
