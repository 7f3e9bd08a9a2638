"""The keys of the one ConfigMap by which an operator sets options for the whole edge.

They are ingress-nginx's keys with ingress-nginx's meanings. Each value is parsed to a type and written into nginx.conf from that type, so
no text of the ConfigMap gets there as it is. All or nothing: a ConfigMap with one key that cannot be is refused as a whole, each fault is
told, and what was in force stays so. Otherwise a slip of one letter would put everything else back to its default.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from common.contracts.ip import read_network
from common.contracts.objects import ConfigMap
from common.contracts.problems import Problem
from common.knobs import Knob, Knobs, boolean, one_of, whole
from nginx_config_renderer import access_log, values
from nginx_config_renderer.options import Options

TEMPLATE_KEY: Final = "template.conf.j2"
_CIPHERS: Final = re.compile(r"[A-Za-z0-9:+!@=_-]{1,2000}", re.ASCII)
_CURVES: Final = re.compile(r"[A-Za-z0-9:_-]{1,200}", re.ASCII)
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+*-]+|\*", re.ASCII)
_PROTOCOLS: Final = ("TLSv1.2", "TLSv1.3")
_INTERNAL: Final = (418, 499)
_UNKNOWN: Final = "it is not known here; remove it, and see docs/settings.md for those that are"
_LEVELS: Final = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")


def _like(pattern: re.Pattern[str], mend: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(mend)
        return value

    return read


def _words(each: Callable[[str], str], *, separator: str | None = None) -> Callable[[str], tuple[str, ...]]:
    def read(value: str) -> tuple[str, ...]:
        return tuple(each(word.strip()) for word in value.split(separator) if word.strip())

    return read


def _protocols(value: str) -> tuple[str, ...]:
    words = value.split()
    if not words or set(words) - set(_PROTOCOLS):
        raise ValueError(f"write {' and '.join(_PROTOCOLS)}, or one of them; older ones are broken (RFC 8996)")
    return tuple(word for word in _PROTOCOLS if word in words)


def _networks(value: str) -> tuple[str, ...]:
    try:
        found = [read_network(word.strip()) for word in value.split(",") if word.strip()]
    except ValueError as error:
        raise ValueError(f"write networks such as 10.0.0.0/8, separated by commas; {error}") from error
    return tuple(map(str, found))


def _errors(value: str) -> tuple[int, ...]:
    codes = sorted({whole(400, 599)(word.strip()) for word in value.split(",") if word.strip()})
    if not set(codes).isdisjoint(_INTERNAL):
        raise ValueError(f"leave {' and '.join(map(str, _INTERNAL))} out: the edge uses them itself")
    return tuple(codes)


def _buffers(value: str) -> tuple[int, int]:
    number, _, size = value.partition(" ")
    return whole(1, 1000)(number), _some(size.strip())


def _some(value: str) -> int:
    size = values.size(value)
    if not 128 <= size <= 1024**3:
        raise ValueError("write a size from 128 bytes to 1g")
    return size


def _duration(value: str) -> int:
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(value[-1:], 0)
    return values.seconds(value[:-1]) * unit if unit else values.seconds(value)


def _usual(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(name, "usual", field, read, default, text)


def _option(name: str, field: str, read: Callable[[str], Any], default: str, text: str) -> Knob:
    return Knob(name, "options", field, read, default, text)


_HEADER: Final = _like(re.compile(r"[A-Za-z0-9-]{1,100}", re.ASCII), "write letters, digits and dashes")
_COUNT: Final = whole(1, 1_000_000_000)
_HEADERS: Final = _words(_HEADER, separator=",")

TABLE: Final = Knobs(
    _usual("proxy-body-size", "body_size", values.size, "1m", "As the annotation, for all."),
    _usual("proxy-buffering", "buffering", values.switch, "off", "As the annotation, for all."),
    _usual("proxy-request-buffering", "request_buffering", values.switch, "on", "As the annotation, for all."),
    _usual("proxy-connect-timeout", "connect_timeout", values.seconds, "5", "As the annotation, for all."),
    _usual("proxy-send-timeout", "send_timeout", values.seconds, "60", "As the annotation, for all."),
    _usual("proxy-read-timeout", "read_timeout", values.seconds, "60", "As the annotation, for all."),
    _usual("proxy-next-upstream", "retry_on", values.retries, "error timeout", "As the annotation, for all."),
    _usual("proxy-next-upstream-tries", "retry_tries", whole(0, 100), "3", "As the annotation, for all."),
    _usual("proxy-next-upstream-timeout", "retry_within", whole(0, 86400), "0", "As the annotation, for all."),
    _usual("load-balance", "balance", one_of(values.BALANCES), "round_robin", "As the annotation, for all."),
    _usual("ssl-redirect", "ssl_redirect", boolean, "true", "As the annotation, for all."),
    _usual("force-ssl-redirect", "force_ssl_redirect", boolean, "false", "As the annotation, for all."),
    _option("client-header-timeout", "client_header_timeout", values.seconds, "60", "Seconds for the head of a request."),
    _option("client-body-timeout", "client_body_timeout", values.seconds, "60", "Seconds between two reads of a body."),
    _option("client-header-buffer-size", "client_header_buffer_size", _some, "1k", "Memory for the head of most requests."),
    _option("client-body-buffer-size", "client_body_buffer_size", _some, "8k", "Memory for a body; a larger one goes to a file."),
    _option(
        "large-client-header-buffers", "large_client_header_buffers", _buffers, "4 8k", "Buffers for larger heads, and their size."
    ),
    _option("keep-alive", "keep_alive", values.seconds, "75", "Seconds that an idle client may stay connected."),
    _option("keep-alive-requests", "keep_alive_requests", _COUNT, "1000", "Requests of one connection of a client."),
    _option(
        "upstream-keepalive-connections",
        "upstream_keepalive_connections",
        whole(1, 65536),
        "320",
        "Idle connections to backends that a worker keeps.",
    ),
    _option("upstream-keepalive-timeout", "upstream_keepalive_timeout", values.seconds, "60", "Seconds that it keeps them."),
    _option(
        "upstream-keepalive-requests", "upstream_keepalive_requests", _COUNT, "10000", "Requests of one connection to a backend."
    ),
    _option("proxy-buffer-size", "proxy_buffer_size", _some, "4k", "Memory for the head of an answer."),
    _option("proxy-buffers-number", "proxy_buffers_number", whole(2, 1000), "4", "Buffers for an answer that is kept."),
    _option("max-worker-connections", "worker_connections", whole(64, 1_000_000), "16384", "Connections of a worker."),
    _option(
        "worker-shutdown-timeout", "worker_shutdown_timeout", _duration, "240s", "How long an old worker may finish its requests."
    ),
    _option("ssl-protocols", "ssl_protocols", _protocols, "TLSv1.2 TLSv1.3", "Versions of TLS."),
    _option(
        "ssl-ciphers",
        "ssl_ciphers",
        _like(_CIPHERS, "write ciphers as OpenSSL names them, separated by colons"),
        "",
        "Ciphers of TLS 1.2.",
    ),
    _option("ssl-prefer-server-ciphers", "ssl_prefer_server_ciphers", boolean, "false", "Whether our order of ciphers counts."),
    _option(
        "ssl-ecdh-curve", "ssl_ecdh_curve", _like(_CURVES, "write curves, separated by colons, or auto"), "auto", "Curves of TLS."
    ),
    _option("ssl-session-cache-size", "ssl_session_cache_size", _some, "10m", "Memory for sessions of TLS that all workers share."),
    _option("ssl-session-timeout", "ssl_session_timeout", _duration, "10m", "How long a session can be resumed."),
    _option("hsts", "hsts", boolean, "true", "Whether hosts with a certificate say that they are for HTTPS alone."),
    _option("hsts-max-age", "hsts_max_age", whole(0, 2**31 - 1), "31536000", "For how many seconds a browser remembers."),
    _option("hsts-include-subdomains", "hsts_include_subdomains", boolean, "true", "Whether that is said of all hosts below."),
    _option("hsts-preload", "hsts_preload", boolean, "false", "Whether browsers may have it built in."),
    _option(
        "ssl-session-tickets",
        "ssl_session_tickets",
        boolean,
        "false",
        "Whether sessions are also resumed by tickets, whose keys change with every `ssl-session-timeout`. Needs nginx 1.23.2.",
    ),
    _option("use-http2", "use_http2", boolean, "true", "Whether clients may speak HTTP/2."),
    _option(
        "use-http3",
        "use_http3",
        boolean,
        "true",
        "Whether clients may speak HTTP/3, where nginx can, `use-proxy-protocol` is off and TLS 1.3 on. They are told by `Alt-Svc`.",
    ),
    _option("use-proxy-protocol", "use_proxy_protocol", boolean, "false", "Whether connections begin with the PROXY protocol."),
    _option(
        "use-forwarded-headers",
        "use_forwarded_headers",
        boolean,
        "false",
        "Whether X-Forwarded-* of trusted peers is believed; with `--ssl-passthrough`, X-Forwarded-For over HTTP alone.",
    ),
    _option(
        "compute-full-forwarded-for",
        "compute_full_forwarded_for",
        boolean,
        "false",
        "Whether the peer is added to X-Forwarded-For instead of replacing it.",
    ),
    _option(
        "opentelemetry-trust-incoming-span",
        "trust_spans",
        boolean,
        "true",
        "Whether `traceparent` and `tracestate` of every client are passed on; if not, those of trusted peers alone.",
    ),
    _option("forwarded-for-header", "forwarded_for_header", _HEADER, "X-Forwarded-For", "The header with the client's address."),
    _option("proxy-real-ip-cidr", "trusted", _networks, "0.0.0.0/0,::/0", "Peers that are trusted with the client's address."),
    _option("whitelist-source-range", "allowed", _networks, "", "Networks of clients that may come; without one all may."),
    _option("denylist-source-range", "denied", _networks, "", "Networks of clients that may not come."),
    _option(
        "custom-http-errors",
        "custom_errors",
        _errors,
        "",
        "Statuses, of backends and of the edge, that the Service of `--default-backend-service` answers instead; it is told which by "
        "`X-Code`, and by `X-Format`, `X-Original-URI`, `X-Namespace`, `X-Ingress-Name`, `X-Service-Name` and `X-Service-Port` of what.",
    ),
    _option("strict-trailing-slash", "strict_trailing_slash", boolean, "true", "Whether /foo is not /foo/; false gives a 301."),
    _option(
        "http-redirect-code",
        "redirect_code",
        one_of({str(code): code for code in (301, 302, 307, 308)}),
        "308",
        "Status of a redirect to HTTPS.",
    ),
    _option("server-tokens", "server_tokens", boolean, "false", "Whether answers tell nginx's version."),
    _option("error-log-level", "error_log_level", one_of({level: level for level in _LEVELS}), "warn", "What nginx logs."),
    _option("disable-access-log", "disable_access_log", boolean, "false", "Whether requests are not logged."),
    _option(
        "log-format-upstream",
        "log_format",
        access_log.read_format,
        "",
        "A line of the access log, with nginx's variables and `$namespace`, `$ingress_name`, `$service_name`, `$service_port`, "
        "`$proxy_upstream_name`, `$req_id`; or `json`. By default that of ingress-nginx.",
    ),
    _option("log-format-escape-json", "log_escape_json", boolean, "false", "Whether values are escaped as in JSON."),
    _option("log-format-escape-none", "log_escape_none", boolean, "false", "Whether values are not escaped at all."),
    _option(
        "access-log-params",
        "log_manner",
        access_log.read_manner,
        "buffer=64k flush=1s",
        "How many lines are written at once, and after how long at the latest.",
    ),
    _option(
        "skip-access-log-urls",
        "log_skipped",
        access_log.read_skipped,
        "",
        "Paths with their query, or patterns that begin with `~`, that are not logged; separated by commas.",
    ),
    _option("enable-underscores-in-headers", "underscores_in_headers", boolean, "false", "Whether names may have underscores."),
    _option("ignore-invalid-headers", "ignore_invalid_headers", boolean, "true", "Whether headers with bad names are dropped."),
    _option("allow-backend-server-header", "backend_server_header", boolean, "false", "Whether a backend's Server is shown."),
    _option("hide-headers", "hide_headers", _HEADERS, "", "Headers of backends that are not shown, separated by commas."),
    _option("proxy-stream-timeout", "stream_timeout", _duration, "600s", "Silence that ends a connection of a TCP or UDP service."),
    _option(
        "proxy-stream-responses",
        "stream_responses",
        whole(1, 1_000_000),
        "1",
        "Answers to a UDP datagram after which its session ends.",
    ),
    _option("use-gzip", "gzip", boolean, "false", "Whether answers are compressed."),
    _option("gzip-level", "gzip_level", whole(1, 9), "1", "How much."),
    _option("gzip-min-length", "gzip_min_length", whole(1, 2**31 - 1), "256", "Bytes below which they are not."),
    _option(
        "gzip-types",
        "gzip_types",
        _words(_like(_MEDIA_TYPE, "write media types such as text/css, separated by spaces")),
        "application/javascript application/json text/css text/plain text/xml",
        "Of which types; text/html always.",
    ),
)


def read(found: ConfigMap, base: Options) -> tuple[Options, tuple[Problem, ...]]:
    """What `found` makes of `base`; `base` itself if there is any problem."""
    reading = TABLE.read({name: value for name, value in found.data.items() if name != TEMPLATE_KEY})
    faults = [(name, f"{found.data[name][:80]!r}", _UNKNOWN) for name in reading.unknown]
    faults += [(bad.knob.name, bad.value, bad.mend) for bad in reading.bad]
    problems = [Problem(found.ref, "BadSetting", f"key {name} is {value}: {mend}") for name, value, mend in sorted(faults)]
    if problems:
        return base, tuple(problems)
    given = dict(reading.given["options"])
    if TEMPLATE_KEY in found.data:
        given["template"] = found.data[TEMPLATE_KEY]
    return replace(base, usual=replace(base.usual, **reading.given["usual"]), **given), ()


def halves(found: ConfigMap, options: Options, *, passes: bool) -> tuple[Problem, ...]:
    """What of `found` is in force in part only. If nginx `passes` connections on, those to HTTPS come through its stream, which names their
    peer as a proxy in front would, and a server of nginx believes one way of naming a client.
    """
    if not passes or not options.use_forwarded_headers or options.use_proxy_protocol:
        return ()
    return (
        Problem(
            found.ref,
            "NotOverHTTPS",
            f"key use-forwarded-headers is 'true': with --ssl-passthrough {options.forwarded_for_header} names the client over HTTP alone; "
            "over HTTPS the peer counts as the client, for denylist-source-range and whitelist-source-range too; where proxies in front "
            "speak HTTPS to us, let them speak the PROXY protocol and set use-proxy-protocol, or turn --ssl-passthrough off",
        ),
    )


def defaults(data: Mapping[str, str], base: Options) -> Options:
    """What data that was good before makes of `base`; `base` if it is good no more."""
    return read(ConfigMap.project({"metadata": {"name": "kept"}, "data": dict(data)}), base)[0]
