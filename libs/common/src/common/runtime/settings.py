"""Settings: every knob of a service in one frozen object, read once.

A knob is a field with a description. It is set by a flag (`--log-level debug`), by the environment (`SEAWAY_LOG_LEVEL=debug`), or stays at
its default; the flag wins. Knobs of the bus are nested: `--bus.url`, `SEAWAY_BUS__URL`. Secrets are files, never values. A wrong value is
one sentence a field, and exit code 2.
"""

import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from common.bus.settings import BusSettings

PREFIX: Final = "SEAWAY_"
# Set by the command `seaway` and by Kubernetes for us; no service's knob.
_ALIEN: Final = frozenset({"SEAWAY_DATA"})
_ADDRESS: Final = re.compile(r"unix:.+|(\[[0-9A-Fa-f:.]+\]|[^:\s]+):[0-9]{1,5}")
_CREDENTIALS: Final = re.compile(r".*@", re.DOTALL)


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=False,
        nested_model_default_partial_update=True,
    )

    cluster: str = Field(
        "local", pattern=r"^[A-Za-z0-9.-]{1,63}$", description="Name of the cluster; a part of every subject on the bus."
    )
    instance: str = Field(
        default_factory=lambda: os.environ.get("POD_NAME") or socket.gethostname(),
        description="Name of this process among its like. One that is started in its place has the same, and goes on with its alerts.",
    )
    bus: BusSettings = Field(BusSettings(), description="How to reach the bus.")
    probes: str = Field(
        "127.0.0.1:0",
        description="Where /livez, /readyz and /metrics are served: HOST:PORT, or unix:PATH. Port 0 takes a free one.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe messages that are logged."
    )
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto is text on a terminal and JSON elsewhere.")
    shutdown_deadline: float = Field(
        10, gt=0, description="Seconds for an orderly end; what is not done then is named and dropped."
    )

    @field_validator("probes")
    @classmethod
    def _an_address(cls, probes: str) -> str:
        if _ADDRESS.fullmatch(probes) is None:
            raise ValueError("this is not HOST:PORT or unix:PATH")
        return probes


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S], program: str, arguments: Sequence[str]) -> S:
    """The settings of `program`. Ends the process with code 2 and a sentence a field where a value is wrong."""
    try:
        settings = kind(_cli_parse_args=list(arguments), _cli_prog_name=program)
    except (ValidationError, SettingsError) as error:
        for line in complaints(program, error):
            print(line, file=sys.stderr)
        raise SystemExit(2) from None
    for name in unknown(kind, os.environ):
        print(f"{program}: the environment variable {name} is no knob of this service", file=sys.stderr)
    return settings


def complaints(program: str, error: ValidationError | SettingsError) -> Iterator[str]:
    """One sentence for each wrong value: the flag, the variable, what was given, and what is wrong with it."""
    if not isinstance(error, ValidationError):
        yield f"{program}: {error}"
        return
    for one in error.errors(include_url=False):
        path = [str(part) for part in one["loc"]]
        flag = "--" + ".".join(part.replace("_", "-") for part in path)
        variable = PREFIX + "__".join(path).upper()
        given = "" if one["type"] == "missing" else f" is {_shown(one['input'])}:"
        message = one["msg"].removeprefix("Value error, ")
        yield f"{program}: {flag} ({variable}){given} {message[:1].lower()}{message[1:]}" if path else f"{program}: {message}"


def _shown(value: object) -> str:
    """A value for people's eyes, without the credentials that somebody put before the host of an address."""
    shown = _CREDENTIALS.sub("***@", value) if isinstance(value, str) else value
    return f"{shown!r:.80}"


def unknown(kind: type[ServiceSettings], environment: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that no knob has, so that a misspelt one is noticed."""
    known = {PREFIX + name.upper() for name in kind.model_fields}
    return sorted(name for name in environment if name.startswith(PREFIX) and name.split("__")[0] not in known | _ALIEN)
