"""priority mix: what priorities cost, and what they buy while a backlog waits."""

from __future__ import annotations

import threading
from itertools import count
from queue import PriorityQueue
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.receivers import WAIT, Countdown, Payload
from benchmarks.round_trips import percentile
from benchmarks.workload import RATE, Case, Metric, Sample, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

_N = 100_000
_CAPACITY = 10_000

_URGENT, _HIGH, _NORMAL, _LOW = range(4)
_MIX: Final = bytes([_URGENT] + [_HIGH] * 9 + [_NORMAL] * 60 + [_LOW] * 30)
"""Of a hundred messages. A stride that is prime to a hundred spreads them evenly."""
_STRIDE: Final = 37

URGENT_WAIT = Metric("urgent p99", "ms")
NORMAL_WAIT = Metric("normal p99", "ms")
LOW_WAIT = Metric("low p99", "ms")


class Waits:
    """How long messages of each priority waited from being sent to being handled."""

    def __init__(self, n: int) -> None:
        self.countdown = Countdown(n)
        self._seconds: tuple[list[float], ...] = ([], [], [], [])

    def take(self, job: Payload) -> None:
        self._seconds[job["level"]].append(perf_counter() - job["sent"])
        self.countdown.count()

    def p99(self, level: int) -> float:
        """In milliseconds."""
        return percentile(self._seconds[level], 0.99) * 1e3


def clock_mix(send: Callable[[Payload, int], object], waits: Waits, n: int) -> Sample:
    start = perf_counter()
    for number in range(n):
        level = _MIX[number * _STRIDE % 100]
        send({"id": number, "level": level, "sent": perf_counter()}, level)
    waits.countdown.wait()
    return {
        RATE.name: n / (perf_counter() - start),
        URGENT_WAIT.name: waits.p99(_URGENT),
        NORMAL_WAIT.name: waits.p99(_NORMAL),
        LOW_WAIT.name: waits.p99(_LOW),
    }


def over_priority_queue(n: int) -> Sample:
    """``queue.PriorityQueue`` between two threads, as bounded as our mailbox."""
    waits = Waits(n)
    queue: PriorityQueue[tuple[int, int, Payload]] = PriorityQueue(_CAPACITY)
    order = count()

    def receive() -> None:
        for _ in range(n):
            waits.take(queue.get()[2])

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    return clock_mix(lambda job, level: queue.put((level, next(order), job)), waits, n)


def over_pykka(n: int) -> Sample:
    """One line for all: what a message waits that has no priority, behind no bound."""
    import pykka

    waits = Waits(n)

    class Receiver(pykka.ThreadingActor):
        def on_receive(self, message: Payload) -> None:
            waits.take(message)

    ref = Receiver.start()
    try:
        return clock_mix(lambda job, level: ref.tell(job), waits, n)
    finally:
        ref.stop(timeout=WAIT)


def over_actorbus(n: int) -> Sample:
    from actorbus import Agent, Node, Priority, handles

    waits = Waits(n)
    priorities = tuple(Priority)

    class Receiver(Agent):
        @handles
        def take(self, job: Payload) -> None:
            waits.take(job)

    with Node() as node:
        ref = node.spawn(Receiver)
        return clock_mix(lambda job, level: ref.tell(job, priority=priorities[level]), waits, n)


WORKLOAD = Workload(
    name="priority_mix",
    clock="one thread sends 1 % urgent, 9 % high, 60 % normal, 30 % low, until all are handled",
    metrics=(RATE, URGENT_WAIT, NORMAL_WAIT, LOW_WAIT),
    cases=(
        Case("PriorityQueue", over_priority_queue, _N),
        Case("pykka, one line", over_pykka, _N),
        Case("actorbus", over_actorbus, _N),
    ),
    baseline="PriorityQueue",
)
