"""What a real API server does only in bad hours, played by a small server, one scene a request.

Whatever a real one can be made to do is tested against a real one in `test_kube_reflector.py` and `test_kube_session.py`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import web

from common.backoff import Backoff
from common.contracts.refs import ObjectRef, Resource
from common.kube.errors import Gone, Invalid, Misconfigured, Unauthorized, Unreachable
from common.kube.reflection import Event, Listed, Tuning
from common.kube.reflector import Reflector
from common.kube.session import KubeSession

CONFIGMAPS = Resource("", "configmaps")
QUICK = Tuning(streaming=False, short=0, backoff=Backoff(first=0.01, most=0.02))
LIMIT = 30.0

Scene: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
DISCOVERY = {
    "kind": "APIGroupDiscoveryList",
    "items": [
        {
            "metadata": {"name": ""},
            "versions": [
                {
                    "version": "v1",
                    "resources": [{"resource": "configmaps", "responseKind": {"kind": "ConfigMap"}, "scope": "Namespaced"}],
                }
            ],
        }
    ],
}


class Stage:
    """An API server that answers the requests for ConfigMaps with the scenes given, in order, and the last one for ever."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.url = ""
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.times: list[float] = []
        self._scenes = list(scenes)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        self.asked.append(dict(request.query))
        self.tokens.append(request.headers.get("Authorization", ""))
        scene = self._scenes.pop(0) if len(self._scenes) > 1 else self._scenes[0]
        return await scene(request)


@asynccontextmanager
async def stage(*scenes: Scene) -> AsyncIterator[Stage]:
    played = Stage(scenes)

    async def discover(request: web.Request) -> web.Response:
        return web.json_response(DISCOVERY if request.path == "/api" else {**DISCOVERY, "items": []})

    app = web.Application()
    app.router.add_get("/api", discover)
    app.router.add_get("/apis", discover)
    app.router.add_route("*", "/api/v1/{rest:.*}", played.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        played.url = f"http://{host}:{port}"
        yield played
    finally:
        await runner.cleanup()


def kubeconfig(folder: Path, url: str, **user: str) -> str:
    path = folder / "kubeconfig"
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config))
    return str(path)


def raw(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version), **more}}


def line(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def status(code: int, **headers: str) -> Scene:
    async def scene(request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": code, "message": "in the play"}, status=code, headers=headers)

    return scene


def listing(version: int, *items: dict[str, Any], more: str = "") -> Scene:
    async def scene(request: web.Request) -> web.Response:
        metadata = {"resourceVersion": str(version), "continue": more}
        return web.json_response({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items})

    return scene


def stream(*chunks: bytes, then: str = "end") -> Scene:
    """Sends chunks, and then ends, says nothing more (`silence`) or breaks the connection (`break`)."""

    async def scene(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then == "silence":
            await asyncio.sleep(3600)
        if then == "break":
            assert request.transport is not None
            request.transport.abort()
        return response

    return scene


async def take(played: Stage, folder: Path, count: int, *, tuning: Tuning = QUICK, silence: float = 60) -> list[Listed | Event]:
    """What a reflector tells first."""
    async with KubeSession.from_kubeconfig(kubeconfig(folder, played.url)) as kube:
        reflector = Reflector(kube, CONFIGMAPS, tuning=tuning, silence=silence, chance=lambda: 0.0)
        async with asyncio.timeout(LIMIT), aclosing(reflector.observe()) as observations:
            return [await anext(observations) for _ in range(count)]


def told(observations: Sequence[Listed | Event]) -> list[tuple[str, str]]:
    return [
        (o.kind, o.object["metadata"]["name"]) if isinstance(o, Event) else ("LISTED", o.resource_version) for o in observations
    ]


GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


async def test_history_lost_in_the_middle_of_a_watch_leads_to_a_new_listing(tmp_path: Path) -> None:
    broken = stream(line("ADDED", raw("a", 8)), line("ERROR", GONE), then="silence")
    async with stage(listing(7), broken, listing(20), stream(then="silence")) as played:
        assert told(await take(played, tmp_path, 3)) == [("LISTED", "7"), ("ADDED", "a"), ("LISTED", "20")]


async def test_a_busy_server_is_given_the_time_that_it_asks_for_and_the_version_is_kept(tmp_path: Path) -> None:
    answer = stream(line("ADDED", raw("a", 8)), then="silence")
    async with stage(listing(7), status(429, **{"Retry-After": "1"}), answer) as played:
        assert told(await take(played, tmp_path, 2)) == [("LISTED", "7"), ("ADDED", "a")]
        assert [query.get("resourceVersion") for query in played.asked] == [None, "7", "7"]
        assert played.times[2] - played.times[1] >= 1


async def test_a_silent_watch_is_left_and_resumed_after_the_last_event(tmp_path: Path) -> None:
    silent = stream(line("ADDED", raw("a", 8)), then="silence")
    async with stage(listing(7), silent, stream(line("ADDED", raw("b", 9)), then="silence")) as played:
        observed = await take(played, tmp_path, 3, silence=0.2)
        assert told(observed) == [("LISTED", "7"), ("ADDED", "a"), ("ADDED", "b")]
        assert played.asked[2]["resourceVersion"] == "8"


@pytest.mark.parametrize("then", ["end", "break"])
async def test_half_an_event_is_no_event_and_comes_again(tmp_path: Path, then: str) -> None:
    whole = line("ADDED", raw("b", 9))
    cut = stream(line("ADDED", raw("a", 8)), whole[: len(whole) // 2], then=then)
    async with stage(listing(7), cut, stream(whole, then="silence")) as played:
        assert told(await take(played, tmp_path, 3)) == [("LISTED", "7"), ("ADDED", "a"), ("ADDED", "b")]
        assert played.asked[2]["resourceVersion"] == "8"


async def test_an_event_of_many_megabytes_comes_through(tmp_path: Path) -> None:
    large = raw("large", 8) | {"data": {"text": "x" * 30_000_000}}
    async with stage(listing(7), stream(line("ADDED", large), line("ADDED", raw("b", 9)), then="silence")) as played:
        observed = await take(played, tmp_path, 3)
    assert isinstance(observed[1], Event)
    assert observed[1].object == large
    assert told(observed[2:]) == [("ADDED", "b")]


@pytest.mark.parametrize("refused", [status(422), status(400), status(403), stream(), stream(line("BOOKMARK", raw("", 3)))])
async def test_a_server_without_streaming_lists_is_listed(tmp_path: Path, refused: Scene) -> None:
    tuning = Tuning(short=0, backoff=QUICK.backoff)
    async with stage(refused, listing(7, raw("a", 3)), stream(line("ADDED", raw("b", 9)), then="silence")) as played:
        assert told(await take(played, tmp_path, 2, tuning=tuning)) == [("LISTED", "7"), ("ADDED", "b")]
        assert played.asked[0]["sendInitialEvents"] == "true"
        assert "resourceVersion" not in played.asked[0] | played.asked[1]
        assert played.asked[2]["resourceVersion"] == "7"


async def test_a_version_that_the_server_has_not_seen_leads_to_a_new_listing(tmp_path: Path) -> None:
    too_large = {"kind": "Status", "code": 504, "message": "Too large resource version: 9, current: 3"}
    async with stage(listing(9), stream(line("ERROR", too_large)), listing(3), stream(then="silence")) as played:
        assert told(await take(played, tmp_path, 2)) == [("LISTED", "9"), ("LISTED", "3")]
        assert "resourceVersion" not in played.asked[2]


async def test_a_listing_whose_pages_expire_is_read_in_one_answer(tmp_path: Path) -> None:
    scenes = (listing(5, raw("a", 1), more="token"), status(410), listing(7, raw("a", 6), raw("b", 2)), stream(then="silence"))
    async with stage(*scenes) as played:
        (listed,) = await take(played, tmp_path, 1)
        assert isinstance(listed, Listed)
        assert [item["metadata"]["name"] for item in listed.items] == ["a", "b"]
        assert [(query.get("limit"), query.get("continue")) for query in played.asked] == [
            ("500", None),
            ("500", "token"),
            (None, None),
        ]


async def test_each_item_of_a_list_says_what_it_is(tmp_path: Path) -> None:
    async with stage(listing(5, raw("a", 1))) as played, KubeSession.from_kubeconfig(kubeconfig(tmp_path, played.url)) as kube:
        listed = await kube.list(CONFIGMAPS)
    assert [(item["apiVersion"], item["kind"]) for item in listed.items] == [("v1", "ConfigMap")]


async def test_a_token_that_is_refused_is_read_again_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    async def rotate(request: web.Request) -> web.StreamResponse:
        token.write_text("new\n")
        return await status(401)(request)

    async with stage(rotate, listing(5), status(401)) as played:
        async with KubeSession.from_kubeconfig(kubeconfig(tmp_path, played.url, tokenFile=str(token))) as kube:
            await kube.list(CONFIGMAPS)
            with pytest.raises(Unauthorized, match=r"list configmaps: .* renew the token"):
                await kube.list(CONFIGMAPS)
        assert played.tokens == ["Bearer old", "Bearer new", "Bearer new", "Bearer new"]


async def test_the_token_is_never_taken_to_another_place(tmp_path: Path) -> None:
    async with stage(listing(5)) as elsewhere, stage(status(307, Location=f"{elsewhere.url}/api/v1/configmaps")) as played:
        async with KubeSession.from_kubeconfig(kubeconfig(tmp_path, played.url, token="secret")) as kube:
            with pytest.raises(Invalid, match=r"HTTP 307"):
                await kube.list(CONFIGMAPS)
        assert elsewhere.asked == []


async def test_every_request_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.kube.session.LIST_DEADLINE", 0.2)
    silent = stream(b'{"kind"', then="silence")
    async with stage(silent) as played, KubeSession.from_kubeconfig(kubeconfig(tmp_path, played.url)) as kube:
        with pytest.raises(Unreachable, match=r"list configmaps: no whole answer from the API server at http://127"):
            await kube.list(CONFIGMAPS)


async def test_a_listing_that_cannot_be_read_at_all_says_so(tmp_path: Path) -> None:
    async with stage(status(410)) as played, KubeSession.from_kubeconfig(kubeconfig(tmp_path, played.url)) as kube:
        with pytest.raises(Gone):
            await kube.list(CONFIGMAPS)


async def test_a_missing_kubeconfig_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"kubeconfig .*/nowhere does not exist"):
        await KubeSession.from_kubeconfig(str(tmp_path / "nowhere")).__aenter__()


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"current-context": "c", "contexts": []}'])
async def test_a_kubeconfig_that_is_none_is_told_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"/kubeconfig cannot be used"):
        await KubeSession.from_kubeconfig(str(path)).__aenter__()


async def test_nobody_answers_and_the_sentence_says_where(tmp_path: Path) -> None:
    async with stage(listing(5)) as played:
        path = kubeconfig(tmp_path, played.url)
    async with KubeSession.from_kubeconfig(path) as kube:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1.*check that it runs"):
            await kube.get(ObjectRef(CONFIGMAPS, "default", "a"))
