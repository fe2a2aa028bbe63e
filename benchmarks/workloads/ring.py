"""ring: how fast one message goes round a thousand receivers, each of which passes it on."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.receivers import WAIT
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

_N = 100_000
_SIZE = 1_000

RATE = Metric("rate", "hops/s")


def clock_hops(first: Callable[[int], object], n: int, arrived: threading.Event) -> Sample:
    """Send the number of hops that are left; each receiver passes on one less."""
    start = perf_counter()
    first(n)
    if not arrived.wait(WAIT):
        raise TimeoutError(f"{n} hops were not done within {WAIT:.0f} s")
    return {"rate": n / (perf_counter() - start)}


def over_one_run_queue(n: int) -> Sample:
    """A deque a receiver and one thread that runs whoever has something: no hand-over."""
    inboxes = [deque[int]() for _ in range(_SIZE)]
    ready: deque[int] = deque()
    start = perf_counter()
    inboxes[0].append(n)
    ready.append(0)
    while ready:
        place = ready.popleft()
        left = inboxes[place].popleft()
        if left:
            following = (place + 1) % _SIZE
            inboxes[following].append(left - 1)
            ready.append(following)
    return {"rate": n / (perf_counter() - start)}


def over_asyncio_queues(n: int) -> Sample:
    """A queue and a task a receiver."""

    async def measure() -> float:
        queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(_SIZE)]
        arrived = asyncio.Event()

        async def receive(place: int) -> None:
            mine, following = queues[place], queues[(place + 1) % _SIZE]
            while left := await mine.get():
                following.put_nowait(left - 1)
            arrived.set()

        receivers = [asyncio.create_task(receive(place)) for place in range(_SIZE)]
        await asyncio.sleep(0)
        start = perf_counter()
        queues[0].put_nowait(n)
        await arrived.wait()
        seconds = perf_counter() - start
        for receiver in receivers:
            receiver.cancel()
        await asyncio.gather(*receivers, return_exceptions=True)
        return n / seconds

    return {"rate": asyncio.run(measure())}


def over_pykka(n: int) -> Sample:
    import pykka

    refs: list[pykka.ActorRef[Any]] = []
    arrived = threading.Event()

    class Member(pykka.ThreadingActor):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.following = (place + 1) % _SIZE

        def on_receive(self, left: int) -> None:
            if left:
                refs[self.following].tell(left - 1)
            else:
                arrived.set()

    refs += [Member.start(place) for place in range(_SIZE)]
    try:
        return clock_hops(refs[0].tell, n, arrived)
    finally:
        pykka.ActorRegistry.stop_all(timeout=WAIT)


def over_actorbus(n: int) -> Sample:
    from actorbus import Agent, Node, Ref, handles

    refs: list[Ref] = []
    arrived = threading.Event()

    class Member(Agent):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.following = (place + 1) % _SIZE

        @handles
        def hop(self, left: int) -> None:
            if left:
                refs[self.following].tell(left - 1)
            else:
                arrived.set()

    with Node() as node:
        refs += [node.spawn(Member, place) for place in range(_SIZE)]
        return clock_hops(refs[0].tell, n, arrived)


WORKLOAD = Workload(
    name="ring",
    clock=f"one message goes round {_SIZE:,} receivers, each passing it to the next, for n hops",
    metrics=(RATE,),
    cases=(
        Case("deque, 1 thread", over_one_run_queue, _N),
        Case("asyncio.Queue", over_asyncio_queues, _N),
        Case("pykka", over_pykka, _N),
        Case("actorbus", over_actorbus, _N),
    ),
    baseline="pykka",
    goals=(
        Goal("actorbus", RATE, must=everywhere(4.0), over="pykka"),
        Goal("actorbus", RATE, aim=everywhere(1.0), over="asyncio.Queue"),
    ),
)
