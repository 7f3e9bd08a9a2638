"""Documents speak of what there is: every metric, alert, flag, variable, command, file and target that a page names exists, and whoever is
woken by a metric or an alert finds it in a page.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.packaging import ROOT

from common.runtime.settings import PREFIX, ServiceSettings
from haproxy_lb.settings import Settings as BalancerSettings
from keepalived_vip.settings import Settings as VipSettings
from nginx_config_renderer.settings import Settings as RendererSettings
from seaway.__main__ import app
from watcher.settings import Settings as WatcherSettings

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "deploy/README.md"])
SERVICES: tuple[type[ServiceSettings], ...] = (WatcherSettings, RendererSettings, BalancerSettings, VipSettings)
SOURCES = [
    path for folder in ("libs", "services") for path in sorted((ROOT / folder).glob("*/src/**/*.py")) if "testing" not in path.parts
]
PLACES = (
    "",
    "docs",
    "libs/common/src",
    "libs/seaway/src",
    *(f"services/{path.name}/src" for path in (ROOT / "services").iterdir()),
)

THEIRS = {"lb-class"}  # MetalLB's, whose users read how it is called here

INLINE = re.compile(r"`([^`\n]+)`")
METRIC = re.compile(r"seaway_(?:bus|edge|lb|replica|vip|watcher)_[a-z0-9_]+")
ALERT = re.compile(r"[Aa]lerts?:? ((?:`[A-Z][A-Za-z]+[^`]*`(?:,| and| or|\s|\([^)]*\))*)+)")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9.-]*[a-z0-9])")
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b")
WORD = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+")
FILE = re.compile(r"[\w./-]+\.(?:py|lua|js|sh|md|yaml|j2|conf|cfg|json|txt|env)")
QUOTE = re.compile(r'"([^"`]+)"')
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def text_of(page: Path) -> str:
    return page.read_text()


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


@cache
def code() -> str:
    """All that is no document, as one text."""
    kept = ("*.py", "*.lua", "*.js", "*.sh", "*.j2", "*.yaml", "*.toml", "Makefile", "Dockerfile", "*.env", "*.cfg", "*.conf")
    files = [
        path
        for folder in ("libs", "services", "deploy", "scripts", "tests")
        for kind in kept
        for path in (ROOT / folder).rglob(kind)
    ]
    own = Path(__file__)
    return "\n".join(path.read_text() for path in [*files, ROOT / "Makefile", ROOT / "docker-compose.yml"] if path != own)


@cache
def metrics() -> frozenset[str]:
    """The names of all that services show."""
    return frozenset(METRIC.findall("\n".join(path.read_text() for path in SOURCES)))


@cache
def alerts() -> frozenset[str]:
    """The alerts that services raise, a family by its name."""
    return frozenset(name for path in SOURCES for name in _raised(ast.parse(path.read_text())))


def _raised(module: ast.Module) -> Iterator[str]:
    constants = {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.AnnAssign) and isinstance(target := node.target, ast.Name) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr not in {"alert", "alerts", "_alert"}:
                continue
            first = node.args[0]
            if isinstance(first, ast.JoinedStr):
                first = first.values[0]
            value = constants.get(first.id) if isinstance(first, ast.Name) else getattr(first, "value", None)
            if isinstance(value, str):
                yield value.partition("-")[0]


@cache
def flags() -> frozenset[str]:
    """The flags of services and of the command, without their dashes."""
    found = {_kebab(path) for service in SERVICES for path in _fields(service)}
    found |= {
        option.lstrip("-") for _, command in commands() for each in command.params for option in each.opts + each.secondary_opts
    }
    return frozenset(found | {"help"})


def _kebab(path: tuple[str, ...]) -> str:
    return ".".join(part.replace("_", "-") for part in path)


def _fields(model: type) -> Iterator[tuple[str, ...]]:
    for name, info in model.model_fields.items():  # type: ignore[attr-defined]  # a pydantic model, of settings or of the bus's
        yield (name,)
        if hasattr(info.annotation, "model_fields"):
            yield from ((name, *rest) for rest in _fields(info.annotation))


@cache
def commands() -> tuple[tuple[str, Any], ...]:
    """Each command of `seaway` by its words."""
    return tuple(_below("", typer.main.get_command(app)))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from _below(f"{words} {name}".strip(), one)


@every_page
def test_metrics_exist(page: Path) -> None:
    known = metrics()
    plain = {name for name in METRIC.findall(text_of(page)) if name not in known}
    histograms = {name for name in plain if name.rpartition("_")[0] in known and name.endswith(("_bucket", "_count", "_sum"))}
    assert plain - histograms == set()


@every_page
def test_alerts_exist(page: Path) -> None:
    said = {name for found in ALERT.findall(text_of(page)) for name in re.findall(r"`([A-Z][A-Za-z]+)", found)}
    assert said - alerts() == set()


@every_page
def test_events_reasons_and_kinds_exist(page: Path) -> None:
    said = {
        word
        for span in INLINE.findall(text_of(page))
        for word in WORD.findall(span)
        if re.fullmatch(rf"{WORD.pattern}(-.*)?", span)
    }
    assert {word for word in said if word not in code()} == set()


@every_page
def test_flags_of_ours_exist(page: Path) -> None:
    lines = [line for line in text_of(page).splitlines() if re.search(r"(?:^ {4,}|`)(?:\$ )?(?:\.venv/bin/)?seaway ", line)]
    spans = [span for span in INLINE.findall(text_of(page)) if span.startswith("--")]
    said = {flag for line in [*lines, *spans] for flag in FLAG.findall(line)}
    assert said - flags() - THEIRS == set()


@every_page
def test_variables_exist(page: Path) -> None:
    known = {PREFIX + "__".join(path).upper() for service in SERVICES for path in _fields(service)}
    said = set(VARIABLE.findall(text_of(page)))
    assert {name for name in said - known if not re.search(rf"\b{name}\b", code())} == set()


@every_page
def test_commands_exist(page: Path) -> None:
    known = {words for words, _ in commands()}
    first = {words.split()[0] for words in known if words}
    for words in re.findall(r"(?:^ {4,}(?:\$ )?|`)(?:\.venv/bin/)?seaway ((?:[a-z]+ ?)+)", text_of(page), re.MULTILINE):
        given = words.split()
        assert given[0] in first, f"seaway {words}"
        groups = {one.split()[0] for one in known if " " in one}
        assert given[0] not in groups or given[0] == "state" or len(given) < 2 or " ".join(given[:2]) in known, f"seaway {words}"


@every_page
def test_files_and_targets_exist(page: Path) -> None:
    text = text_of(page)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^ {4}make ([a-z-]+)", text, re.MULTILINE)) <= targets
    assert {link for link in LINK.findall(text) if not (page.parent / link).exists()} == set()
    spans = [span for span in INLINE.findall(text) if FILE.fullmatch(span) and not span.startswith(("/", "."))]
    assert {span for span in spans if not _exists(page, span)} == set()


@pytest.mark.parametrize("page", sorted((ROOT / "docs/runbooks").glob("*.md")), ids=named)
def test_what_a_runbook_quotes_is_said(page: Path) -> None:
    """Whoever has a sentence before his eyes looks for it there."""
    text = " ".join(line for line in text_of(page).splitlines() if not line.startswith("    "))
    said = {part.strip() for quote in QUOTE.findall(INLINE.sub("", text)) for part in quote.split("…")}
    plain = re.sub(r"\s+", " ", re.sub(r'"\n\s+f?"', "", code()))
    assert {part for part in said if part.count(" ") > 1 and part not in plain} == set()


def test_each_kind_of_test_is_told_in_contributing() -> None:
    kinds = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")} | {"bench"}
    assert {kind for kind in kinds if f"`tests/{kind}`" not in (ROOT / "CONTRIBUTING.md").read_text()} == set()


def _exists(page: Path, name: str) -> bool:
    if any((base / name).exists() for base in (page.parent, *(ROOT / place for place in PLACES))):
        return True
    folders = ("libs", "services", "deploy", "docs", "tests", "scripts")
    return (
        any(str(path).endswith(f"/{name}") for folder in folders for path in (ROOT / folder).rglob(Path(name).name))
        or name in code()
    )


def test_whoever_is_woken_by_a_metric_or_an_alert_finds_it_in_a_page() -> None:
    pages = "\n".join(text_of(page) for page in PAGES)
    assert {name for name in metrics() if not re.search(rf"\b{name}\b", pages)} == set()
    assert {name for name in alerts() if not re.search(rf"`{name}\b", pages)} == set()
