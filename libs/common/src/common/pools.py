"""Pools: the addresses that Services may be given, as the operator's ConfigMap has them.

    pools.yaml: |
      pools:
        - name: public
          addresses: [192.0.2.0/28, 192.0.2.32-192.0.2.40, "2001:db8::/64"]
          namespaces: [shop]

The ConfigMap is taken as one whole: it is in force if every entry is good and no two ranges overlap, else each fault is told with its mend,
and what was in force stays so. Several services read it: one gives addresses out of it, another checks what it is asked to hold.
"""

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from common.contracts.ip import Address, read_address, read_network
from common.contracts.objects import ConfigMap
from common.contracts.problems import Problem

KEY: Final = "pools.yaml"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,7})([smhd]?)", re.ASCII)
_SHOWN: Final = 80  # characters of a bad value


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Addresses of one family (4 or 6) from `first` to `last`, both included, as numbers."""

    family: int
    first: int
    last: int

    def __len__(self) -> int:
        return min(self.last - self.first + 1, 2**63 - 1)

    def __str__(self) -> str:
        first, last = address_of(self.family, self.first), address_of(self.family, self.last)
        return str(first) if first == last else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector (meta/v1 LabelSelector). `expressions` are key, operator and values."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` satisfy all of it."""
        return all(labels.get(key) == value for key, value in self.labels) and all(
            _satisfies(labels, key, operator, values) for key, operator, values in self.expressions
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool. Of several that permit a Service the one of the least `priority` is asked first.

    `quarantine` is how many seconds an address that was released waits for the Service that had it. `sharing` says who may share one
    address: Services of one namespace, or any of the cluster.
    """

    name: str
    ranges: tuple[Range, ...]
    priority: int = 100
    auto_assign: bool = True
    avoid_buggy: bool = False
    namespaces: frozenset[str] = frozenset()
    namespace_selectors: tuple[Selector, ...] = ()
    service_selectors: tuple[Selector, ...] = ()
    quarantine: float = 300.0
    sharing: Literal["namespace", "cluster"] = "namespace"

    def permits(self, namespace: str, namespace_labels: Mapping[str, str], service_labels: Mapping[str, str]) -> bool:
        """Whether a Service of these labels may have an address of this pool."""
        everywhere = not self.namespaces and not self.namespace_selectors
        there = namespace in self.namespaces or any(one.matches(namespace_labels) for one in self.namespace_selectors)
        meant = not self.service_selectors or any(one.matches(service_labels) for one in self.service_selectors)
        return (everywhere or there) and meant

    def avoids(self, address: Address) -> bool:
        """Whether `address` is given to nobody who does not name it: some devices drop what is for .0 and .255, and routers answer to the
        first address of an IPv6 network themselves (RFC 4291 §2.6.1).
        """
        if address.version == 6:
            return int(address) & (2**64 - 1) == 0
        return self.avoid_buggy and int(address) & 0xFF in {0, 0xFF}


@dataclass(frozen=True)
class Pools:
    """All pools, sorted by priority and name. Their ranges do not overlap."""

    pools: tuple[Pool, ...] = ()

    def of(self, address: Address) -> Pool | None:
        """The pool that holds `address`."""
        place = bisect_right(self._starts, (address.version, int(address))) - 1
        if place < 0:
            return None
        found, pool = self._ranges[place]
        return pool if found.family == address.version and int(address) <= found.last else None

    def named(self, name: str) -> Pool | None:
        """The pool of that name."""
        return next((pool for pool in self.pools if pool.name == name), None)

    @cached_property
    def _ranges(self) -> list[tuple[Range, Pool]]:
        return sorted(((one, pool) for pool in self.pools for one in pool.ranges), key=lambda pair: pair[0])

    @cached_property
    def _starts(self) -> list[tuple[int, int]]:
        return [(one.family, one.first) for one, _ in self._ranges]


@dataclass(frozen=True, slots=True)
class Read:
    """What a ConfigMap says: pools, or what is wrong with it."""

    pools: Pools | None
    problems: tuple[Problem, ...] = field(default=())


def address_of(family: int, number: int) -> Address:
    """The address of a family and number."""
    return ipaddress.IPv4Address(number) if family == 4 else ipaddress.IPv6Address(number)


def read_pools(found: ConfigMap) -> Read:
    """The pools of a ConfigMap. None if any of it is wrong: then every fault is told."""
    faults = [f"key {key[:_SHOWN]!r} is not known; write the pools under {KEY!r}" for key in sorted(found.data) if key != KEY]
    pools: tuple[Pool, ...] = ()
    if KEY not in found.data:
        faults.append(f"it has no key {KEY!r}; write the pools there")
    else:
        try:
            pools = _parse(found.data[KEY])
        except ValidationError as error:
            faults += [f"key {KEY!r}: {_complaint(one)}" for one in error.errors(include_url=False)]
        except yaml.YAMLError as error:
            faults.append(f"key {KEY!r} is no YAML: {' '.join(str(error).split())[:300]}")
        faults += [f"key {KEY!r}: {fault}" for fault in _clashes(pools)]
    if faults:
        return Read(None, tuple(Problem(found.ref, "BadPools", fault) for fault in faults))
    return Read(Pools(tuple(sorted(pools, key=lambda pool: (pool.priority, pool.name)))))


def _parse(text: str) -> tuple[Pool, ...]:
    # Every scalar is read as a text: YAML would take 1:2:3:4:5:6:7:8 for a number of base 60.
    return tuple(_pool(spec) for spec in _Document.model_validate(yaml.load(text, Loader=yaml.CBaseLoader)).pools)  # noqa: S506 no types


def _clashes(pools: tuple[Pool, ...]) -> Iterator[str]:
    """Names that are given twice, and ranges that overlap."""
    names = [pool.name for pool in pools]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"pool {name!r} is there twice; give each pool its own name"
    ranges = sorted(((one, pool.name) for pool in pools for one in pool.ranges), key=lambda pair: pair[0])
    if not ranges:
        return
    one, of = ranges[0]  # the one that reaches furthest of those before
    for other, also in ranges[1:]:
        if one.family == other.family and other.first <= one.last:
            where = f"both of pool {of!r}" if of == also else f"of pools {of!r} and {also!r}"
            yield f"the addresses {one} and {other}, {where}, overlap; an address has one pool"
        if (other.family, other.last) > (one.family, one.last):
            one, of = other, also


def _satisfies(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _range(text: str) -> Range:
    """A network, a range `first-last`, or one address."""
    first, dash, last = text.partition("-")
    try:
        if dash:
            ends = read_address(first.strip()), read_address(last.strip())
        elif "/" in text:
            network = read_network(text)
            if str(network.network_address) != str(read_address(text.partition("/")[0])):
                raise _Mend(f"this is an address within a network; write {network}")
            ends = network[0], network[-1]
        else:
            ends = read_address(text), read_address(text)
    except _Mend:
        raise
    except ValueError:
        raise _Mend("this is no address; write a network 192.0.2.0/28, a range 192.0.2.1-192.0.2.9 or one address") from None
    low, high = ends
    if low.version != high.version or int(low) > int(high):
        raise _Mend("the first address of a range must not be above the last, and both be of one family")
    for end in ends:
        if end.is_multicast or end.is_loopback or end.is_unspecified or end.is_link_local:
            raise _Mend(f"{end} cannot be a Service's: it is unspecified, loopback, link-local or multicast; name others")
    return Range(low.version, int(low), int(high))


class _Mend(ValueError):
    """What to write instead."""


def _duration(value: Any) -> Any:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("write a duration such as 90s, 5m, 2h or 1d")
    return float(int(found[1]) * _UNITS[found[2] or "s"])


def _listed_ranges(texts: list[str]) -> list[str]:
    faults = []
    for text in texts:
        try:
            _range(text)
        except _Mend as mend:
            faults.append(f"{text[:_SHOWN]!r}: {mend}")
    if faults:
        raise ValueError("; ".join(faults))
    return texts


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class _Expression(_Part):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class _Selector(_Part):
    match_labels: dict[str, str] = {}
    match_expressions: list[_Expression] = []

    def selector(self) -> Selector:
        """As a value."""
        expressions = ((one.key, one.operator, tuple(one.values)) for one in self.match_expressions)
        return Selector(tuple(sorted(self.match_labels.items())), tuple(expressions))


_Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class _Pool(_Part):
    name: _Name
    addresses: Annotated[list[str], Field(min_length=1, max_length=1024), AfterValidator(_listed_ranges)]
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    auto_assign: bool = True
    avoid_buggy_ips: Annotated[bool, Field(alias="avoidBuggyIPs")] = False
    namespaces: Annotated[list[_Name], Field(max_length=1024)] = []
    namespace_selectors: Annotated[list[_Selector], Field(max_length=64)] = []
    service_selectors: Annotated[list[_Selector], Field(max_length=64)] = []
    quarantine: Annotated[float, BeforeValidator(_duration)] = 300.0
    sharing: Literal["namespace", "cluster"] = "namespace"


class _Document(_Part):
    pools: Annotated[list[_Pool], Field(max_length=256)]


def _pool(spec: _Pool) -> Pool:
    return Pool(
        name=spec.name,
        ranges=tuple(sorted(_range(text) for text in spec.addresses)),
        priority=spec.priority,
        auto_assign=spec.auto_assign,
        avoid_buggy=spec.avoid_buggy_ips,
        namespaces=frozenset(spec.namespaces),
        namespace_selectors=tuple(one.selector() for one in spec.namespace_selectors),
        service_selectors=tuple(one.selector() for one in spec.service_selectors),
        quarantine=spec.quarantine,
        sharing=spec.sharing,
    )


def _complaint(error: Any) -> str:
    """Where, what is there, and what is wrong with it."""
    where = (
        "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".") or "the document"
    )
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "this is not known; mend its name or take it out"
    given = "" if error["type"] in {"missing", "value_error"} else f" is {str(error['input'])[:_SHOWN]!r}"
    return f"{where}{given}: {message[:1].lower()}{message[1:]}"
