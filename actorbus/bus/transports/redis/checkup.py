"""Whether Redis servers are set up so that they keep what they promised, and what to change.

A *refused* finding means that messages would be lost or mixed up there: a node does not start.
A *warning* says which promise is weaker. Everything is read with ``INFO``, which managed services
allow too; nothing is changed.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transports.redis.deployment import check_in
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import OLDEST, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actorbus.redis_client import RedisServer
    from actorbus.redis_client.clients import Member

_PINGS: Final = 20
_SLOW: Final = 0.010
_ENOUGH_SENTINELS: Final = 3
_OF_WHAT_IS_KEPT: Final = frozenset({"memory limit", "persistence", "replicas"})


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``change`` says what to do; empty where all is well.

    ``server`` is empty for the only one there is, and for what is all servers' together.
    """

    what: str
    verdict: Verdict
    found: str
    change: str = ""
    server: str = ""


def examine(server: RedisServer, *, durable: bool = True) -> list[Finding]:
    """Look at everything that matters to the bus, at each of the servers behind the URL.

    Args:
        durable: whether the bus keeps anything there, which plain pub/sub does not.

    Raises:
        TransportUnavailable: nothing can be reached that would know the others.
    """
    found = _survey(server, pings=_PINGS)
    return [one for one in found if durable or one.what not in _OF_WHAT_IS_KEPT]


def judge(told: Mapping[str, Any], role: str = "master") -> list[Finding]:
    """What a server says of itself, judged; `role` is what it should be."""
    return [
        _version(told),
        _role(told, role),
        _eviction(told),
        _persistence(told),
        *([_replicas(told)] if role == "master" else []),
    ]


def _survey(server: RedisServer, *, pings: int = 0) -> list[Finding]:
    with server.members() as members:
        found = [one for member in members for one in _look(server, member, pings)]
        return found + _together(server, members)


def _look(server: RedisServer, member: Member, pings: int) -> list[Finding]:
    """One server. Where there are others, one that is away is a finding and no failure."""
    place = "" if member.role == "server" else f"{member.role} {member.place}"
    try:
        with server.errors():
            found = _version_of(member) if member.role == "sentinel" else _judged(member)
            if pings:
                found.append(_latency([_ping(member.client) for _ in range(pings)]))
    except TransportUnavailable as error:
        if member.role == "server":
            raise
        found = [_away(member.role, str(error))]
    return [replace(one, server=place) for one in found]


def _judged(member: Member) -> list[Finding]:
    from redis.exceptions import ResponseError

    try:
        told = member.client.info()
    except ResponseError as error:
        advice = "let its user call INFO: else nobody sees whether it may drop messages"
        return [Finding("settings", Verdict.WARNING, str(error), advice)]
    return judge(told, "slave" if member.role == "replica" else "master")


def _version_of(member: Member) -> list[Finding]:
    return [_version(member.client.info("server"))]


def _away(role: str, why: str) -> Finding:
    if role == "primary":
        return Finding("reachable", Verdict.REFUSED, why, "start it, or let a replica take over")
    return Finding("reachable", Verdict.WARNING, why, "start it again")


def _together(server: RedisServer, members: Sequence[Member]) -> list[Finding]:
    """What only all of them are good or bad at."""
    roles = Counter(member.role for member in members)
    found = []
    if server.kind is Kind.CLUSTER:
        found.append(_slots(server))
    if server.kind is Kind.SENTINEL:
        found.append(_watchers(roles["sentinel"]))
    if server.kind is not Kind.SINGLE:
        found.append(_spares(roles["primary"], roles["replica"]))
    return found


def _slots(server: RedisServer) -> Finding:
    with server.errors():
        client: Any = server.client
        told = client.cluster_info()
    state = str(told.get("cluster_state", "unknown"))
    found = f"{state}, {told.get('cluster_slots_ok', '?')} of 16384 slots served"
    if state != "ok":
        return Finding("cluster", Verdict.REFUSED, found, "see CLUSTER NODES for who is away")
    return Finding("cluster", Verdict.OK, found)


def _watchers(count: int) -> Finding:
    if count < _ENOUGH_SENTINELS:
        advice = (
            "name at least three sentinels in the URL: fewer cannot outvote one that is cut off"
        )
        return Finding("sentinels", Verdict.WARNING, str(count), advice)
    return Finding("sentinels", Verdict.OK, str(count))


def _spares(primaries: int, replicas: int) -> Finding:
    found = f"{replicas} for {primaries}"
    if replicas < primaries:
        advice = "give every primary a replica: what waits there is out of reach while it is away"
        return Finding("spares", Verdict.WARNING, found, advice)
    return Finding("spares", Verdict.OK, found)


def check(server: RedisServer, *, namespace: str, partitions: int | None = None) -> int:
    """Refuse servers on which messages would be lost, or a deployment of another layout.

    Returns the deployment's number of partitions, as ``check_in``.

    Raises:
        TransportUnavailable: they cannot be reached, or must not be used; the error says why,
            and what to change.
    """
    refused = [one for one in _survey(server) if one.verdict is Verdict.REFUSED]
    if refused:
        why = "; ".join(f"{_of(one)} is {one.found}: {one.change}" for one in refused)
        raise TransportUnavailable(f"{server.shown} cannot carry a bus: {why}")
    return check_in(server, namespace, partitions)


def _of(finding: Finding) -> str:
    return f"{finding.what} of {finding.server}" if finding.server else finding.what


def _ping(client: Any) -> float:
    began = time.perf_counter()
    client.ping()
    return time.perf_counter() - began


def _latency(seconds: list[float]) -> Finding:
    typical, worst = median(seconds), max(seconds)
    found = f"{typical * 1e3:.2f} ms, at worst {worst * 1e3:.2f} ms"
    if typical > _SLOW:
        return Finding("latency", Verdict.WARNING, found, "bring node and server closer together")
    return Finding("latency", Verdict.OK, found)


def _version(told: Mapping[str, Any]) -> Finding:
    found = str(told["redis_version"])
    numbers = tuple(int(part) for part in found.split(".") if part.isdigit())
    if numbers < OLDEST:
        return Finding("version", Verdict.REFUSED, found, "Redis 6.2 or newer is needed")
    return Finding("version", Verdict.OK, found)


def _role(told: Mapping[str, Any], wanted: str) -> Finding:
    role = str(told.get("role", "unknown"))
    if role != wanted:
        return Finding("role", Verdict.REFUSED, role, "give the address of the primary server")
    return Finding("role", Verdict.OK, role)


def _eviction(told: Mapping[str, Any]) -> Finding:
    policy = str(told.get("maxmemory_policy", "unknown"))
    if int(told.get("maxmemory", 0)) == 0:
        advice = "set maxmemory and maxmemory-policy noeviction, so that it says when it is full"
        return Finding("memory limit", Verdict.WARNING, "none", advice)
    if policy != "noeviction":
        advice = "set maxmemory-policy noeviction: others drop messages without a word"
        return Finding("memory limit", Verdict.REFUSED, policy, advice)
    return Finding("memory limit", Verdict.OK, f"{told.get('maxmemory_human')}, {policy}")


def _persistence(told: Mapping[str, Any]) -> Finding:
    if int(told.get("aof_enabled", 0)):
        if told.get("aof_last_write_status", "ok") != "ok":
            return Finding("persistence", Verdict.WARNING, "writing failed", "look at its disk")
        return Finding("persistence", Verdict.OK, "append-only file")
    return Finding(
        "persistence",
        Verdict.WARNING,
        "no append-only file",
        "set appendonly yes: what waits is lost when the server stops, but for what its senders"
        " still hold",
    )


def _replicas(told: Mapping[str, Any]) -> Finding:
    replicas = int(told.get("connected_slaves", 0))
    needed = told.get("min_slaves_good_slaves")
    if replicas and needed is None:
        advice = "set min-replicas-to-write 1, so that a cut-off primary stops accepting"
        return Finding("replicas", Verdict.WARNING, f"{replicas}, none needed to write", advice)
    if not replicas and needed is not None:
        advice = "min-replicas-to-write without a replica stops every write"
        return Finding("replicas", Verdict.WARNING, "none, but needed to write", advice)
    return Finding("replicas", Verdict.OK, str(replicas))
