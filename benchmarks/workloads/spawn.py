"""spawn: what an idle agent costs, in time and in memory."""

from __future__ import annotations

import gc
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.machine import resident_bytes
from benchmarks.receivers import WAIT, Payload
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

TIME = Metric("time", "us each")
MEMORY = Metric("memory", "bytes each")

_WARM_UP = 0.001
"""Little, because memory that a warm-up gave back would hide what the measured agents take."""


def clock_spawns(spawn: Callable[[], object], n: int) -> Sample:
    """Spawn and keep `n`; memory is what the process grew by, in resident bytes."""
    gc.collect()
    before = resident_bytes()
    start = perf_counter()
    kept = [spawn() for _ in range(n)]
    seconds = perf_counter() - start
    after = resident_bytes()
    del kept
    sample = {TIME.name: seconds / n * 1e6}
    if before is not None and after is not None:
        sample[MEMORY.name] = (after - before) / n
    return sample


def spawn_objects(n: int) -> Sample:
    """An object that owns a deque, and no more."""

    class Idle:
        __slots__ = ("waiting",)

        def __init__(self) -> None:
            self.waiting: deque[Payload] = deque()

    return clock_spawns(Idle, n)


def spawn_pykka(n: int) -> Sample:
    import pykka

    class Idle(pykka.ThreadingActor):
        def on_receive(self, message: Payload) -> None: ...

    try:
        return clock_spawns(Idle.start, n)
    finally:
        pykka.ActorRegistry.stop_all(timeout=WAIT)


def spawn_actorbus(n: int) -> Sample:
    from actorbus import Agent, Node, handles

    class Idle(Agent):
        @handles
        def take(self, job: Payload) -> None: ...

    with Node() as node:
        return clock_spawns(lambda: node.spawn(Idle), n)


WORKLOAD = Workload(
    name="spawn",
    clock="one thread spawns n idle agents and keeps them, until the last spawn returns",
    metrics=(TIME, MEMORY),
    cases=(
        Case("object + deque", spawn_objects, 10_000, quick_n=10_000, warm_up=_WARM_UP),
        Case("pykka, 1,000", spawn_pykka, 1_000, quick_n=1_000, warm_up=_WARM_UP),
        Case("pykka, 10,000", spawn_pykka, 10_000, quick_n=0, warm_up=_WARM_UP),
        Case("actorbus, 1,000", spawn_actorbus, 1_000, quick_n=1_000, warm_up=_WARM_UP),
        Case("actorbus, 10,000", spawn_actorbus, 10_000, quick_n=0, warm_up=_WARM_UP),
        Case("actorbus, 100,000", spawn_actorbus, 100_000, quick_n=0, warm_up=_WARM_UP),
    ),
    baseline="pykka, 1,000",
    goals=(
        Goal("actorbus, 1,000", TIME, must=everywhere(1 / 2), over="pykka, 1,000", at_most=True),
        Goal("actorbus, 1,000", MEMORY, must=everywhere(1 / 9), over="pykka, 1,000", at_most=True),
        Goal("actorbus, 10,000", TIME, must=everywhere(1 / 2), over="pykka, 10,000", at_most=True),
        Goal(
            "actorbus, 10,000", MEMORY, must=everywhere(1 / 9), over="pykka, 10,000", at_most=True
        ),
        Goal("actorbus, 100,000", TIME, aim=everywhere(25), at_most=True),
        Goal("actorbus, 100,000", MEMORY, aim=everywhere(1024), at_most=True),
    ),
)
