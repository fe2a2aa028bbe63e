"""tell: how fast one thread can send to one receiver."""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.receivers import (
    Countdown,
    actorbus_agent,
    deque_thread,
    payload,
    pykka_actor,
    simple_queue,
)
from benchmarks.workload import RATE, Bound, Case, Goal, Sample, Workload

if TYPE_CHECKING:
    from benchmarks.receivers import Payload, Receiver

_N = 200_000
_BURST = 256
"""Messages after which an asyncio sender lets the receiver run."""


def tell(receiver: Receiver, n: int) -> Sample:
    countdown = Countdown(n)
    with receiver(countdown) as send:
        start = perf_counter()
        for number in range(n):
            send(payload(number))
        countdown.wait()
        return {"rate": n / (perf_counter() - start)}


def tell_over_asyncio_queue(n: int) -> Sample:
    async def receive(queue: asyncio.Queue[Payload]) -> None:
        for _ in range(n):
            await queue.get()

    async def measure() -> float:
        queue: asyncio.Queue[Payload] = asyncio.Queue()
        receiver = asyncio.create_task(receive(queue))
        start = perf_counter()
        for number in range(n):
            queue.put_nowait(payload(number))
            if number % _BURST == 0:
                await asyncio.sleep(0)
        await receiver
        return n / (perf_counter() - start)

    return {"rate": asyncio.run(measure())}


WORKLOAD = Workload(
    name="tell",
    clock="one thread sends n fresh dicts to one receiver, until the last is handled",
    metrics=(RATE,),
    cases=(
        Case("deque", partial(tell, deque_thread), _N),
        Case("SimpleQueue", partial(tell, simple_queue), _N),
        Case("asyncio.Queue", tell_over_asyncio_queue, _N),
        Case("pykka", partial(tell, pykka_actor), _N),
        Case("actorbus", partial(tell, actorbus_agent), _N),
    ),
    baseline="pykka",
    goals=(
        Goal(
            "actorbus",
            RATE,
            must=Bound(free=3.0, one=1.4),
            aim=Bound(free=5.0, one=2.0),
            over="pykka",
        ),
    ),
)
