"""What the operator writes is tried where it gets at nothing: by root and by an ordinary user alike."""

import asyncio
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.process import Outcome, validate
from nginx_config_renderer.configuration import TEMPLATE, Edge, configuration
from nginx_config_renderer.confine import CANNOT, Bounds
from nginx_config_renderer.contract import clauses, missing
from nginx_config_renderer.options import Options
from nginx_config_renderer.program import PROGRAM
from nginx_config_renderer.trial import BadConfigurationError, Ground, find_ground
from nginx_config_renderer.trial import test as try_out
from tests.edge.world import NGINX, settings

OURS = (PROGRAM.parent / "templates" / TEMPLATE).read_text()
MIB = 1024 * 1024
PORTS = {"http_port": 80, "https_port": 443}


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return replace(settings(tmp_path, **PORTS).edge(), nginx=(1, 22, 1))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the renderer's own, which says something that nginx would complain of."""
    file = tmp_path / "token"
    file.write_text("eyJhbGciOi_a_token;")
    file.chmod(0o600)
    return file


@pytest.fixture(params=["as we are", "without root's user"])
def ground(request: pytest.FixtureRequest) -> Ground:
    """With another user, and as in a pod that is not root: there Landlock alone keeps files away."""
    found = asyncio.run(find_ground())
    assert found.isolated, "this kernel permits no isolation"
    return found if request.param == "as we are" else replace(found, prefix=(), user=0)


async def confined(ground: Ground, *command: str, memory: int = 512 * MIB) -> Outcome:
    return await ground.run(ground.bounds("/nonexistent", memory), *command)


async def test_the_machines_programs_are_left_and_our_files_are_not(ground: Ground, secret: Path) -> None:
    assert (await confined(ground, "cat", "/etc/passwd")).code == 0
    for private in (secret, Path("/etc/shadow"), Path("/proc/self/environ"), Path(f"/proc/{os.getpid()}/environ")):
        outcome = await confined(ground, "cat", str(private))
        assert outcome.code == 1, outcome.output
        assert "Permission denied" in outcome.output


SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="python3 is missing: apt-get install python3")
@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('127.0.0.1', {port}))",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "import os; os.kill({pid}, 0)",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "bytes(1 << 30)",
    ],
)
async def test_no_network_no_other_process_and_no_more_memory_than_is_given(ground: Ground, program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        text = program.format(port=listening.getsockname()[1], pid=os.getpid())
        outcome = await confined(ground, SYSTEM_PYTHON, "-c", text)
        assert "PermissionError" in outcome.output or "MemoryError" in outcome.output, outcome
        listening.setblocking(False)  # noqa: FBT003 the name of the argument is not public
        with pytest.raises(BlockingIOError):
            listening.accept()


async def test_time_is_bounded(ground: Ground) -> None:
    try:
        outcome = await confined(ground, "sh", "-c", "while :; do :; done")
        ended = outcome.code < 0 or outcome.code > 128
    except BadConfigurationError as error:  # where it gets little of a processor, the clock is the first to end it
        ended = str(error).startswith("it took more than")
    assert ended


async def test_a_configuration_is_tried_with_its_real_ports_and_takes_nobody_elses(ground: Ground, edge: Edge) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listening:
        taken = replace(edge, http_port=listening.getsockname()[1])
        await try_out(taken, Options(), NGINX, ground)
        await try_out(edge, Options(template=OURS.replace("backlog=4096", "backlog=511")), NGINX, ground)


@pytest.mark.parametrize("directive", ["include {};", "ssl_trusted_certificate {};", "auth_basic_user_file {};", "load_module {};"])
async def test_what_a_template_opens_is_not_shown_to_anybody(ground: Ground, edge: Edge, secret: Path, directive: str) -> None:
    template = OURS.replace("sendfile on;", directive.format(secret))
    if directive.startswith("auth"):  # nginx opens it when it is asked, and not before
        await try_out(edge, Options(template=template), NGINX, ground)
        return
    with pytest.raises(BadConfigurationError) as refused:
        await try_out(edge, Options(template=template), NGINX, ground)
    assert "a_token" not in str(refused.value)


async def test_lua_of_a_template_gets_no_further(ground: Ground, edge: Edge, secret: Path) -> None:
    escape = f'local file = io.open("{secret}") if file then error(file:read("*a")) end os.execute("touch {secret}.made")'
    template = OURS.replace("init_by_lua_block {", "init_by_lua_block { " + escape, 1)
    await try_out(edge, Options(template=template), NGINX, ground)
    assert not secret.with_name("token.made").exists()


async def test_a_machine_without_isolation_says_so_and_refuses_templates(edge: Edge) -> None:
    bare = Ground((), 0, isolated=False)
    with pytest.raises(BadConfigurationError, match="in isolation only"):
        await try_out(edge, Options(template=OURS), NGINX, bare)
    await try_out(edge, Options(), NGINX, bare)


async def test_what_cannot_be_confined_is_not_started() -> None:
    outcome = await validate(
        [sys.executable, "-m", "nginx_config_renderer.confine", str(Bounds(512 * MIB)), "/nonexistent/program"], timeout=10
    )
    assert outcome.code == CANNOT
    assert "/nonexistent/program cannot be confined" in outcome.output


# ---- what a template must keep


def without(line: str) -> str:
    assert line in OURS
    return OURS.replace(line, "", 1)


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("lua_shared_dict seaway_pairs {{ edge.table_size }}m;", "`lua_shared_dict seaway_pairs`"),
        ('require("seaway.admin")\n', '`require("seaway.admin")`'),
        ("balancer_by_lua_block { balance.choose() }", "`balancer_by_lua_block { balance.choose() }`"),
        ("ssl_certificate_by_lua_block { certificates.choose() }", "`ssl_certificate_by_lua_block { certificates.choose() }`"),
        ("set_by_lua_block $seaway_target { return router.route() }", "`set_by_lua_block $seaway_target"),
        ("log_by_lua_block { router.finish() }", "`log_by_lua_block { router.finish() }`"),
        ('set $seaway_cookie "";', "`set $seaway_cookie`"),
        ("location @413 { return 413; }", "`location @413`"),
        ('location = /apply { content_by_lua_block { require("seaway.admin").apply() } }', "`location = /apply`"),
        ("listen unix:{{ edge.admin_socket }};", "`listen unix:"),
        ('fingerprint = "{{ fingerprint }}",', 'it must hold fingerprint = "{{ fingerprint }}"'),
    ],
)
async def test_a_template_keeps_what_the_program_needs(ground: Ground, edge: Edge, line: str, needed: str) -> None:
    with pytest.raises(BadConfigurationError) as refused:
        await try_out(edge, Options(template=without(line)), NGINX, ground)
    assert needed in str(refused.value)


async def test_a_template_tells_its_own_fingerprint(ground: Ground, edge: Edge) -> None:
    fixed = OURS.replace("{{ fingerprint }}", "0" * 64)
    with pytest.raises(BadConfigurationError, match="it must hold fingerprint"):
        await try_out(edge, Options(template=fixed), NGINX, ground)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ 'a' * 999999999 }}", "memory"),
        ("{% for a in range(9999) %}{% for b in range(999) %}{{ edge.state }}{% endfor %}{% endfor %}", "memory|time|characters"),
        ("\n\n{{ nothing }}", "line 3: 'nothing' is undefined"),
        ("\n{% include '/etc/passwd' %}", "line 2: no loader"),
    ],
)
async def test_a_template_is_rendered_within_bounds(edge: Edge, template: str, complaint: str) -> None:
    with pytest.raises(BadConfigurationError, match=complaint):
        await try_out(edge, Options(template=template), NGINX, await find_ground())


def test_comments_keep_nothing_and_spaces_do_not_matter(edge: Edge) -> None:
    text = configuration(edge, Options(), "p")
    needed = clauses(text)
    assert missing(text.replace(";", " ;\n\n").replace("    ", "\t"), needed) == ()
    commented = text.replace("log_by_lua_block", "# log_by_lua_block")
    assert missing(commented, needed) == ("log_by_lua_block { router.finish() }",)
