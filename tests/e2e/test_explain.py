"""`seaway explain` and `seaway ingress list` ask the edge that runs, over the bus, and say what it serves."""

import json
from pathlib import Path

import pytest

from common.testing import wait_until
from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from tests.e2e.up_world import SOON, Up, up, write
from tests.edge.world import backend

pytestmark = pytest.mark.timeout(180)

HOST = "shop.example"


async def test_an_operator_is_told_what_answers_a_request_and_what_became_of_each_ingress(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    async with backend("web") as port:
        objects = [
            ingress_class(),
            ingress("shop", rule(HOST, "/", "web:80"), created="2020-01-01T00:00:00Z"),
            ingress("late", rule(HOST, "/", "web:80"), created="2021-01-01T00:00:00Z"),
            ingress("bad", rule("bad host", "/", "web:80")),
            service("web"),
            endpoint_slice("web", "127.0.0.1", port=port),
        ]
        write(folder / "shop.yaml", objects)
        async with up(tmp_path, f"--manifests={folder}") as seaway:
            await seaway.until(HOST, "web")

            async def listed() -> dict[str, str]:
                code, output, errors = await seaway.command_output("ingress", "list", "-o", "json")
                assert (code, errors) == (0, "")
                (states,) = json.loads(output)["edges"].values()
                return {one["name"]: one["state"] for one in states}

            async def all_are_told() -> bool:
                return await listed() == {"shop": "serving", "late": "shadowed", "bad": "rejected"}

            await wait_until(all_are_told, within=SOON)
            table = (await seaway.command_output("ingress", "list", "-n", "default"))[1]
            assert "older Ingress default/shop" in table

            code, told, errors = await seaway.command_output("explain", f"{HOST}/cart", "-H", "X-Any: thing")
            assert (code, errors) == (0, "")
            assert f"Ingress default/shop, host {HOST}, Prefix / → Service default/web:80" in told
            assert f"127.0.0.1:{port}, in use" in told
            assert "Ingress default/late: " in told
            assert "404" in (await seaway.command_output("explain", "nobody.example"))[1]

            code, told, errors = await seaway.command_output("explain", f"{HOST}/a b")
            assert (code, told) == (2, "")
            assert errors.startswith("seaway: path '/a b' cannot be asked: ")
            code, told, errors = await seaway.command_output("explain", HOST, "--edge", "elsewhere")
            assert (code, told) == (1, "")
            assert "there is no edge 'elsewhere'" in errors


async def test_a_machine_that_permits_too_little_is_told_so_at_the_start_with_the_value_to_set(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    seaway = Up(tmp_path, f"--manifests={tmp_path / 'manifests'}")
    seaway.command = ["prlimit", "--nofile=2048:2048", *seaway.command]
    await seaway.start()
    try:
        await seaway.ready()
        assert "a process may have 2048 files and connections open, and 32768 are needed" in seaway.said
        assert "LimitNOFILE=32768" in seaway.said
    finally:
        await seaway.end()
