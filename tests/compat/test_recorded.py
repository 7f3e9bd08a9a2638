"""What ingress-nginx 1.15.1 answered, we answer too.

`recorded.json` holds what a real ingress-nginx was asked and what came back: objects, requests, answers, and what the backend saw. Each
case whose annotations are supported is replayed. Where we differ on purpose, the test says how and docs/compatibility.md why.
"""

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from common.testing.objects import ingress_class, opaque_secret
from nginx_config_renderer import keypairs
from nginx_config_renderer.annotations import TABLE
from tests.compat.backends import AUTHORITY, backends
from tests.edge.world import EdgeWorld, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]

# Some hosts were written down as CASE-CASE.compat.test, and all were asked as CASE.example.test.
_TEXT = (Path(__file__).parent / "recorded.json").read_text()
RECORDED: list[Json] = json.loads(re.sub(r'"([a-z-]+)-\1\.compat\.test"', r'"\1.example.test"', _TEXT))
PREFIX = "nginx.ingress.kubernetes.io/"

SUPPORTED = {annotation.short for annotation in TABLE} | {"preserve-trailing-slash", "no-such-thing"}

# Cases in which we differ on purpose; docs/compatibility.md has the reasons.
DIFFERENT = {"bad-hash": {"status": 200, "headers": [], "backend": "a"}}


CA = {"ca.crt": AUTHORITY.certificate}

# Headers that a client sends and a backend need not see: ours alone, or dropped because nobody may believe them.
DROPPED = {"forwarded"}
OBSERVED = {name for case in RECORDED for one in case["exchanges"] for name in one["answer"].get("saw", {}).get("headers", ())}


def annotations(case: Json) -> set[str]:
    found = (name for each in case["ingresses"] for name in each["metadata"].get("annotations", {}))
    return {name.removeprefix(PREFIX) for name in found}


CASES = [case for case in RECORDED if annotations(case) <= SUPPORTED]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, strict_trailing_slash=False) as world, backends() as objects:
            await world.put(ingress_class(), *objects, opaque_secret("ca", CA))
            world.wanted.learn(keypairs.read("default", "ca", CA))
            yield world


async def ask(world: EdgeWorld, default_host: str, request: Json) -> tuple[int, dict[str, str], str]:
    """Sends a recorded request; status, headers and body of the answer."""
    tls = bool(request.get("tls"))
    context = ssl._create_unverified_context() if tls else None  # noqa: S323 the certificate is looked at elsewhere
    host = request.get("host", default_host)
    port = world.settings.https_port if tls else world.port
    body = request.get("body", "")
    content = (body if isinstance(body, str) else body["repeat"] * body["times"]).encode()
    headers = {"Host": host, **request.get("headers", {})}
    headers |= {"Content-Length": str(len(content))} if content else {}
    headers |= {} if "Connection" in headers else {"Connection": "close"}
    lines = [f"{request['method']} {request['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host if tls else None)
        writer.write("\r\n".join(lines).encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        text = await reader.readexactly(int(named.get("content-length", 0)))
        writer.close()
    return int(head[0].split(" ")[1]), named, text.decode()


def seen(body: str, port: int) -> Json:
    """What a backend saw, as the recording has it."""
    told = json.loads(body)
    headers = {name: value for name, value in told["headers"].items() if name in OBSERVED}
    headers["x-request-id"] = re.sub(r"^[0-9a-f]{32}$", "<id>", headers["x-request-id"])
    headers["x-forwarded-port"] = headers["x-forwarded-port"].replace(str(port), "8000")
    return {name: told[name] for name in ("method", "target", "version", "len")} | {"headers": headers}


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
async def test_we_answer_as_ingress_nginx_does(world: EdgeWorld, case: Json) -> None:
    objects = [
        {**each, "metadata": {**each["metadata"], "namespace": "default", "creationTimestamp": f"2026-01-01T00:00:{at:02}Z"}}
        for at, each in enumerate(case["ingresses"])
    ]
    await world.put(*objects)
    await world.secure()
    try:
        for exchange in case["exchanges"]:
            answer = DIFFERENT.get(case["case"], exchange["answer"])
            await _replay(world, f"{case['case']}.example.test", exchange["request"], answer)
    finally:
        await world.remove(*objects)


async def _replay(world: EdgeWorld, host: str, request: Json, wanted: Json) -> None:
    note = request.get("note")
    if note is not None:
        await REPEATED[note](world, host, request, wanted)
        return
    status, headers, body = await ask(world, host, request)
    assert status == wanted["status"], request
    shown = {name: re.sub(r"(?<=^)([\w]+)=[^;]+", r"\1=<value>", headers.get(name, "")) for name, _ in wanted["headers"]}
    assert shown == dict(wanted["headers"]), request
    if "backend" in wanted:
        assert json.loads(body)["backend"] == wanted["backend"], request
    if "saw" in wanted:
        expected = wanted["saw"] | {
            "headers": {name: value for name, value in wanted["saw"]["headers"].items() if name not in DROPPED}
        }
        assert seen(body, world.port) == expected, request


async def _spread(world: EdgeWorld, host: str, request: Json, wanted: Json) -> None:
    answers = [await ask(world, host, request) for _ in range(request["repeat"])]
    assert len({json.loads(body)["server"] for _, _, body in answers}) == wanted["backends"]


async def _share(world: EdgeWorld, host: str, request: Json, wanted: Json) -> None:
    answers = [await ask(world, host, request) for _ in range(request["repeat"])]
    count = Counter(json.loads(body)["backend"] for _, _, body in answers)
    for name, share in wanted["share"].items():
        deviation = (share * (1 - share) / request["repeat"]) ** 0.5
        assert abs(count[name] / request["repeat"] - share) <= 0.05 + 4 * deviation


async def _statuses(world: EdgeWorld, host: str, request: Json, wanted: Json) -> None:
    answers = [await ask(world, host, request) for _ in range(request["repeat"])]
    assert sorted({str(status) for status, _, _ in answers}) == wanted["statuses"]


async def _sticky(world: EdgeWorld, host: str, request: Json, wanted: Json) -> None:
    _, headers, body = await ask(world, host, request)
    cookie = headers["set-cookie"].partition(";")[0]
    again = request | {"headers": {"Cookie": cookie}}
    answers = [await ask(world, host, again) for _ in range(request["repeat"])]
    assert {json.loads(one)["server"] for _, _, one in answers} == {json.loads(body)["server"]}
    assert not any("set-cookie" in named for _, named, _ in answers)


REPEATED = {"spread": _spread, "share": _share, "statuses": _statuses, "sticky": _sticky}


async def test_no_case_is_forgotten() -> None:
    assert len(CASES) >= 37
    assert {case["case"] for case in CASES} >= {case["case"] for case in RECORDED if not annotations(case)}
