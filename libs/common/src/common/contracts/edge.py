"""What the edges are asked, and what they answer: `ask.v1.<cluster>.nginx-config-renderer.<what>`, JSON both ways.

`explain` is about one request: what nginx's own program decided of it on the tables that it serves from, and what the renderer knows of
the Ingresses that name its host. `ingresses` is one page of all of them. Every edge answers for itself. Whoever can ask has skipped all
other doors, so a question is as narrow as a request: nothing in it may end a line of HTTP.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

EXPLAIN: Final = "explain"
INGRESSES: Final = "ingresses"
PAGE: Final = 500  # Ingresses in one answer

State = Literal["serving", "shadowed", "rejected", "waiting"]


def _one_line(text: str) -> str:
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("it must not hold control characters")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
Token = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")]  # RFC 9110 §5.6.2


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Request(_Model):
    """A request as a client would send it. `sni` is the name in the TLS handshake, where that is not the host."""

    host: Annotated[str, StringConstraints(pattern=r"^[^\s/\x00-\x1f\x7f]{1,260}$")]
    path: Annotated[str, StringConstraints(pattern=r"^/[^\s\x00-\x1f\x7f]{0,4000}$")] = "/"
    method: Token = "GET"
    scheme: Literal["http", "https"] = "http"
    sni: Annotated[str, StringConstraints(pattern=r"^[^\s/\x00-\x1f\x7f]{0,260}$")] = ""
    headers: Annotated[tuple[tuple[Token, Annotated[Line, Field(max_length=4000)]], ...], Field(max_length=50)] = ()


class Listing(_Model):
    """A page of Ingresses, those after `after` in the order of their names."""

    namespace: Annotated[str, Field(max_length=253)] = ""
    after: Annotated[str, Field(max_length=600)] = ""


class IngressState(_Model):
    """An Ingress of ours on one edge.

    serving: nginx has routes of it. shadowed: all that it claims is served for older Ingresses. rejected: none of it can be served.
    waiting: nginx has not got it yet. `version` is the resourceVersion that nginx has; `newest` the one that the bus has, where that is
    another. `problems` are sentences.
    """

    namespace: str
    name: str
    state: State
    version: str = ""
    newest: str = ""
    hosts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Page(_Model):
    """The answer to a listing. `more`: there are others after the last one."""

    instance: str
    ingresses: tuple[IngressState, ...] = ()
    more: bool = False


class Claimant(_Model):
    """An Ingress that names the host of a request, or any host: `ours` or of another class, and why its claims do not hold."""

    namespace: str
    name: str
    ours: bool
    state: State | None = None
    version: str = ""
    class_name: str = ""
    problems: tuple[str, ...] = ()


class Explanation(_Model):
    """What becomes of a request on one edge. `seen` is what nginx's program found (docs/services/nginx-config-renderer.md)."""

    instance: str
    seen: dict[str, Any] = {}
    claimants: tuple[Claimant, ...] = ()
    complete: bool = True
    settled: bool = True
    service_problems: tuple[str, ...] = ()


class Refusal(_Model):
    """Why there is no answer: a sentence."""

    instance: str
    error: str
