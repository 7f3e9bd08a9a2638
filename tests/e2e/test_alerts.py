"""`seaway alerts` tells what should be acted on now, whatever became meanwhile of the process that said so first."""

import signal
from pathlib import Path
from typing import Any

import pytest

from common.testing import wait_until
from common.testing.authority import Authority
from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service, tls_secret
from tests.e2e.up_world import SOON, Up, up, write

pytestmark = pytest.mark.timeout(180)

AUTHORITY = Authority()


def site(name: str) -> dict[str, Any]:
    host = f"{name}.example"
    made = ingress(name, rule(host, "/", "web:80"))
    made["spec"]["tls"] = [{"hosts": [host], "secretName": name}]
    return made


async def firing(seaway: Up) -> dict[str, str]:
    """What fires, each since when."""
    code, output, errors = await seaway.command_output("alerts")
    assert (code, errors) == (0, "")
    head, *rows = [line.split() for line in output.splitlines()]
    name, since = head.index("ALERT"), head.index("SINCE")
    return {row[name]: row[since] for row in rows}


async def until_fires(seaway: Up, *names: str) -> dict[str, str]:
    async def they_do() -> bool:
        return set(await firing(seaway)) == set(names)

    await wait_until(they_do, within=SOON)
    return await firing(seaway)


async def test_alerts_of_a_killed_renderer_end_when_their_objects_were_mended_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    sites = [ingress_class(), service("web"), endpoint_slice("web"), site("renewed"), site("made"), site("ending")]
    write(folder / "sites.yaml", sites)
    ending = [tls_secret(name, AUTHORITY.issue(f"{name}.example", days=5)) for name in ("renewed", "ending")]
    write(folder / "secrets.yaml", ending)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        lasting, over = (
            "CertificateExpiry-default-ending",
            ("CertificateExpiry-default-renewed", "CertificateUnusable-default-made"),
        )
        before = await until_fires(seaway, lasting, *over)
        frozen = seaway.kill("renderer", signal.SIGSTOP)
        mended = [tls_secret(name, AUTHORITY.issue(f"{name}.example")) for name in ("renewed", "made")]
        write(folder / "secrets.yaml", [*mended, ending[1]])
        seaway.kill("renderer")
        await seaway.back("renderer", frozen)
        after = await until_fires(seaway, lasting)
        assert after[lasting] == before[lasting], "it went on"
