"""The probe of containers, asked of real listeners."""

import asyncio
from pathlib import Path

import pytest

from common.runtime import probe
from common.runtime.health import Health


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_container_is_as_well_as_its_service_says(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: list[str] = []
    health = Health()
    health.ready_when("replica", lambda: missing[0] if missing else None)
    async with health.served("127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/probes.sock") as address:
        monkeypatch.setenv("SEAWAY_PROBES", address)
        assert await asyncio.to_thread(probe.main, []) == 0

        missing.append("no snapshot yet")
        assert await asyncio.to_thread(probe.main, ["readyz"]) == 1
        assert "no snapshot yet" in capsys.readouterr().err
        assert await asyncio.to_thread(probe.main, ["livez"]) == 0


def test_a_service_that_is_not_there_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEAWAY_PROBES", f"unix:{tmp_path}/none.sock")
    assert probe.main([]) == 1
    assert "nobody answers" in capsys.readouterr().err

    monkeypatch.delenv("SEAWAY_PROBES")
    assert probe.main([]) == 1
    assert "SEAWAY_PROBES is not set" in capsys.readouterr().err
