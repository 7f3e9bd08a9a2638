"""What the servers of the bus are told. That they obey is seen in tests/integration/test_nats_permissions.py."""

from pathlib import Path

import pytest

from common.bus import streams
from common.contracts.refs import ObjectRef, Resource
from common.contracts.subjects import (
    alert_subject,
    ask_subject,
    event_subject,
    firing_subject,
    state_subject,
    sync_subject,
    wanted_subject,
)
from seaway import bus_keys
from seaway.nats_conf import BALANCER, OPERATOR, RENDERER, VIP, WATCHER, Cluster, Server, Tls, User, permissions, render, roles

PODS = Resource("", "pods")
KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def may_publish(role: str, subject: str, cluster: str = "") -> bool:
    return any(matches(pattern, subject) for pattern in permissions(roles(cluster)[role]).publish)


def matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1] if len(given) >= len(wanted) else []
    return len(wanted) == len(given) and all(token in {"*", other} for token, other in zip(wanted, given, strict=True))


@pytest.mark.parametrize(
    "subject",
    [
        state_subject("prod", ObjectRef(PODS, "shop", "web.1")),
        state_subject("prod", ObjectRef(PODS, "", "a")),
        sync_subject("prod", PODS),
    ],
)
def test_only_the_watcher_writes_state(subject: str) -> None:
    assert [role for role in roles() if may_publish(role, subject)] == [WATCHER]


@pytest.mark.parametrize("service", [WATCHER, RENDERER, BALANCER, VIP])
def test_what_fires_is_kept_and_known_again_by_its_own_service_alone(service: str) -> None:
    subject = firing_subject("prod", service, "node-1")
    assert [role for role in roles() if may_publish(role, subject)] == [service]
    assert [role for role in roles() if may_publish(role, f"$JS.API.DIRECT.GET.FIRING.{subject}")] == [service]


def test_a_service_wishes_in_its_own_name_only() -> None:
    subject = wanted_subject("prod", BALANCER, "addresses")
    assert [role for role in roles() if may_publish(role, subject)] == [BALANCER]


@pytest.mark.parametrize("service", [WATCHER, RENDERER, BALANCER])
def test_a_service_reports_in_its_own_name_alone(service: str) -> None:
    for subject in (event_subject("prod", service, "applied"), alert_subject("prod", "critical", service, "bus-full")):
        assert [role for role in roles() if may_publish(role, subject)] == [service]


def test_a_role_can_be_bound_to_one_cluster() -> None:
    assert may_publish(WATCHER, sync_subject("prod.eu", PODS), cluster="prod.eu")
    assert not may_publish(WATCHER, sync_subject("test", PODS), cluster="prod.eu")


def test_nobody_may_remove_a_stream_or_what_is_in_it() -> None:
    for role in roles():
        for stream in streams.ALL:
            for verb in ("STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT", "STREAM.RESTORE"):
                assert not may_publish(role, f"$JS.API.{verb}.{stream.name}")


def test_the_operator_looks_and_asks_and_changes_nothing() -> None:
    assert {one for one in permissions(roles()[OPERATOR]).publish if not one.startswith("$JS.API.")} == {"ask.v1.*.>"}
    assert not may_publish(OPERATOR, "$JS.API.STREAM.UPDATE.STATE")
    assert not may_publish(OPERATOR, "$JS.API.CONSUMER.CREATE.JOBS.x.jobs.v1.>")


def test_everybody_hears_only_the_answers_to_his_own_questions() -> None:
    heard = {role.name: set(permissions(role).subscribe) - set(role.answers) for role in roles().values()}
    assert heard == {role: {f"_INBOX_{role}.>"} for role in roles()}


def test_who_is_asked_answers_the_operator_and_nobody_else() -> None:
    asked = ask_subject("prod", RENDERER, "explain")
    assert [role for role in roles() if may_publish(role, asked)] == [OPERATOR]
    assert [role.name for role in roles().values() if any(matches(one, asked) for one in permissions(role).subscribe)] == [RENDERER]
    assert [role for role in roles() if may_publish(role, "_INBOX_seaway.x.1")] == [RENDERER]


def test_the_same_users_make_the_same_text_in_any_order() -> None:
    server, users = Server("n1", "/data"), [User(WATCHER, KEY), User(RENDERER, "$RENDERER_KEY")]
    assert render(server, users) == render(server, users[::-1])
    assert "nkey: $RENDERER_KEY\n" in render(server, users)


@pytest.mark.parametrize("key", ["", "SUAM", KEY + "\n}", KEY.lower(), "$key", f'{KEY} }} }} http: "0.0.0.0:80"'])
def test_what_is_no_key_does_not_get_into_the_configuration(key: str) -> None:
    with pytest.raises(ValueError, match="is not the public key"):
        render(Server("n1", "/data"), [User(WATCHER, key)])


def test_a_path_cannot_end_its_quotes() -> None:
    assert r'store_dir: "/a\"\n}"' in render(Server("n1", '/a"\n}'), [])


def test_servers_prove_themselves_to_each_other_and_clients_start_with_tls() -> None:
    text = render(
        Server("$POD_NAME", "/data", tls=Tls("/t/tls.crt", "/t/tls.key", "/t/ca.crt"), cluster=Cluster("seaway", ("a", "b"))), []
    )
    assert "handshake_first: true" in text
    assert 'ca_file: "/t/ca.crt", verify: true' in text
    assert 'routes: ["nats://a:6222", "nats://b:6222"]' in text
    assert "server_name: $POD_NAME\n" in text


def test_all_streams_fit_the_store_of_a_server() -> None:
    assert Server("n1", "/data").max_file == "8GB"
    assert sum(stream.max_bytes for stream in streams.ALL) <= 8 * 1000**3


def test_a_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    users = bus_keys.ensure(tmp_path / "keys", roles())
    assert bus_keys.ensure(tmp_path / "keys", roles()) == users
    assert len({user.nkey for user in users}) == len(users) == len(roles())
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    for user in users:
        assert (tmp_path / "keys" / f"{user.role}.nkey").read_text() not in render(Server("n1", "/data"), users)
