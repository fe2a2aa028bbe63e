"""broadcast: how fast one sender reaches a hundred receivers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.receivers import WAIT, Payload, payload
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

_N = 200_000
_RECEIVERS = 100
_BURST = 10
"""Broadcasts after which an asyncio sender lets the receivers run."""

RATE = Metric("rate", "deliveries/s")


class Tally:
    """Counts for one receiver; says so when its share has come."""

    __slots__ = ("_done", "_left")

    def __init__(self, share: int, done: Callable[[], object]) -> None:
        self._left = share
        self._done = done

    def count(self) -> None:
        self._left -= 1
        if not self._left:
            self._done()


def clock_broadcasts(
    send: Callable[[Payload], object], n: int, done: threading.Semaphore
) -> Sample:
    start = perf_counter()
    for number in range(n // _RECEIVERS):
        send(payload(number))
    for finished in range(_RECEIVERS):
        if not done.acquire(timeout=WAIT):
            raise TimeoutError(f"only {finished} of {_RECEIVERS} receivers got their share")
    return {"rate": n / (perf_counter() - start)}


def over_deques(n: int) -> Sample:
    """A deque a receiver, drained on the sender's own thread: no hand-over at all."""
    share = n // _RECEIVERS
    done = threading.Semaphore(0)
    receivers = [(deque[Payload](), Tally(share, done.release)) for _ in range(_RECEIVERS)]

    def send(item: Payload) -> None:
        for waiting, _ in receivers:
            waiting.append(item)
        if item["id"] % _BURST == 0 or item["id"] == share - 1:
            drain()

    def drain() -> None:
        for waiting, tally in receivers:
            while waiting:
                waiting.popleft()
                tally.count()

    return clock_broadcasts(send, n, done)


def over_asyncio_queues(n: int) -> Sample:
    """A queue and a task a receiver."""
    share = n // _RECEIVERS

    async def receive(queue: asyncio.Queue[Payload]) -> None:
        for _ in range(share):
            await queue.get()

    async def measure() -> float:
        queues: list[asyncio.Queue[Payload]] = [asyncio.Queue() for _ in range(_RECEIVERS)]
        receivers = [asyncio.create_task(receive(queue)) for queue in queues]
        start = perf_counter()
        for number in range(share):
            item = payload(number)
            for queue in queues:
                queue.put_nowait(item)
            if number % _BURST == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*receivers)
        return n / (perf_counter() - start)

    return {"rate": asyncio.run(measure())}


def over_pykka(n: int) -> Sample:
    import pykka

    class Receiver(pykka.ThreadingActor):
        def __init__(self, tally: Tally) -> None:
            super().__init__()
            self.tally = tally

        def on_receive(self, message: Payload) -> None:
            self.tally.count()

    done = threading.Semaphore(0)
    for _ in range(_RECEIVERS):
        Receiver.start(Tally(n // _RECEIVERS, done.release))
    try:
        return clock_broadcasts(pykka.ActorRegistry.broadcast, n, done)
    finally:
        pykka.ActorRegistry.stop_all(timeout=WAIT)


def over_actorbus(n: int) -> Sample:
    from actorbus import Agent, Node, handles

    class Receiver(Agent):
        def __init__(self, tally: Tally) -> None:
            super().__init__()
            self.tally = tally

        @handles
        def take(self, job: Payload) -> None:
            self.tally.count()

    done = threading.Semaphore(0)
    with Node() as node:
        for _ in range(_RECEIVERS):
            node.spawn(Receiver, Tally(n // _RECEIVERS, done.release))
        return clock_broadcasts(node.broadcast, n, done)


WORKLOAD = Workload(
    name="broadcast",
    clock=f"one thread broadcasts fresh dicts to {_RECEIVERS} receivers, until all got all",
    metrics=(RATE,),
    cases=(
        Case("deque, 1 thread", over_deques, _N),
        Case("asyncio.Queue", over_asyncio_queues, _N),
        Case("pykka", over_pykka, _N),
        Case("actorbus", over_actorbus, _N),
    ),
    baseline="pykka",
    goals=(Goal("actorbus", RATE, must=everywhere(2.0), aim=everywhere(6.0), over="pykka"),),
)
