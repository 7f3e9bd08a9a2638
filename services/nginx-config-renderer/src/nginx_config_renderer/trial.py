"""A trial: what nginx itself says of a configuration, found out where it can do no harm.

nginx -t opens files and ports, and loads what it is told to; its complaints show what is in there. So it runs confined (see `confine`):
it gets the machine's programs and the directory of the trial, and neither our keys, nor our token, nor a network; as nobody if we are
root, and in a network namespace of its own where we may make one. The same goes for a template of the operator, which could as well
compute for ever. Where the machine permits no such isolation only our own template is tried, which holds no text of anybody.
"""

import os
import pickle
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from common.process import Outcome, validate
from nginx_config_renderer.configuration import Edge, configuration
from nginx_config_renderer.confine import Bounds
from nginx_config_renderer.default_certificate import ensure_certificate, owner_of
from nginx_config_renderer.options import Options
from nginx_config_renderer.program import copy_program, program_digest

SOURCE: Final = "source"
TEXT: Final = "nginx.conf"
_DEADLINE: Final = 30.0
_NOBODY: Final = 65534
_MIB: Final = 1024 * 1024
_MEMORY: Final = 512 * _MIB
_TABLES: Final = 8  # in shared memory, which counts
# Without isolation it shares nginx's network, and must take no client that is meant for nginx.
_HTTP: Final = 20080
_HTTPS: Final = 20443
_FIRST: Final = 21000
_PYTHON: Final = (sys.executable, "-P", "-m")
_WEAK: Final = ("prlimit", "--cpu=8", "--as=8589934592", "--fsize=67108864", "--nofile=1024", "--core=0", "--")

_PREFIX: Final = re.compile(r"^.*\[emerg\] (\d+#\d+: )?")

log = structlog.get_logger(__name__)


class BadConfigurationError(Exception):
    """nginx does not take the configuration, or the template makes none; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where trials are made: what a command begins with, as which user it runs (0: as we do), and whether it is kept from all else."""

    prefix: tuple[str, ...]
    user: int
    isolated: bool

    def bounds(self, directory: str, memory: int, *readable: str) -> Bounds:
        """What is left to a trial in that directory."""
        return Bounds(memory, readable, (directory,), self.user)

    async def run(self, bounds: Bounds, *command: str) -> Outcome:
        """Runs a program to its end. Raises BadConfigurationError if that takes too long."""
        if not self.isolated:
            return await _end([*_WEAK, *command])
        return await _end([*self.prefix, *_PYTHON, "nginx_config_renderer.confine", str(bounds), *command])

    async def render(self, directory: str) -> Outcome:
        """Renders what is in the directory."""
        bounds = self.bounds(directory, _MEMORY)
        return await _end([*self.prefix, *_PYTHON, "nginx_config_renderer.rendering", directory, str(bounds)])


async def _end(command: list[str]) -> Outcome:
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    try:
        return await validate(command, timeout=_DEADLINE, environment=environment)
    except TimeoutError as error:
        raise BadConfigurationError(f"it took more than {_DEADLINE:g} s") from error


async def find_ground() -> Ground:
    """The best that this machine permits us."""
    user = _NOBODY if os.geteuid() == 0 else 0
    own_network = ("unshare", "--net", "--ipc", "--") if user else ("unshare", "--user", "--net", "--ipc", "--")
    reason = ""
    for prefix in (own_network, ()):
        ground = Ground(prefix, user, isolated=True)
        try:
            outcome = await ground.run(ground.bounds("/nonexistent", _MEMORY), "true")
        except (OSError, BadConfigurationError) as error:
            reason = str(error)
            continue
        if outcome.code == 0:
            return ground
        reason = outcome.output.strip()[:500]
    log.warning(
        "trial.not_isolated", reason=reason, hint="templates of a ConfigMap are refused; a kernel with Landlock permits them"
    )
    return Ground((), 0, isolated=False)


async def text_of(edge: Edge, options: Options, ground: Ground) -> str:
    """nginx.conf. Raises BadConfigurationError if a template of the operator makes none."""
    if not options.template:
        return configuration(edge, options, program_digest())
    if not ground.isolated:
        raise BadConfigurationError("a template is tried in isolation only, and this machine permits none")
    with tempfile.TemporaryDirectory(prefix="seaway-template-") as directory:
        source = Path(directory) / SOURCE
        source.write_bytes(pickle.dumps((edge, options, program_digest())))
        outcome = await ground.render(directory)
        if outcome.code != 0:
            said = outcome.output.strip().splitlines()
            raise BadConfigurationError(said[-1][:500] if said else "it takes too much time or memory")
        return (Path(directory) / TEXT).read_text()


async def test(edge: Edge, options: Options, program: str, ground: Ground) -> None:
    """Raises BadConfigurationError with nginx's own words if it would not start with `edge` and `options`."""
    with tempfile.TemporaryDirectory(prefix="seaway-test-") as directory:
        here = Path(directory)
        if ground.user:
            os.chown(here, ground.user, ground.user)
        copy_program(here / "program")
        ensure_certificate(here / "default.crt", here / "default.key", here)
        for authority in {one.authority for one in edge.secured if one.authority}:
            shutil.copyfile(Path(edge.authorities) / f"{authority}.pem", here / f"{authority}.pem")
        text = await text_of(_elsewhere(edge, directory, ground), options, ground)
        (here / TEXT).write_text(text)
        _give(here)
        memory = _MEMORY + _TABLES * edge.table_size * _MIB + options.ssl_session_cache_size
        bounds = ground.bounds(directory, memory, program, *edge.modules, *edge.stream_modules)
        outcome = await ground.run(bounds, program, "-t", "-q", "-e", "stderr", "-p", directory, "-c", str(here / TEXT))
    if outcome.code != 0:
        raise BadConfigurationError(_words(outcome, text).replace(directory, edge.state))


def _elsewhere(edge: Edge, directory: str, ground: Ground) -> Edge:
    """The same in a directory of its own. Isolated it keeps its ports, since it cannot listen."""
    there = replace(
        edge,
        state=directory,
        run=directory,
        admin_socket=f"{directory}/admin.sock",
        program=f"{directory}/program",
        certificate=f"{directory}/default.crt",
        certificate_key=f"{directory}/default.key",
        journals=(),
        logs=directory,
        authorities=directory,
    )
    if ground.isolated:
        return there
    listeners = tuple(replace(one, port=_FIRST + number) for number, one in enumerate(edge.listeners))
    return replace(there, http_port=_HTTP, https_port=_HTTPS if edge.https_port else 0, listeners=listeners)


def _give(directory: Path) -> None:
    """Makes all that is in a directory its owner's."""
    for path in directory.rglob("*"):
        os.chown(path, *owner_of(directory))


def _words(outcome: Outcome, text: str) -> str:
    """Nginx's complaint in one line, with the line of the configuration that it is about."""
    said = outcome.output.strip().splitlines()
    complaint = next((line for line in said if "[emerg]" in line), said[0] if said else f"nginx -t ended with {outcome.code}")
    number = complaint.rpartition(f"{TEXT}:")[2]
    lines = text.splitlines()
    shown = f" ({lines[int(number) - 1].strip()[:120]})" if number.isdigit() and 0 < int(number) <= len(lines) else ""
    return _PREFIX.sub("", complaint) + shown
