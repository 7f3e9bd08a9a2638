"""Telling: what an edge says of a request or of Ingresses, in lines for people. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from common.contracts.edge import Claimant, Explanation, IngressState, Request

COLUMNS: Final = ("EDGE", "NAMESPACE", "INGRESS", "STATE", "REVISION", "HOSTS", "PROBLEMS")
_NOBODY: Final = "-"  # what no Ingress claims, and the operator's default backend answers
_BY_HTTP: Final = "a redirect to HTTPS, since its clients must show a certificate"
_ASKED: Final = {
    "on": "must show a certificate of its authorities, else 400",
    "optional": "may show a certificate, which must be of its authorities, else 400",
    "optional_no_ca": "may show a certificate, of whatever authority",
}
_HOSTS: Final = 3  # hosts of an Ingress that are shown

_ENDS: Final = {
    "@400": "400: dots beside a slash that is written %2F are meant to deceive",
    "@403": "403: nobody gets in until the authorities that vouch for its clients are there; seaway ingress list says what is missing",
    "@404": "404: no Ingress claims it",
    "@413": "413: the body is larger than the Ingress permits",
    "@421": "421: the name in the TLS handshake is not this host's, so nobody was asked for the certificate that it wants",
    "@503": "503: the backend has no ready endpoint",
    "@denied": "503: nothing is sent to its backend until what its Ingress asks for can be done; seaway ingress list says why it cannot",
    "@308": "a redirect to HTTPS, since the host has a certificate (nginx.ingress.kubernetes.io/ssl-redirect)",
    "@301": "a redirect to the same path with a final slash (strict-trailing-slash is off)",
}


def rows(found: Mapping[str, Sequence[IngressState]]) -> list[tuple[str, ...]]:
    """A row for each Ingress of each edge."""
    made: list[tuple[str, ...]] = []
    for edge, states in sorted(found.items()):
        for one in states:
            hosts = ", ".join(one.hosts[:_HOSTS]) + (f" and {len(one.hosts) - _HOSTS} more" if len(one.hosts) > _HOSTS else "")
            revision = f"{one.version or '-'}{f' ({one.newest} comes)' if one.newest else ''}"
            made.append((edge, one.namespace, one.name, one.state, revision, hosts, "; ".join(one.problems)))
    return made


def tell(request: Request, told: Explanation, edges: Sequence[str], *, of: int) -> Iterator[str]:
    """What becomes of a request, line by line. `edges` say so, of so many."""
    seen = told.seen
    yield f"{request.method} {request.scheme}://{request.host}{request.path}"
    if of > 1:
        yield f"  {len(edges)} of {of} edges: {', '.join(edges)}"
    if not told.complete:
        yield "  this edge has not got the whole cluster from the bus yet; it serves what it had before"
    elif not told.settled:
        yield "  changes are on their way to nginx"
    if seen.get("path") != request.path.partition("?")[0]:
        yield f"  the path is read as {seen.get('path')}"
    yield from _answer(seen, {f"{one.namespace}/{one.name}": one for one in told.claimants})
    yield from _clients(seen.get("clients"))
    yield from _certificate(request, seen.get("certificates", {}))
    yield from _backend(told)
    yield from _policy(seen)
    yield from _runners_up(told)


def _answer(seen: Mapping[str, Any], claimants: Mapping[str, Claimant]) -> Iterator[str]:
    location = str(seen.get("location", ""))
    route = seen.get("route")
    if route is not None and route["ingress"] == _NOBODY:
        yield f"  no Ingress claims it → the default backend, Service {str(route['backend']).rstrip(':')}"
    elif route is not None:
        kind = "Exact" if route["exact"] else "Prefix"
        yield f"  Ingress {route['ingress']}, host {seen['hosts_key']}, {kind} {_path(route)} → Service {route['backend']}"
        holder = claimants.get(route["ingress"])
        if holder is not None:
            yield f"    revision {holder.version or '(of an earlier renderer)'}"
            yield from (f"    but: {problem}" for problem in holder.problems)
        yield from (f"    {_canary(one)}" for one in seen.get("canaries", ()))
    elif seen.get("hosts_key"):
        yield f"  host {seen['hosts_key']} is known, and no path of it fits"
    if not seen.get("goes"):
        ends = _BY_HTTP if location == "@308" and seen.get("clients") else _ENDS.get(location, location)
        yield f"  answered by the edge itself with {ends}"


def _path(route: Mapping[str, Any]) -> str:
    return str(route["path"]) if route["exact"] else route["path"] or "/"


def _canary(one: Mapping[str, Any]) -> str:
    by = [f"{name} {one[name]}" for name in ("header", "value", "pattern", "cookie") if one.get(name)]
    by += [f"{one['share']:.0%} of all requests"] if one.get("share") else []
    why = "taken by this request" if one["chosen"] else "not asked for by this request"
    if not one.get("able"):
        why = "it has no ready endpoint"
    elif one.get("share") and one.get("asked") is None:
        why = "drawn this time" if one["chosen"] else "not drawn this time"
    return f"canary {one['backend']} ({', '.join(by) or 'nothing leads there'}): {why}"


def _clients(asked: Mapping[str, Any] | None) -> Iterator[str]:
    if asked:
        passed = "; backends get it" if asked.get("shown") else ""
        yield f"  clients {_ASKED.get(asked['verify'], asked['verify'])}, depth {asked['depth']}{passed} (auth-tls-…)"


def _certificate(request: Request, shown: Mapping[str, Any]) -> Iterator[str]:
    name = request.sni or request.host
    if shown.get("passed"):
        yield f"  TLS to {name} is passed on unopened"
    elif shown.get("pairs"):
        pairs = [one["name"] + (f" (cannot be used: {one['reason']})" if one.get("reason") else "") for one in shown["pairs"]]
        yield f"  certificate for {name}: Secret {', '.join(pairs)}, as {shown['host']}"
    elif request.scheme == "https":
        yield f"  certificate for {name}: the default one, since no Ingress has one that is ready"


def _backend(told: Explanation) -> Iterator[str]:
    seen = told.seen
    if seen.get("backend"):
        yield f"  endpoints of {seen['backend']}:"
        for one in seen.get("endpoints", ()):
            state = f"rests for {one['rests']:.0f} s after {one.get('fails', 0)} failures" if one.get("rests") else "in use"
            yield f"    {one['address']}, {state}"
        if not seen.get("endpoints"):
            yield "    none that is ready"
    yield from (f"    {problem}" for problem in told.service_problems)


def _policy(seen: Mapping[str, Any]) -> Iterator[str]:
    policy = seen.get("policy")
    if policy:
        yield f"  treated differently from others: {', '.join(f'{name} {_value(value)}' for name, value in sorted(policy.items()))}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_value(one)}" for name, one in sorted(value.items())) + ")"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _runners_up(told: Explanation) -> Iterator[str]:
    seen = told.seen
    taken = (seen.get("route") or {}).get("ingress")
    lines = [f"host {one['name']}: {_host(one, seen.get('hosts_key'))}" for one in seen.get("hosts", ()) if one["known"]]
    lines = [line for line in lines if not line.endswith(": taken")]
    lines += [
        f"Ingress {one['ingress']}, {'Exact' if one['exact'] else 'Prefix'} {_path(one)}: {one['why']}"
        for one in seen.get("others", ())
    ]
    if seen.get("left_out"):
        lines.append(f"and {seen['left_out']} more routes of this host")
    lines += [line for one in told.claimants if f"{one.namespace}/{one.name}" != taken for line in _claimant(one)]
    if lines:
        yield "  not taken:"
        yield from (f"    {line}" for line in lines)


def _host(one: Mapping[str, Any], taken: str | None) -> str:
    return "taken" if one["name"] == taken else f"{taken} goes before"


def _claimant(one: Claimant) -> Iterator[str]:
    name = f"Ingress {one.namespace}/{one.name}"
    if not one.ours and not one.problems:
        yield f"{name}: not ours, it is of class {one.class_name or '(none)'}"
    elif one.state == "waiting":
        yield f"{name}: nginx has not got it yet"
    yield from (f"{name}: {problem}" for problem in one.problems)
