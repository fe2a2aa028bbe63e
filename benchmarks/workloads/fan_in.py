"""fan-in: how fast several threads can send to one receiver."""

from __future__ import annotations

import threading
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.receivers import (
    WAIT,
    Countdown,
    actorbus_agent,
    deque_thread,
    payload,
    pykka_actor,
    simple_queue,
)
from benchmarks.workload import RATE, Bound, Case, Goal, Sample, Workload

if TYPE_CHECKING:
    from benchmarks.receivers import Receiver

_N = 200_000
_SENDERS = 8


def fan_in(receiver: Receiver, n: int) -> Sample:
    share = n // _SENDERS
    countdown = Countdown(share * _SENDERS)
    with receiver(countdown) as send:
        ready = threading.Barrier(_SENDERS + 1)

        def sender() -> None:
            ready.wait(WAIT)
            for number in range(share):
                send(payload(number))

        threads = [threading.Thread(target=sender, daemon=True) for _ in range(_SENDERS)]
        for thread in threads:
            thread.start()
        ready.wait(WAIT)
        start = perf_counter()
        countdown.wait()
        seconds = perf_counter() - start
        for thread in threads:
            thread.join(WAIT)
        return {"rate": share * _SENDERS / seconds}


WORKLOAD = Workload(
    name="fan_in",
    clock=f"{_SENDERS} threads send to one receiver, until the last message is handled",
    metrics=(RATE,),
    cases=(
        Case("deque", partial(fan_in, deque_thread), _N),
        Case("SimpleQueue", partial(fan_in, simple_queue), _N),
        Case("pykka", partial(fan_in, pykka_actor), _N),
        Case("actorbus", partial(fan_in, actorbus_agent), _N),
    ),
    baseline="pykka",
    goals=(Goal("actorbus", RATE, must=Bound(free=3.0), aim=Bound(free=5.0), over="pykka"),),
)
