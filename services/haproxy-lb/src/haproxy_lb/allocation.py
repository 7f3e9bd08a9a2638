"""Allocation: which Service has which address, as a function of what Services ask for, the pools, and who had which address before.

    allocate(claims, pools, reservations, now) -> assignments, reservations, problems

It promises that

- no port of an address has two owners, and only Services that agree to share an address have it together;
- nobody loses an address, or a port of one, because of what another asks for;
- an address moves only when its Service asks for something else, or when no pool holds it any more;
- an address that was released is kept for its Service during the quarantine of its pool, so a Service that is made again gets it back;
- the same input gives the same output, in whatever order it comes.

A *reservation* says who has an address, or had it and since when not any more. It outlives the Service, and a status that was lost. Those
who have an address come first, then those whose address waits for them, then those who name one, then everybody else, the older Service
first.

Services may share an address if they have the same key, no port in common, and are of one namespace, unless the pool permits more. If one
of them adds a port that another has, that port alone is refused to it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from common.contracts.ip import Address
from common.contracts.problems import Problem
from common.pools import Pool, Pools
from haproxy_lb.book import Book, Granted, Reservation, listed
from haproxy_lb.claims import Claim, ServiceName


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who has what. `again` is when the same input gives another result, in seconds since 1970."""

    assignments: Mapping[ServiceName, tuple[Granted, ...]] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    problems: tuple[Problem, ...] = ()
    again: int | None = None


def allocate(
    claims: Iterable[Claim],
    pools: Pools | None,
    reservations: Iterable[Reservation],
    now: int,
    taken: Collection[Address] = (),
) -> Allocation:
    """See the module. Without `pools`, which is when none are known, everybody keeps what he has. `taken` are addresses of others, such as
    nodes, which are given to nobody. `now` is in seconds since 1970.
    """
    book = Book(pools, sorted(reservations, key=lambda one: one.order), now, frozenset(taken))
    seniors = sorted(claims, key=lambda claim: claim.seniority)
    problems: list[Problem] = []
    book.keep(seniors)
    for claim in seniors:
        _return(book, claim)
    problems += _heed_all(book, seniors)
    for claim in seniors:
        problems += _complete(book, claim)
    assignments = {claim.service: book.granted(claim) for claim in seniors}
    problems += (problem for claim in seniors for problem in _refusals(claim, assignments[claim.service]))
    kept = tuple(book.reservations(seniors))
    ends = [book.until(one) for one in kept if one.released and pools is not None]
    return Allocation(assignments, kept, tuple(sorted(set(problems))), min(ends, default=None))


def _heed_all(book: Book, seniors: list[Claim]) -> list[Problem]:
    """Gives Services what they name. One may have to wait for another with which it shares, so they are asked until nothing changes."""
    asking = [claim for claim in seniors if claim.requested]
    while book.pools is not None:
        given = book.given
        problems = [problem for claim in asking for problem in _heed(book, claim)]
        if book.given == given:
            return problems
    return []


def _heed(book: Book, claim: Claim) -> Iterator[Problem]:
    """Gives `claim` the addresses that it names, and leaves it what it has where that cannot be."""
    for address in claim.requested:
        if book.has(claim, address.version) == address:
            continue
        pool = book.pool_of(address)
        if pool is None:
            yield Problem(claim.service.ref, "AddressNotInPools", f"{address} is asked for, and no pool has it; add it to one")
        elif claim.pool and claim.pool != pool.name:
            yield Problem(
                claim.service.ref, "AddressNotInPools", f"{address} is asked for, of pool {claim.pool}; it is of {pool.name}"
            )
        elif not _permits(pool, claim):
            yield _forbidden(claim, pool, f"{address} is asked for, and")
        elif (obstacle := book.obstacle(claim, address)) is not None:
            yield Problem(claim.service.ref, obstacle[0], obstacle[1])
        else:
            book.give(claim, address)


def _return(book: Book, claim: Claim) -> None:
    """Gives `claim` back what it had, if that waits for it."""
    for address in book.waiting(claim):
        pool = book.pool_of(address)
        if (
            book.lacks(claim, address.version)
            and claim.request(address.version) is None
            and pool is not None
            and claim.pool in {"", pool.name}
            and _permits(pool, claim)
            and book.obstacle(claim, address) is None
        ):
            book.give(claim, address)


def _complete(book: Book, claim: Claim) -> Iterator[Problem]:
    """Gives `claim` what it lacks, of the pools that permit it; all of it or nothing, if one without the other is of no use."""
    found: list[Address] = []
    failed = False
    for family in claim.families:
        if claim.request(family) is not None or not (book.lacks(claim, family) or _strays(book, claim, family)):
            failed |= book.lacks(claim, family)
            continue
        address, problem = _search(book, claim, family)
        if address is not None:
            found.append(address)
        elif problem is not None:
            failed |= book.lacks(claim, family)
            yield problem
    if failed and claim.all_or_none:
        found = [address for address in found if not book.lacks(claim, address.version)]
    for address in found:
        book.give(claim, address)


def _strays(book: Book, claim: Claim, family: int) -> bool:
    """Whether `claim` has an address of another pool than it asks for."""
    address = book.has(claim, family)
    pool = book.pool_of(address) if address is not None else None
    return bool(claim.pool) and pool is not None and pool.name != claim.pool


def _search(book: Book, claim: Claim, family: int) -> tuple[Address | None, Problem | None]:
    """A new address of `family`, or why there is none; neither, if it is no loss."""
    usable = [pool for pool in book.pools.pools if _usable(pool, claim, family)] if book.pools is not None else []
    address = _choose(book, claim, family, usable)
    if address is not None:
        return address, None
    if not usable and book.pools is not None and family != claim.families[0] and not claim.all_or_none and not claim.pool:
        return None, None  # a second family is welcome, and not a must
    return None, Problem(claim.service.ref, *_shortage(book.pools, claim, f"IPv{family}", usable))


def _choose(book: Book, claim: Claim, family: int, usable: list[Pool]) -> Address | None:
    """One that can be shared, else the first free one."""
    for address in book.shared(claim):
        if address.version == family and book.pool_of(address) in usable and book.obstacle(claim, address) is None:
            return address
    return next((found for pool in usable if (found := book.free(pool, family)) is not None), None)


def _shortage(pools: Pools | None, claim: Claim, what: str, usable: list[Pool]) -> tuple[str, str]:
    """Why there is no address, as reason and sentence."""
    if pools is None:
        return "NoPools", f"no pools of addresses are in force, so it gets no {what} address; mend the ConfigMap of the pools"
    if usable:
        names = listed(pool.name for pool in usable)
        return "PoolExhausted", f"no {what} address is left in {names}; add addresses there, or delete Services that need none"
    if not claim.pool:
        text = f"no pool gives {what} addresses to it; add some to a pool that permits namespace {claim.service.namespace}"
        return "NoPool", text
    if pools.named(claim.pool) is None:
        return "NoPool", f"pool {claim.pool!r} does not exist; there are {listed(pool.name for pool in pools.pools)}"
    return (
        "NoPool",
        f"pool {claim.pool} has no {what} addresses for it; add some, or permit namespace {claim.service.namespace} there",
    )


def _usable(pool: Pool, claim: Claim, family: int) -> bool:
    named = claim.pool == pool.name if claim.pool else pool.auto_assign
    return named and any(one.family == family for one in pool.ranges) and _permits(pool, claim)


def _permits(pool: Pool, claim: Claim) -> bool:
    return pool.permits(claim.service.namespace, dict(claim.namespace_labels), dict(claim.labels))


def _forbidden(claim: Claim, pool: Pool, why: str) -> Problem:
    text = f"{why} pool {pool.name} does not permit it; change the pool's selectors, or ask for an address of another pool"
    return Problem(claim.service.ref, "PoolForbids", text)


def _refusals(claim: Claim, assignment: tuple[Granted, ...]) -> Iterator[Problem]:
    for granted in assignment:
        for port, owner in granted.refused:
            text = f"port {port} of {granted.address} belongs to {owner}; take another port, or another sharing key"
            yield Problem(claim.service.ref, "AddressConflict", text)
