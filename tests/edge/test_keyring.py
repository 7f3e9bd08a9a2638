"""The keyring reads the Secrets that are needed, once for each version, and watches the calendar."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.contracts.facts import Alert
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.authority import Authority, Issued
from common.testing.objects import tls_secret
from nginx_config_renderer import keyring as module
from nginx_config_renderer.derive.certificates import Need
from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.keyring import Keyring
from nginx_config_renderer.model import PairKey
from nginx_config_renderer.secrets import FolderSecrets
from tests.e2e.up_world import write

AUTHORITY = Authority()
CERT = PairKey("default", "cert")
DAY = dt.timedelta(days=1)


class Wishes:
    """What is needed, and what was learned of it."""

    def __init__(self) -> None:
        self.needed = asyncio.Event()
        self.needs: Mapping[PairKey, Need] = {}
        self.complete = True
        self.learned: dict[PairKey, KeyPair] = {}
        self.count = 0

    def want(self, **versions: str) -> None:
        """These Secrets are needed, in these versions."""
        self.needs = {PairKey("default", name): Need(version) for name, version in versions.items()}
        self.needed.set()

    def learn(self, pair: KeyPair) -> None:
        self.learned[PairKey(pair.metadata.namespace, pair.metadata.name)] = pair
        self.count += 1

    def forget(self, key: PairKey) -> None:
        del self.learned[key]


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


@asynccontextmanager
async def running(folder: Path, clock: Clock, *before: Alert) -> AsyncIterator[tuple[Wishes, Reports]]:
    """A keyring, after a process that left those alerts firing."""
    wishes = Wishes()
    reports = Reports(FactPublisher(MemoryBus(MemoryBroker())), service="test", cluster="local", instance="i")
    reports._alarms.remember(before)
    task = asyncio.create_task(Keyring(FolderSecrets(folder), wishes, reports, clock).run())
    try:
        yield wishes, reports
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def store(folder: Path, issued: Issued) -> None:
    write(folder / "cert.yaml", [tls_secret("cert", issued)])


async def test_a_secret_is_read_when_it_is_needed_and_again_when_it_changes(tmp_path: Path) -> None:
    async with running(tmp_path, Clock()) as (wishes, _):
        store(tmp_path, AUTHORITY.issue("one.example"))
        wishes.want(cert="1")
        await wait_until(lambda: CERT in wishes.learned)
        assert wishes.learned[CERT].names == ("one.example",)
        wishes.want(cert="1", missing="")
        await wait_until(lambda: len(wishes.learned) == 2)
        assert wishes.count == 2, "what did not change is not read again"
        assert wishes.learned[PairKey("default", "missing")].problem.startswith("does not exist")
        store(tmp_path, AUTHORITY.issue("two.example"))
        wishes.want(cert="2")
        await wait_until(lambda: wishes.learned[CERT].names == ("two.example",))
        assert set(wishes.learned) == {CERT}


async def test_a_secret_that_cannot_be_read_now_is_read_later_and_holds_no_other_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0)
    async with running(tmp_path, Clock()) as (wishes, reports):
        store(tmp_path, AUTHORITY.issue("one.example"))
        (tmp_path / "broken.yaml").write_text("{")
        wishes.want(cert="1", other="1")
        await wait_until(lambda: CERT in wishes.learned)
        await wait_until(lambda: "SecretUnread" in reports.firing)
        assert reports.firing["SecretUnread"].summary == "Secret default/other may stand in broken.yaml, which cannot be read"
        write(tmp_path / "broken.yaml", [tls_secret("other", AUTHORITY.issue("other.example"))])
        await wait_until(lambda: len(wishes.learned) == 2)
        await wait_until(lambda: "SecretUnread" not in reports.firing)


@pytest.mark.parametrize(
    ("left", "told", "severity"),
    [
        (30, "", ""),
        (20.5, "in less than 21 days", "warning"),
        (6.5, "in less than 7 days", "critical"),
        (0.5, "in less than a day", "critical"),
    ],
)
async def test_the_end_of_a_certificate_is_told_in_time(tmp_path: Path, left: float, told: str, severity: str) -> None:
    clock = Clock()
    store(tmp_path, AUTHORITY.issue("one.example", days=30))
    clock.now += (30 - left) * DAY
    async with running(tmp_path, clock) as (wishes, reports):
        wishes.want(cert="1")
        await wait_until(lambda: CERT in wishes.learned)
        await wait_until(lambda: bool(told) == ("CertificateExpiry-default-cert" in reports.firing))
        if told:
            alert = reports.firing["CertificateExpiry-default-cert"]
            assert told in alert.summary
            assert alert.severity == severity
            wishes.want()
            await wait_until(lambda: not reports.firing)


async def test_the_alert_of_a_former_process_goes_on_until_its_secret_was_read(tmp_path: Path) -> None:
    store(tmp_path, AUTHORITY.issue("one.example", days=10))
    async with running(tmp_path, Clock()) as (wishes, reports):
        wishes.want(cert="1")
        await wait_until(lambda: "CertificateExpiry-default-cert" in reports.firing)
        said = reports.firing["CertificateExpiry-default-cert"]
    async with running(tmp_path, Clock(), said) as (wishes, reports):
        wishes.complete = False
        wishes.want()
        await wait_until(lambda: not wishes.needed.is_set())
        (tmp_path / "cert.yaml").rename(tmp_path / "cert.away")
        (tmp_path / "cert.yaml").write_text("{")
        wishes.complete = True
        wishes.want(cert="1")
        await wait_until(lambda: not wishes.needed.is_set())
        assert reports.firing == {said.name: said}, "nobody knows yet"
        store(tmp_path, AUTHORITY.issue("one.example", days=90))
        await wait_until(lambda: not reports.firing)


async def test_an_expired_certificate_is_taken_away_by_the_clock_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.02)
    clock = Clock()
    store(tmp_path, AUTHORITY.issue("one.example", days=1))
    async with running(tmp_path, clock) as (wishes, _):
        wishes.want(cert="1")
        await wait_until(lambda: CERT in wishes.learned)
        assert wishes.learned[CERT].problem == ""
        clock.now += 2 * DAY
        await wait_until(lambda: wishes.learned[CERT].problem.startswith("tls.crt expired on"))
        assert wishes.learned[CERT].key == ""


async def test_a_clock_that_was_ahead_has_taken_nothing_away_once_it_is_right_although_no_secret_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.02)
    clock = Clock()
    store(tmp_path, AUTHORITY.issue("one.example", days=30))
    clock.now += 100 * DAY
    async with running(tmp_path, clock) as (wishes, _):
        wishes.want(cert="1")
        await wait_until(lambda: CERT in wishes.learned)
        assert wishes.learned[CERT].problem.startswith("tls.crt expired on")
        (tmp_path / "cert.yaml").write_text("{")
        clock.now -= 100 * DAY
        await wait_until(lambda: wishes.learned[CERT].key != "")
        clock.now += 200 * DAY
        await wait_until(lambda: wishes.learned[CERT].key == "")
        clock.now -= 200 * DAY
        await wait_until(lambda: wishes.learned[CERT].key != "")


async def test_a_clock_that_is_behind_takes_no_certificate_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.02)
    clock = Clock()
    store(tmp_path, AUTHORITY.issue("one.example"))
    clock.now -= 2000 * DAY
    async with running(tmp_path, clock) as (wishes, _):
        wishes.want(cert="1")
        await wait_until(lambda: CERT in wishes.learned)
        assert wishes.learned[CERT].key
        assert wishes.learned[CERT].early.startswith("tls.crt is not valid before")
        clock.now += 2000 * DAY
        await wait_until(lambda: wishes.learned[CERT].early == "")
        assert wishes.learned[CERT].key
