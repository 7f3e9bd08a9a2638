"""`seaway up` on a folder of manifests: it serves, heals what dies, refuses what cannot be, and leaves nothing behind."""

import asyncio
import json
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from common.testing import wait_until
from common.testing.authority import Authority, Issued
from common.testing.objects import config_map, endpoint_slice, ingress, ingress_class, opaque_secret, rule, service, tls_secret
from common.testing.ports import free_port
from seaway.local import vault_of
from tests.e2e.up_world import SOON, Up, remains, up, write
from tests.edge.world import ask, backend

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of manifests."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    return manifests


@pytest.fixture
async def web() -> AsyncIterator[int]:
    async with backend("web") as port:
        yield port


def serve(folder: Path, name: str, port: int) -> None:
    """Writes a site `NAME.example` with one endpoint."""
    host = f"{name}.example"
    objects = [ingress(name, rule(host, "/", f"{name}:80")), service(name), endpoint_slice(name, "127.0.0.1", port=port)]
    write(folder / f"{name}.yaml", [ingress_class(), *objects] if name == "web" else objects)


async def test_it_serves_a_folder_says_what_each_part_does_and_ends_with_nothing_left(
    folder: Path, tmp_path: Path, web: int
) -> None:
    serve(folder, "web", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        assert (await seaway.ask("web.example")).by == "web"
        before, ready, _ = seaway.said.partition("\nReady after ")
        assert ready
        # Each part says what it does. On some machines it has more to say, such as that a limit is too low.
        does = {
            "nats-server": f"keeps the bus on 127.0.0.1:{seaway.nats}",
            "watcher": f"follows the manifests in {folder}",
            "nginx-config-renderer": "gives nginx the Ingresses of class nginx (k8s.io/ingress-nginx)",
            "nginx": f"serves HTTP on port {seaway.http} and HTTPS on port {seaway.https}",
        }
        for part, sentence in does.items():
            assert re.search(rf"^{part} +{re.escape(sentence)}", before, re.MULTILINE), part
        assert set(seaway.parts()) == {"nats-server", "watcher", "renderer", "nginx", "worker"}

        assert await seaway.end(signal.SIGINT) == 0
        assert remains(tmp_path) == []
        for port in (seaway.http, seaway.https, seaway.nats):
            with closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        assert not (seaway.data / "bus.url").exists()
        assert "Traceback" not in seaway.said
        assert seaway.said.splitlines()[-1] == "Ending."


async def test_the_operators_configmap_is_obeyed_and_a_slip_in_it_changes_nothing(folder: Path, tmp_path: Path, web: int) -> None:
    serve(folder, "web", web)
    slash = ingress("slash", rule("slash.example", "/foo/", "web:80", "Exact"))
    write(folder / "slash.yaml", [slash, config_map("nginx-config", {"strict-trailing-slash": "false"}, "seaway-edge")])
    async with up(tmp_path, f"--manifests={folder}") as seaway:

        async def status() -> int:
            return (await seaway.ask("slash.example", "/foo")).status

        async def redirects() -> bool:
            return await status() == 301

        await wait_until(redirects, within=SOON)
        slipped = {"strict-trailing-slash": "true", "proxy-body-sise": "1m"}
        write(folder / "slash.yaml", [slash, config_map("nginx-config", slipped, "seaway-edge")])
        await wait_until(lambda: "key proxy-body-sise is '1m': it is not known here" in seaway.said, within=SOON)
        assert await status() == 301
        write(folder / "slash.yaml", [slash])

        async def strict() -> bool:
            return await status() == 404

        await wait_until(strict, within=SOON)


async def test_a_port_of_a_configmap_leads_to_its_service_and_a_bad_one_is_told(folder: Path, tmp_path: Path, web: int) -> None:
    serve(folder, "web", web)
    port, later = free_port(), free_port()
    write(folder / "ports.yaml", [config_map("tcp-services", {str(port): "default/web:80", "x": "default/web:80"}, "seaway-edge")])
    passed = {"nginx.ingress.kubernetes.io/ssl-passthrough": "true"}
    write(folder / "pass.yaml", [ingress("pass", rule("pass.example", "/", "web:80"), annotations=passed)])
    async with up(tmp_path, f"--manifests={folder}", "--ssl-passthrough") as seaway:

        async def answers(at: int) -> bool:
            return (await ask(at, "any.example")).by == "web"

        await wait_until(lambda: answers(port), within=SOON)
        await wait_until(lambda: "key 'x': this is no port" in seaway.said, within=SOON)
        write(folder / "ports.yaml", [config_map("tcp-services", {str(later): "default/web:80"}, "seaway-edge")])
        await wait_until(lambda: answers(later), within=SOON)
        assert (await ask(port, "any.example")).status == 0
        assert (seaway.data / "nginx/streams/hosts/pass.example").read_text() == f'["127.0.0.1:{web}"]'
        seaway.kill("nginx")
        seaway.kill("renderer")
        await wait_until(lambda: answers(later), within=SOON)


async def test_nobody_but_the_owner_can_read_its_keys_and_nginx_is_not_root(folder: Path, tmp_path: Path, web: int) -> None:
    serve(folder, "web", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        secret = [path for path in seaway.data.rglob("*") if path.suffix in {".nkey", ".key"} or path.name == "nats.conf"]
        assert len(secret) >= 5
        assert {path.name for path in secret if path.stat().st_mode & 0o077} == set()
        status, _ = proc(seaway.parts()["nginx"])
        assert "NoNewPrivs:\t1" in status or os.geteuid() != 0
        assert "\nUid:\t0" not in status
        for part in ("nats-server", "watcher", "renderer"):
            _, command = proc(seaway.parts()[part])
            assert not any(path.read_bytes().strip() in command for path in secret if path.suffix == ".nkey")


def proc(pid: int) -> tuple[str, bytes]:
    """Status and command line of a process."""
    return Path(f"/proc/{pid}/status").read_text(), Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_however_it_is_killed_no_part_outlives_it(folder: Path, tmp_path: Path, web: int, number: signal.Signals) -> None:
    serve(folder, "web", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        await seaway.end(number)
        await wait_until(lambda: not remains(tmp_path), within=SOON)
        await seaway.start()
        await wait_until(lambda: seaway.said.count("Ready after") == 2, within=SOON)
        assert (await seaway.ask("web.example")).by == "web", "and it starts again on what is left"


async def test_ctrl_c_while_it_starts_ends_it_too(folder: Path, tmp_path: Path) -> None:
    async with up(tmp_path, f"--manifests={folder}", ready=False) as seaway:
        await wait_until(lambda: "watcher" in seaway.parts(), within=SOON)
        assert await seaway.end() == 0
        assert "Traceback" not in seaway.said


async def test_each_part_that_is_killed_is_started_again_and_changes_arrive_as_before(
    folder: Path, tmp_path: Path, web: int
) -> None:
    serve(folder, "web", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        for part in ("watcher", "renderer", "nats-server", "worker", "nginx"):
            old = seaway.kill(part)
            if part in {"watcher", "renderer", "nats-server"}:
                assert (await seaway.ask("web.example")).by == "web", f"nginx serves on without {part}"
            serve(folder, f"after-{part}", web)
            await seaway.back(part, old)
            await seaway.until(f"after-{part}.example", "web")
            assert (await seaway.ask("web.example")).by == "web"
        for part in ("watcher", "nginx-config-renderer", "nats-server", "nginx"):
            assert f"{part} ended with signal SIGKILL and is started again" in seaway.said


async def test_what_is_deleted_while_it_is_down_is_gone_when_it_is_back(folder: Path, tmp_path: Path, web: int) -> None:
    serve(folder, "web", web)
    serve(folder, "old", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        await seaway.until("old.example", "web")
        assert await seaway.end() == 0
        (folder / "old.yaml").unlink()
        await seaway.start()
        await wait_until(lambda: seaway.said.count("Ready after") == 2, within=SOON)
        assert (await seaway.ask("web.example")).by == "web"
        await seaway.until("old.example", "404")


async def test_a_broken_file_is_told_with_file_and_line_and_everybody_is_served_on(folder: Path, tmp_path: Path, web: int) -> None:
    serve(folder, "web", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        (folder / "web.yaml").write_text((folder / "web.yaml").read_text() + "\n  : {\n")
        await wait_until(lambda: "web.yaml:" in seaway.said, within=SOON)
        serve(folder, "other", web)
        await seaway.until("other.example", "web")
        assert (await seaway.ask("web.example")).by == "web"
        write(folder / "bad.yaml", [ingress("bad", rule("bad.example", "no-slash", "web:80"))])
        await wait_until(lambda: "does not begin with" in seaway.said, within=SOON)
        code, output, _ = await seaway.command_output("events")
        assert code == 0
        assert "ingresses default/bad rejected: spec.rules[0].http.paths[0].path 'no-slash' does not begin" in output


async def test_a_secret_in_the_folder_is_the_certificate_of_its_host_and_stays_out_of_everything_else(
    folder: Path, tmp_path: Path, web: int
) -> None:
    authority = Authority()
    context = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca.crt")))
    serve(folder, "web", web)
    shop = ingress("shop", rule("shop.example", "/", "web:80"))
    shop["spec"]["tls"] = [{"hosts": ["shop.example"], "secretName": "cert"}]
    write(folder / "shop.yaml", [shop])
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        await wait_until(lambda: "Secret default/cert does not exist" in seaway.said, within=SOON)
        for _ in range(2):
            issued = authority.issue("shop.example")
            write(folder / "cert.yaml", [tls_secret("cert", issued)])

            async def served(issued: Issued = issued) -> bool:
                certificate = await seaway.certificate("shop.example", context)
                return (
                    x509.load_der_x509_certificate(certificate) == x509.load_pem_x509_certificate(issued.certificate)
                    if certificate
                    else False
                )

            await wait_until(served, within=SOON)
        assert (await ask(seaway.https, "shop.example", tls=context)).by == "web"
        assert (await seaway.ask("shop.example")).status == 308
        line = issued.key.splitlines()[1]
        assert holders(seaway.data, line) == []
        assert line.decode() not in seaway.said
        assert line.decode() not in (await seaway.command_output("state", "-r", "secrets", "-o", "yaml"))[1]
        vault = vault_of(seaway.data)
        assert vault is not None
        assert holders(vault, line) == ["keys"]
        await seaway.end()
        assert not vault.exists()


async def test_backends_prove_who_they_are_and_names_lead_to_them(folder: Path, tmp_path: Path, web: int) -> None:
    """A Secret's authorities go through the renderer into nginx, also a renewed bundle and after a kill; so does what a name means."""
    good, other = Authority("Good"), Authority("Other")
    asked = {"backend-protocol": "HTTPS", "proxy-ssl-secret": "ca", "proxy-ssl-verify": "on"}
    annotations = {f"nginx.ingress.kubernetes.io/{name}": value for name, value in asked.items()}
    serve(folder, "web", web)
    issued = good.issue("vault.default.svc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "pair.pem").write_bytes(issued.certificate + issued.key)
    context.load_cert_chain(tmp_path / "pair.pem")
    async with backend("vault", tls=context) as port, up(tmp_path, f"--manifests={folder}") as seaway:
        shop = ingress("vault", rule("vault.example", "/", "vault:443"), annotations=annotations)
        write(folder / "vault.yaml", [shop, service("vault", 443), endpoint_slice("vault", "127.0.0.1", port=port)])
        await seaway.until("vault.example", "503")
        write(folder / "ca.yaml", [opaque_secret("ca", {"ca.crt": good.certificate})])
        await seaway.until("vault.example", "vault")
        write(folder / "ca.yaml", [opaque_secret("ca", {"ca.crt": other.certificate})])
        await seaway.until("vault.example", "502")
        write(folder / "ca.yaml", [opaque_secret("ca", {"ca.crt": other.certificate + good.certificate})])
        await seaway.until("vault.example", "vault")
        for part in ("renderer", "nginx"):
            await seaway.back(part, seaway.kill(part))
            await seaway.until("vault.example", "vault")
        address = own_address()
        if address is not None:
            async with backend("outside", address=address) as outside:
                leading = service("outside", 80)
                leading["spec"] |= {"type": "ExternalName", "externalName": address}
                leading["spec"]["ports"][0]["targetPort"] = outside
                write(folder / "outside.yaml", [ingress("outside", rule("outside.example", "/", "outside:80")), leading])
                await seaway.until("outside.example", "outside")
        await seaway.end()


def own_address() -> str | None:
    """An address of this machine that is not the loopback address."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def holders(directory: Path, what: bytes) -> list[str]:
    """The files that hold some bytes."""
    return [path.name for path in directory.rglob("*") if path.is_file() and what in path.read_bytes()]


async def test_the_replica_can_be_read_in_every_form_and_followed(folder: Path, tmp_path: Path, web: int) -> None:
    serve(folder, "web", web)
    async with up(tmp_path, f"--manifests={folder}") as seaway:
        code, output, errors = await seaway.command_output("state")
        assert (code, errors) == (0, "")
        header, *lines = output.splitlines()
        assert header.split() == ["RESOURCE", "NAMESPACE", "NAME", "VERSION", "AGE"]
        assert [line.split()[:3] for line in lines] == [
            ["services", "default", "web"],
            ["endpointslices.discovery.k8s.io", "default", "web-1"],
            ["ingressclasses.networking.k8s.io", "-", "nginx"],
            ["ingresses.networking.k8s.io", "default", "web"],
        ]
        listed = json.loads((await seaway.command_output("state", "-r", "ingresses", "-o", "json"))[1])
        assert [found["metadata"]["name"] for found in listed["items"]] == ["web"]
        one = yaml.safe_load((await seaway.command_output("state", "get", "services", "default", "web"))[1])
        assert (one["kind"], one["spec"]["ports"][0]["port"]) == ("Service", 80)

        for arguments, mend in (
            (("get", "services", "default", "nobody"), "`seaway state -r services` lists what it knows"),
            (("get", "cars", "default", "web"), "the bus holds no resource 'cars'; it holds endpointslices,"),
            (("-r", "cars"), "the bus holds no resource 'cars'"),
        ):
            code, output, errors = await seaway.command_output("state", *arguments)
            assert (code, output) == (1, "")
            assert mend in errors
            assert errors.count("\n") == 1, "one sentence"

        environment = {**os.environ, "SEAWAY_DATA": str(seaway.data), "PYTHONUNBUFFERED": "1"}
        follower = await asyncio.create_subprocess_exec(
            *seaway.command[:3], "state", "--watch", "-r", "services", stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert follower.stdout is not None
        async with asyncio.timeout(SOON):
            await _line(follower.stdout, "applied", "web")
            serve(folder, "more", web)
            await _line(follower.stdout, "applied", "more")
            (folder / "more.yaml").unlink()
            await _line(follower.stdout, "deleted", "more")
            follower.send_signal(signal.SIGINT)
            assert await follower.wait() == 130


async def _line(stream: asyncio.StreamReader, *words: str) -> None:
    while line := (await stream.readline()).decode():
        if set(words) <= set(line.split()):
            return
    raise AssertionError(f"no line has {words}")


async def test_without_a_seaway_a_command_says_how_to_reach_one(tmp_path: Path) -> None:
    seaway = Up(tmp_path)
    code, _, errors = await seaway.command_output("state")
    assert code == 1
    assert f"no Seaway runs on this machine with its data in {seaway.data}; start one with `seaway up`" in errors


async def refusal(seaway: Up, **environment: str) -> str:
    """What it says when it ends at once."""
    await seaway.start(**environment)
    try:
        assert await seaway.ended(SOON) != 0
    finally:
        if seaway.code is None:
            os.kill(seaway.pid, signal.SIGKILL)
    assert "Traceback" not in seaway.said
    return " ".join(seaway.said.split())


async def test_what_cannot_be_is_refused_with_the_mend(folder: Path, tmp_path: Path) -> None:
    assert "name one source of objects: --manifests DIR or --kubeconfig FILE" in await refusal(Up(tmp_path))
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    refused = await refusal(Up(tmp_path / "one"), KUBECONFIG="/nowhere")
    assert "KUBECONFIG is /nowhere, and there is no such file; name one, or use --kubeconfig FILE" in refused
    assert "'/nowhere' does not exist" in await refusal(Up(tmp_path / "two", "--manifests=/nowhere"))

    with closing(socket.socket()) as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "three").mkdir()
        seaway = Up(tmp_path / "three", f"--manifests={folder}", f"--http={port}")
        assert f"port {port} is taken by another program; free it, or choose another one with --http" in await refusal(seaway)

    (tmp_path / "four").mkdir()
    port = free_port()
    twins = Up(tmp_path / "four", f"--manifests={folder}", f"--http={port}", f"--https={port}")
    assert f"--http and --https are both {port}; choose another port for one of them" in await refusal(twins)

    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    (tmp_path / "five").mkdir()
    assert "kubeconfig" in await refusal(Up(tmp_path / "five", f"--kubeconfig={kubeconfig}"))


async def test_two_seaways_do_not_share_their_data(folder: Path, tmp_path: Path) -> None:
    async with up(tmp_path, f"--manifests={folder}") as first:
        second = Up(tmp_path, f"--manifests={folder}")
        second.output = tmp_path / "second.log"
        assert f"a Seaway already runs with its data in {first.data}; end it, or name another directory" in await refusal(second)


async def test_an_api_server_that_is_not_there_is_waited_for_and_named(tmp_path: Path, folder: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    server = f"https://127.0.0.1:{free_port()}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": "never-to-be-said"}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    async with up(tmp_path, f"--kubeconfig={kubeconfig}", ready=False) as seaway:
        await wait_until(lambda: server in seaway.said, within=SOON)
        assert "never-to-be-said" not in seaway.said
        assert await seaway.end() == 0
