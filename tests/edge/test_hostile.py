"""What users write is data: whatever it is, nginx.conf stays as it was, nginx lives on, and nobody else is touched.

The API server refuses most of this; but whoever can publish on the bus has skipped it.
"""

import itertools

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
