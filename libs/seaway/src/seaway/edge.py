"""`seaway explain` and `seaway ingress list`: what the edges of a Seaway say of a request, and of each Ingress.

Every edge is asked over the bus, and answers for itself (`common.contracts.edge`).
"""

import json
from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from common.bus.protocol import Bus, Unavailable
from common.bus.settings import BusSettings
from common.bus.streams import STATE
from common.contracts.edge import EXPLAIN, INGRESSES, Explanation, IngressState, Listing, Page, Refusal, Request
from common.contracts.subjects import SYNC, SubjectError, ask_subject, parse_sync
from seaway import replica
from seaway.commands import CommandError, Data, Nats, Nkey, TlsCa, bus_of, run
from seaway.nats_conf import RENDERER
from seaway.telling import COLUMNS, rows, tell
from seaway.view import Format, dump, table

WITHIN: Final = 8.0  # seconds for the first edge to answer
GRACE: Final = 0.5  # ... and then for the others

A = TypeVar("A", Explanation, Page)

ingress_app = typer.Typer(help="The Ingresses that the edges serve.", no_args_is_help=True)

Edge = Annotated[str, typer.Option("--edge", help="Only the edge of that name (its node, or its machine).")]
Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]


def explain(
    url: Annotated[str, typer.Argument(help="HOST, HOST/PATH, or a URL; https:// asks by TLS.", metavar="HOST[/PATH]")],
    method: Annotated[str, typer.Option("-X", "--method", help="The method of the request.")] = "GET",
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="A header, as `NAME: VALUE`; repeatable.")] = None,
    sni: Annotated[str, typer.Option(help="The name in the TLS handshake, where it is not the host; asks by TLS.")] = "",
    edge: Edge = "",
    output: Output = Format.TABLE,
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Say what answers a request, and why nothing else does: from the tables that nginx serves, by its own program."""
    run(_explain(bus_of(data, nats, nkey, tls_ca), _request(url, method, header or [], sni), edge, output))


@ingress_app.command("list")
def show(
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Only this namespace.")] = "",
    edge: Edge = "",
    output: Output = Format.TABLE,
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """List the Ingresses of each edge: state, the revision that is served, and what is wrong."""
    run(_list(bus_of(data, nats, nkey, tls_ca), namespace, edge, output))


def _request(url: str, method: str, headers: Sequence[str], sni: str) -> Request:
    scheme, _, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    pairs = [(name.strip(), value.strip()) for name, _, value in (one.partition(":") for one in headers)]
    by_tls = scheme == "https" or (bool(sni) and not scheme)
    asked = {"host": host, "path": slash + path or "/", "method": method, "sni": sni, "headers": pairs}
    try:
        return Request.model_validate(asked | {"scheme": scheme or ("https" if by_tls else "http")})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        typer.echo(f"seaway: {field} {first['input']!r:.80} cannot be asked: {first['msg'].lower()}", err=True)
        raise typer.Exit(2) from None


async def _explain(settings: BusSettings, request: Request, edge: str, output: Format) -> None:
    async with replica.reach(settings) as bus:
        answers = await _ask(bus, await _cluster(bus), EXPLAIN, request, Explanation)
    chosen = _of(edge, answers)
    if output is not Format.TABLE:
        typer.echo(dump({"edges": [one.model_dump(mode="json") for one in chosen]}, output))
        return
    for group in _alike(chosen):
        for line in tell(request, group[0], [one.instance for one in group], of=len(chosen)):
            typer.echo(line)


async def _list(settings: BusSettings, namespace: str, edge: str, output: Format) -> None:
    found: dict[str, list[IngressState]] = {}
    async with replica.reach(settings) as bus:
        cluster = await _cluster(bus)
        more, after = True, ""
        while more:
            pages = _of(edge, await _ask(bus, cluster, INGRESSES, Listing(namespace=namespace, after=after), Page))
            # Edges may differ for a moment, so what one of them has not told yet is asked for again.
            ends = [f"{one.ingresses[-1].namespace}/{one.ingresses[-1].name}" for one in pages if one.more]
            more, after = bool(ends), min(ends, default="")
            for page in pages:
                known = found.setdefault(page.instance, [])
                known += [one for one in page.ingresses if not more or f"{one.namespace}/{one.name}" <= after]
    if output is not Format.TABLE:
        listed = {name: [one.model_dump(mode="json") for one in states] for name, states in sorted(found.items())}
        typer.echo(dump({"edges": listed}, output))
    else:
        typer.echo(table(rows(found), COLUMNS))


async def _cluster(bus: Bus) -> str:
    """The cluster that the bus speaks of."""
    for subject in sorted(await bus.subjects(STATE.name, f"{SYNC}.>")):
        try:
            return parse_sync(subject)[0]
        except SubjectError:
            continue
    raise CommandError("the bus knows nothing of any cluster yet; is a watcher running?")


async def _ask(bus: Bus, cluster: str, what: str, question: BaseModel, kind: type[A]) -> list[A]:
    """What the edges answer. Raises CommandError if none can."""
    try:
        said = await bus.ask(ask_subject(cluster, RENDERER, what), question.model_dump_json().encode(), within=WITHIN, grace=GRACE)
    except Unavailable as error:
        raise CommandError(f"no edge answers: {error}; is a renderer running, and of this version?") from error
    answers, refusals = [], []
    for one in said:
        data = json.loads(one)
        if "error" in data:
            refusals.append(Refusal.model_validate(data))
        else:
            answers.append(kind.model_validate(data))
    for refusal in refusals:
        typer.echo(f"seaway: edge {refusal.instance}: {refusal.error}", err=True)
    if not answers:
        raise CommandError("no edge has an answer")
    return answers


def _of(edge: str, answers: list[A]) -> list[A]:
    """The answers of the edge that is meant, or all."""
    names = sorted(str(one.instance) for one in answers)
    chosen = [one for one in answers if edge in {"", one.instance}]
    if not chosen:
        raise CommandError(f"there is no edge {edge!r}; there are {', '.join(names)}")
    return chosen


def _alike(answers: Sequence[Explanation]) -> list[list[Explanation]]:
    """The answers that say the same, together."""
    groups: dict[str, list[Explanation]] = {}
    for one in sorted(answers, key=lambda one: one.instance):
        groups.setdefault(json.dumps(list(tell(Request(host="-"), one, (), of=1))), []).append(one)
    return list(groups.values())
