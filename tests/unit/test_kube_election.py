"""At no time do two candidates believe that they lead, however slow, deaf or late each of them is."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.kube.election import Election, Terms
from common.kube.lease import unique_identity

TERMS = Terms(duration=15, renew=10, retry=2)


def election(identity: str = "me") -> Election:
    return Election(identity, TERMS)


def lease(holder: str | None, renewed: str = "1", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": holder, "renewTime": renewed, **spec}}


def test_a_lease_that_is_not_there_may_be_claimed_and_made() -> None:
    mine = election()
    mine.see(None, 0)
    assert mine.may_claim(0)
    assert mine.claim("t", 0) == {
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "renewTime": "t",
            "acquireTime": "t",
            "leaseTransitions": 0,
        }
    }


def test_a_lease_that_was_given_back_may_be_claimed_at_once() -> None:
    mine = election()
    mine.see(lease(None, leaseTransitions=4), 0)
    assert mine.may_claim(0)
    assert mine.claim("t", 0)["spec"]["leaseTransitions"] == 5


def test_a_held_lease_may_be_claimed_only_when_it_was_seen_unchanged_for_as_long_as_it_lasts() -> None:
    mine = election()
    mine.see(lease("other", leaseDurationSeconds=20), 100)
    mine.see(lease("other", leaseDurationSeconds=20), 119)
    assert not mine.may_claim(119)
    assert mine.may_claim(120)
    mine.see(lease("other", "2", leaseDurationSeconds=20), 120)
    assert not mine.may_claim(139)


def test_we_lead_from_the_moment_the_claim_was_sent_and_not_as_long_as_the_others_wait() -> None:
    mine = election()
    mine.see(None, 0)
    mine.won(lease("me"), 50)
    assert (mine.leads(59.9), mine.leads(60)) == (True, False)
    assert mine.left(57) == 3


def test_renewing_keeps_the_term_and_what_others_wrote_into_the_lease() -> None:
    mine = election()
    held = lease("me", acquireTime="0", leaseTransitions=3, strategy="OldestEmulationVersion")
    held["metadata"]["labels"] = {"a": "b"}
    mine.won(held, 0)
    renewal = mine.claim("9", 5)
    assert renewal["metadata"] == held["metadata"]
    assert renewal["spec"] == held["spec"] | {"renewTime": "9", "leaseDurationSeconds": 15}


def test_leading_again_is_a_new_term() -> None:
    mine = election()
    mine.won(lease("me", leaseTransitions=3), 0)
    assert mine.claim("t", 11)["spec"]["leaseTransitions"] == 4


def test_a_released_lease_names_nobody_and_keeps_its_term() -> None:
    mine = election()
    mine.won(lease("me", leaseTransitions=3), 0)
    mine.lost()
    assert not mine.leads(0)
    assert mine.release("t")["spec"] == {
        "holderIdentity": None,
        "renewTime": "t",
        "leaseTransitions": 3,
        "leaseDurationSeconds": 1,
    }


@pytest.mark.parametrize("terms", [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
def test_terms_that_cannot_be_kept_are_refused(terms: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match=r"duration must be above renew"):
        Terms(*terms)


@dataclass
class Server:
    """One lease under compare-and-set."""

    lease: dict[str, Any] | None = None
    version: int = 0

    def put(self, new: dict[str, Any]) -> dict[str, Any] | None:
        expected = new.get("metadata", {}).get("resourceVersion")
        held = None if self.lease is None else self.lease["metadata"]["resourceVersion"]
        if expected != held:
            return None
        self.version += 1
        self.lease = {**new, "metadata": {"resourceVersion": str(self.version)}}
        return self.lease


class Actor:
    """A candidate whose requests and answers may be late or lost. Its clock is off by `offset`."""

    def __init__(self, name: str, offset: float, server: Server) -> None:
        self.election = Election(name, TERMS)
        self.offset = offset
        self.server = server
        self.sent: tuple[dict[str, Any], float] | None = None
        self.answer: tuple[dict[str, Any] | None, float] | None = None

    def leads(self, now: float) -> bool:
        return self.election.leads(now + self.offset)

    def act(self, what: str, now: float) -> None:
        mine = now + self.offset
        match what:
            case "read":
                self.election.see(self.server.lease, mine)
            case "send" if self.election.leads(mine) or self.election.may_claim(mine):
                self.sent = (dict(self.election.claim(f"{self.election.holder}{mine}", mine)), mine)
            case "arrive" if self.sent is not None:
                self.answer = (self.server.put(self.sent[0]), self.sent[1])
                self.sent = None
            case "answer" if self.answer is not None:
                won, sent = self.answer
                self.answer = None
                if won is not None:
                    self.election.won(won, sent)
            case "release" if self.leads(now):
                self.election.lost()
                self.server.put(dict(self.election.release("released")))


STEPS = ("read", "send", "arrive", "answer")
WHATS = st.sampled_from([STEPS, STEPS[1:], STEPS[:2], STEPS[:3], STEPS[2:], *((step,) for step in STEPS), ("release",)])
ACTS = st.tuples(st.integers(0, 1), WHATS, st.sampled_from([0.0, 1.0, 2.0, 5.0, 6.0, 9.0, 11.0, 14.0, 16.0]))
Act: TypeAlias = tuple[int, tuple[str, ...], float]


@settings(max_examples=1000)
@given(acts=st.lists(ACTS, max_size=30), offsets=st.tuples(*[st.integers(0, 1_000_000)] * 2))
def test_two_never_lead_at_the_same_time(acts: list[Act], offsets: tuple[int, ...]) -> None:
    server = Server()
    actors = [Actor(f"candidate-{number}", offset, server) for number, offset in enumerate(offsets)]
    now = 0.0
    for who, whats, later in acts:
        for what in whats:
            actors[who].act(what, now)
            assert sum(actor.leads(now) for actor in actors) <= 1
        now += later


@given(acts=st.lists(ACTS, max_size=30))
def test_when_the_other_is_gone_the_last_one_leads(acts: list[Act]) -> None:
    server = Server()
    actors = [Actor(f"candidate-{number}", 0, server) for number in range(2)]
    now = 0.0
    for who, whats, later in acts:
        for what in whats:
            actors[who].act(what, now)
        now += later
    for _ in range(12):
        for what in STEPS:
            actors[0].act(what, now)
        now += TERMS.retry
    assert actors[0].leads(now)


def test_no_two_candidates_have_the_same_name() -> None:
    assert unique_identity() != unique_identity()
