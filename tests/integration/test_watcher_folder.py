"""A real folder: changes are noticed, and a broken file takes nothing away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from common.contracts.objects import MODELS, Service
from watcher.folder import Folder
from watcher.model import Faults, Listed, Observation


def service(name: str, port: int = 80) -> str:
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"


async def look(observations: AsyncIterator[Observation]) -> tuple[list[str], bool, list[str]]:
    """The names of the Services, whether the listing is complete, and the problems: of one whole look."""
    names: list[str] = []
    complete = True
    async for observation in observations:
        match observation:
            case Listed(model=model, items=items) if model is Service:
                names, complete = [item["metadata"]["name"] for item in items], observation.complete
            case Faults(problems=problems):
                return names, complete, [problem.message for problem in problems]
    raise AssertionError("the folder ended by itself")


async def test_changes_of_files_are_noticed_and_a_broken_file_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(service("a") + service("b"))
    (tmp_path / "notes.txt").write_text("not a manifest")
    (tmp_path / ".hidden.yaml").write_text(service("hidden"))
    async with asyncio.timeout(30), aclosing(Folder(tmp_path, MODELS).observe()) as observations:
        assert await look(observations) == (["a", "b"], True, [])

        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "c.json").write_text('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}}')
        assert await look(observations) == (["a", "b", "c"], True, [])

        (tmp_path / "a.yaml").write_text(service("a") + "  : {\n")
        names, complete, problems = await look(observations)
        assert (names, complete) == (["a", "b", "c"], True)
        assert "a.yaml:" in problems[0]

        (tmp_path / "a.yaml").write_text(service("a"))
        assert await look(observations) == (["a", "c"], True, [])

        (tmp_path / "sub" / "c.json").unlink()
        assert await look(observations) == (["a"], True, [])


async def test_while_a_file_was_never_readable_absence_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{")
    async with asyncio.timeout(30), aclosing(Folder(tmp_path, MODELS).observe()) as observations:
        names, complete, problems = await look(observations)
    assert (names, complete, len(problems)) == ([], False, 1)


async def test_a_missing_folder_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"nowhere is no folder"):
        await anext(Folder(tmp_path / "nowhere", MODELS).observe())
