"""The annotations that are known here, most of them ingress-nginx's: one table, from which they are read and told to people.

A value is parsed to a type before anything else sees it. A bad one is told, with the object, and stands for nothing: the route is served as
if it were not there. Of those that say what a backend must prove, a bad one keeps requests from it. An annotation that is not in the table
does nothing, which is told; one that is to keep clients out keeps everybody out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from common.knobs import Knob, Knobs, boolean, one_of, whole
from nginx_config_renderer import values
from nginx_config_renderer.model import Canary, ClientAuth, Emergency, PairKey
from nginx_config_renderer.policy import Affinity, BackendTLS, Policy

PREFIX: Final = "nginx.ingress.kubernetes.io/"
OURS: Final = "seaway.dev/"
_WEIGHT_TOTAL: Final = 100  # what ingress-nginx takes a smaller total for


def _policy(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(PREFIX + name, "policy", field, read, default, text)


def _affinity(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(PREFIX + name, "affinity", field, read, default, text)


def _tls(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(PREFIX + name, "tls", field, read, default, text)


def _client(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(PREFIX + name, "client", field, read, default, text)


def _canary(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(PREFIX + name, "canary", field, read, default, text)


def _emergency(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(OURS + name, "emergency", field, read, default, text)


# What ingress-nginx has to keep clients out.
_KEEPING_OUT: Final = frozenset(
    {
        "allowlist-source-range",
        "auth-tls-match-cn",
        "auth-tls-secret",
        "auth-type",
        "auth-url",
        "denylist-source-range",
        "whitelist-source-range",
    }
)
ON: Final = "on"  # the field that says whether there is an affinity, or a canary, at all

TABLE: Final = Knobs(
    _policy(
        "force-ssl-redirect",
        "force_ssl_redirect",
        boolean,
        "false",
        "Who asks by HTTP is sent to HTTPS, even without a certificate.",
    ),
    _policy("ssl-redirect", "ssl_redirect", boolean, "true", "Who asks a host with a certificate by HTTP is sent to HTTPS."),
    _policy("backend-protocol", "scheme", values.scheme, "HTTP", "How the backend speaks: HTTP, HTTPS, GRPC or GRPCS."),
    _policy(
        "proxy-body-size", "body_size", values.size, "1m", "The largest body of a request; 0 is no limit. A larger one gets 413."
    ),
    _policy("proxy-buffering", "buffering", values.switch, "off", "Whether an answer is taken from the backend at its own pace."),
    _policy(
        "proxy-request-buffering",
        "request_buffering",
        values.switch,
        "on",
        "Whether a body is read whole before the backend is asked.",
    ),
    _policy("proxy-connect-timeout", "connect_timeout", values.seconds, "5", "Seconds for a connection to the backend."),
    _policy("proxy-send-timeout", "send_timeout", values.seconds, "60", "Seconds between two writes to the backend."),
    _policy("proxy-read-timeout", "read_timeout", values.seconds, "60", "Seconds between two reads from the backend."),
    _policy("proxy-next-upstream", "retry_on", values.retries, "error timeout", "When another endpoint is tried; off is never."),
    _policy("proxy-next-upstream-tries", "retry_tries", whole(0, 100), "3", "Endpoints that are tried at most; 0 is all of them."),
    _policy(
        "proxy-next-upstream-timeout",
        "retry_within",
        whole(0, 86400),
        "0",
        "Seconds after which none is tried any more; 0 is never.",
    ),
    _policy(
        "load-balance",
        "balance",
        one_of(values.BALANCES),
        "round_robin",
        "How an endpoint is chosen: round_robin, least_conn or ewma.",
    ),
    _policy(
        "upstream-hash-by", "hash_by", values.hash_key, "", "The endpoint is chosen by the hash of this, such as $request_uri."
    ),
    _tls(
        "proxy-ssl-secret",
        "secret",
        values.secret,
        "",
        "For a backend of HTTPS or GRPCS: a Secret of the same namespace with the authorities that may vouch for it (`ca.crt`), and with "
        "the certificate that we show it (`tls.crt`, `tls.key`).",
    ),
    _tls("proxy-ssl-verify", "verify", values.switch, "off", "Whether nothing is sent to a backend that those do not vouch for."),
    _tls("proxy-ssl-verify-depth", "depth", whole(1, 100), "1", "How many certificates may stand between them and it."),
    _tls(
        "proxy-ssl-name",
        "name",
        values.host,
        "",
        "The name that its certificate must be for; unless given, `SERVICE.NAMESPACE.svc`.",
    ),
    _tls("proxy-ssl-server-name", "server_name", values.switch, "on", "Whether that name is said in the handshake (SNI)."),
    _client(
        "auth-tls-secret",
        ON,
        values.secret,
        "",
        "A Secret of the same namespace with the authorities (`ca.crt`) that must vouch for the certificates of clients. It holds for all "
        "paths of the host; of several Ingresses the oldest one's.",
    ),
    _client(
        "auth-tls-verify-client",
        "verify",
        one_of({"on": "on", "off": "off", "optional": "optional", "optional_no_ca": "optional_no_ca"}),
        "on",
        "Whether clients must show one: on, off, optional (who shows none gets in), or optional_no_ca (whoever vouches for it).",
    ),
    _client("auth-tls-verify-depth", "depth", whole(1, 100), "1", "How many certificates may stand between."),
    _client(
        "auth-tls-pass-certificate-to-upstream",
        "passed",
        boolean,
        "false",
        "Whether the backend gets the certificate in the header `ssl-client-cert`.",
    ),
    _affinity("affinity", ON, one_of({"cookie": True}), "", "Keeps a client at one endpoint, by a cookie."),
    _affinity(
        "affinity-mode",
        "persistent",
        one_of({"balanced": False, "persistent": True}),
        "balanced",
        "Whether a client stays at its endpoint when more are added: balanced or persistent.",
    ),
    _affinity(
        "affinity-canary-behavior",
        "with_canary",
        one_of({"sticky": True, "legacy": False}),
        "sticky",
        "Whether the cookie also keeps a client at the canary, or at the main backend: sticky or legacy.",
    ),
    _affinity("session-cookie-name", "name", values.token, "INGRESSCOOKIE", "The name of the cookie."),
    _affinity("session-cookie-path", "path", values.cookie_text, "/", "Its Path."),
    _affinity("session-cookie-domain", "domain", values.cookie_text, "", "Its Domain."),
    _affinity("session-cookie-max-age", "max_age", whole(-1, 2**31 - 1), "", "Its Max-Age, in seconds."),
    _affinity("session-cookie-expires", "expires", whole(-1, 2**31 - 1), "", "Its Expires, in seconds from now."),
    _affinity(
        "session-cookie-samesite",
        "same_site",
        one_of({"None": "None", "Lax": "Lax", "Strict": "Strict"}),
        "",
        "Its SameSite: None, Lax or Strict.",
    ),
    _affinity(
        "session-cookie-conditional-samesite-none",
        "conditional_none",
        boolean,
        "false",
        "Whether SameSite=None is kept from browsers that take it for Strict.",
    ),
    _affinity("session-cookie-secure", "secure", boolean, "", "Whether it is Secure; unless given, if the request came by HTTPS."),
    _affinity(
        "session-cookie-change-on-failure",
        "change_on_failure",
        boolean,
        "false",
        "Whether a failure moves a client for good.",
    ),
    _canary("canary", ON, boolean, "false", "This Ingress adds a backend to routes of another one."),
    _canary("canary-by-header", "header", values.token, "", "A header that decides: always, never, or as below."),
    _canary(
        "canary-by-header-value", "header_value", values.text, "", "The value of the header that sends a request to the canary."
    ),
    _canary("canary-by-header-pattern", "header_pattern", values.text, "", "A regular expression (PCRE) for such values."),
    _canary("canary-by-cookie", "cookie", values.token, "", "A cookie that decides: always or never."),
    _canary("canary-weight", "weight", whole(0, 1_000_000), "0", "The share of all other requests, of the total."),
    _canary("canary-weight-total", "weight_total", whole(1, 1_000_000), "100", "The total; 100 if it is less."),
    Knob(
        PREFIX + "ssl-passthrough",
        "stream",
        ON,
        boolean,
        "false",
        "Connections to this host by TLS go to the Service unopened. Needs `--ssl-passthrough`.",
    ),
    _emergency(
        "emergency-service",
        ON,
        values.service,
        "",
        "A Service of the same namespace, `name` or `name:port`, that stands by; `seaway failover on` sends it all requests.",
    ),
    _emergency(
        "emergency-mode",
        "auto",
        one_of({"manual": False, "auto": True}),
        "manual",
        "`auto`: it also takes over by itself where no endpoint is ready, or too many requests fail.",
    ),
    _emergency("emergency-threshold", "threshold", whole(0, 100), "50", "How many of 100 requests fail (5xx) then; 0 is never."),
    _emergency("emergency-window", "window", whole(5, 3600), "30", "Over how many seconds they are counted."),
    _emergency("emergency-hold", "hold", whole(1, 86400), "60", "For how many seconds all must be well before it is over."),
)
_SECURING: Final = frozenset(knob.name for knob in TABLE.of("tls"))
_OF_CLIENTS: Final = Knobs(*TABLE.of("client"))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the annotations of one Ingress ask for. `canary` is None unless the Ingress is one; its fields are those of `Canary`."""

    policy: Policy
    canary: Mapping[str, Any] | None
    emergency: Emergency | None = None
    problems: tuple[Problem, ...] = ()


def wishes(ingress: Ingress, usual: Policy) -> Wishes:
    """What `ingress` asks for, where nobody asks for more than `usual`."""
    reading = TABLE.read(ingress.metadata.annotations)
    given = reading.given
    problems = [_unknown(ingress, name) for name in reading.unknown if name.startswith(PREFIX)]
    problems += [
        Problem(ingress.ref, "BadAnnotation", f"annotation {bad.knob.name} is {bad.value}; {bad.mend}") for bad in reading.bad
    ]
    if any(bad.knob.of == "tls" for bad in reading.bad):
        given["tls"]["unclear"] = True
    affinity, canary = given["affinity"], given["canary"]
    policy = replace(usual, **given["policy"], closed=any(map(_keeps_out, ingress.metadata.annotations)))
    if affinity.pop(ON, False):
        policy = replace(policy, affinity=replace(Affinity(), **affinity))
    if given["tls"]:
        policy = replace(policy, tls=BackendTLS(**given["tls"]))
    emergency = _standby(given["emergency"])
    return Wishes(policy, _fields(canary) if canary.pop(ON, False) else None, emergency, tuple(sorted(problems)))


def _keeps_out(name: str) -> bool:
    """Whether an annotation is to keep clients out, and is not known here."""
    return name.startswith(PREFIX) and name not in TABLE and name.removeprefix(PREFIX) in _KEEPING_OUT


def _unknown(ingress: Ingress, name: str) -> Problem:
    short = name.removeprefix(PREFIX)[:80]
    if _keeps_out(name):
        mend = "requests are answered with 503, since without it everybody would be let in; remove it if that is meant"
        return Problem(ingress.ref, "UnsupportedRestriction", f"annotation {short} is not known here; {mend}")
    if short.endswith("-snippet"):
        mend = "no text of an object becomes configuration; remove it, and see docs/annotations.md for what there is"
        return Problem(ingress.ref, "SnippetRefused", f"annotation {short} does nothing: {mend}")
    return Problem(ingress.ref, "UnknownAnnotation", f"annotation {short} is not known here and does nothing; remove it")


def _standby(given: dict[str, Any]) -> Emergency | None:
    named = given.pop(ON, None)
    return Emergency(*named, **given) if named is not None else None


def standby(ingress: Ingress) -> tuple[str, str] | None:
    """The Service, and the port if one is named, that stands by for `ingress`; None without one, or with one that cannot be."""
    value = ingress.metadata.annotations.get(f"{OURS}emergency-service")
    if value is None:
        return None
    try:
        return values.service(value.strip())
    except ValueError:
        return None


def backend_secret(ingress: Ingress) -> str | None:
    """The Secret with which `ingress` meets its backends; None without one, or with one that cannot be."""
    value = ingress.metadata.annotations.get(f"{PREFIX}proxy-ssl-secret")
    if value is None:
        return None
    try:
        namespace, name = values.secret(value.strip())
    except ValueError:
        return None
    return name if namespace in {"", ingress.metadata.namespace} else None


def client_auth(ingress: Ingress) -> ClientAuth | None:
    """Which certificates clients must show to `ingress`; None if they need none. What is not written as it must be is as if it were not
    there, which is the strictest; without a Secret that can be, nobody gets in.
    """
    annotations = ingress.metadata.annotations
    if f"{PREFIX}auth-tls-secret" not in annotations:
        return None
    given = _OF_CLIENTS.read(annotations).given["client"]
    if given.get("verify") == "off":
        return None
    namespace, name = given.pop(ON, ("", ""))
    ours = name and namespace in {"", ingress.metadata.namespace}
    return ClientAuth(PairKey(ingress.metadata.namespace, name) if ours else None, **given)


def is_secured(ingress: Ingress) -> bool:
    """Whether `ingress` says how its backends are met."""
    return not _SECURING.isdisjoint(ingress.metadata.annotations)


def is_canary(ingress: Ingress) -> bool:
    """Whether `ingress` adds to the routes of others, and has none of its own."""
    return ingress.metadata.annotations.get(f"{PREFIX}canary", "").strip() == "true"


def passes(ingress: Ingress) -> bool:
    """Whether `ingress` wants the TLS connections to its hosts to be passed on unopened."""
    return ingress.metadata.annotations.get(f"{PREFIX}ssl-passthrough", "").strip() == "true"


def _fields(canary: dict[str, Any]) -> Mapping[str, Any]:
    known = {field.name for field in fields(Canary)} - {"backend"}
    total = max(_WEIGHT_TOTAL, canary.get("weight_total", _WEIGHT_TOTAL))
    return {name: value for name, value in canary.items() if name in known} | {"weight_total": total}
