"""Whether a Redis server is set up so that it keeps what it promised, and what to change.

A *refused* finding means that messages would be lost or mixed up there: a node does not start.
A *warning* says which promise is weaker. Everything is read with ``INFO``, which managed services
allow too; nothing is changed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable
from actorbus.redis_client import OLDEST, encoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.redis_client import RedisServer

LAYOUT: Final = 1
"""The version of the keys' layout."""
_PINGS: Final = 20
_SLOW: Final = 0.010


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``change`` says what to do; empty where all is well."""

    what: str
    verdict: Verdict
    found: str
    change: str = ""


def examine(server: RedisServer) -> list[Finding]:
    """Look at everything that matters to the bus.

    Raises:
        TransportUnavailable: the server cannot be reached.
    """
    with server.errors():
        told: Any = server.client.info()
        seconds = [_ping(server) for _ in range(_PINGS)]
    return [*judge(told), _latency(seconds)]


def judge(told: Mapping[str, Any]) -> list[Finding]:
    """What a server says of itself, judged."""
    return [_version(told), _role(told), _eviction(told), _persistence(told), _replicas(told)]


def check(server: RedisServer, *, namespace: str, partitions: int) -> None:
    """Refuse a server on which messages would be lost, or a deployment of another layout.

    The first node of a deployment writes down its layout there.

    Raises:
        TransportUnavailable: it cannot be reached, or must not be used; the error says why,
            and what to change.
    """
    with server.errors():
        told: Any = server.client.info()
    refused = [one for one in judge(told) if one.verdict is Verdict.REFUSED]
    if refused:
        why = "; ".join(f"{one.what} is {one.found}: {one.change}" for one in refused)
        raise TransportUnavailable(f"{server.shown} cannot carry a bus: {why}")
    _check_layout(server, f"{{{encoded(namespace)}.meta}}", partitions)


def _check_layout(server: RedisServer, key: str, partitions: int) -> None:
    ours = {"layout": str(LAYOUT), "partitions": str(partitions)}
    with server.errors():
        for name, value in ours.items():
            server.client.hsetnx(key, name, value)
        found: Any = server.client.hgetall(key)
    theirs = {name.decode(): value.decode() for name, value in found.items()}
    if theirs["layout"] != ours["layout"]:
        raise TransportUnavailable(
            f"{server.shown} holds a bus of layout {theirs['layout']}, and this is layout"
            f" {LAYOUT}: run nodes of one version, or use another namespace"
        )
    if theirs["partitions"] != ours["partitions"]:
        raise TransportUnavailable(
            f"{server.shown} holds a bus of {theirs['partitions']} partitions, not {partitions}:"
            " every node of a deployment has the same number"
        )


def _ping(server: RedisServer) -> float:
    began = time.perf_counter()
    server.client.ping()
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


def _role(told: Mapping[str, Any]) -> Finding:
    role = str(told.get("role", "unknown"))
    if role != "master":
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
