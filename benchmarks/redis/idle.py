"""What agents cost that do nothing, and how long others need to take them over."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.redis.lab import Accounts, lab
from benchmarks.workload import Bound, Case, Cores, Goal, Metric, Sample, Workload

BYTES: Final = Metric("bytes", "bytes of Redis an agent")
IDLE: Final = (
    Metric("connections", "a node"),
    BYTES,
    Metric("commands", "of Redis a second"),
    Metric("redis", "% of a core, Redis"),
    Metric("owner", "% of a core, the node"),
    Metric("spawn", "us an agent"),
)
TAKEN_OVER: Final = Metric("all", "s from the kill until the last agent runs elsewhere")
FIRST: Final = Metric("first", "s from the kill until the first one does")
_AGENTS: Final = 10_000
_SETTLES: Final = 3.0
_WATCHED: Final = 10.0


def agents_at_rest() -> Workload:
    return Workload(
        name="redis_idle",
        clock=f"nothing for {_WATCHED:.0f} s: a node with n agents to which nobody sends",
        metrics=IDLE,
        cases=(
            Case("a node with one agent", _rest, 1, quick_n=1, warm_up=0),
            Case("actorbus", _rest, _AGENTS, warm_up=0),
        ),
        baseline="a node with one agent",
        goals=(Goal("actorbus", BYTES, must=Bound(400), at_most=True),),
        kinds=(Cores.FREE,),
    )


def takeover() -> Workload:
    return Workload(
        name="redis_takeover",
        clock="kill -9 of a node with n idle agents, beside one that can run them",
        metrics=(TAKEN_OVER, FIRST),
        cases=(
            Case("one agent", _take_over, 1, quick_n=1, warm_up=0),
            Case("actorbus", _take_over, _AGENTS, warm_up=0),
        ),
        baseline="one agent",
        goals=(Goal("actorbus", TAKEN_OVER, aim=Bound(13), at_most=True),),
        kinds=(Cores.FREE,),
    )


def _rest(n: int) -> Sample:
    with lab() as here:
        server = here.server
        empty, connections = server.memory(), server.connections()
        began = time.monotonic()
        with here.consumer("benchmarks.redis.node", "idle", str(n), milestones=(1, n)) as node:
            first, last = node.reached(1), node.reached(0)
            time.sleep(_SETTLES)
            before, commands, since = Accounts.now(here, node), server.commands(), time.monotonic()
            time.sleep(_WATCHED)
            used, seconds = Accounts.now(here, node), time.monotonic() - since
            return {
                "connections": server.connections() - connections,
                "bytes": (server.memory() - empty) / n,
                "commands": (server.commands() - commands) / seconds,
                "redis": (used.redis - before.redis) / seconds * 100,
                "owner": (used.owner - before.owner) / seconds * 100,
                "spawn": (last - (first if n > 1 else began)) / n * 1e6,
            }


def _take_over(n: int) -> Sample:
    with (
        lab() as here,
        here.consumer("benchmarks.redis.node", "stand-by", "0", milestones=(1, 2, n + 1)) as heir,
        here.consumer("benchmarks.redis.node", "idle", str(n), milestones=()) as owner,
    ):
        heir.reached(0)
        owner.reached(0)
        time.sleep(_SETTLES)
        killed = owner.kill()
        return {"all": heir.reached(n + 1) - killed, "first": heir.reached(2) - killed}
