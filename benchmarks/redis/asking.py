"""Questions to another process: one after the other, or many at a time."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.redis.lab import lab
from benchmarks.redis.payloads import body, payload
from benchmarks.redis.peers import NAMES, peer
from benchmarks.round_trips import MEDIAN, METRICS, RATE, percentile
from benchmarks.workload import Bound, Case, Cores, Goal, Sample, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[[int, int], list[float]]
    """How long each of so many asks took, at most so many of them at a time: (outstanding, n)."""

_WAIT: Final = 30.0
_WARM_UP: Final = 0.1
_PEERS: Final = ("taskiq", "faststream")
_PEERS_OF_MANY: Final = ("taskiq",)
"""Those that answered 64 at a time; FastStream's requests did not all come back."""


def workload(title: str, *, outstanding: int) -> Workload:
    n = 4_000 if outstanding == 1 else 20_000
    how = "one after the other" if outstanding == 1 else f"{outstanding} at a time"
    goals: tuple[Goal, ...] = (Goal("actorbus", RATE, must=Bound(2), over="taskiq"),)
    if outstanding == 1:
        # Many at a time go as two lists in one round trip there, and as an ask each here.
        goals += (
            Goal("actorbus", RATE, must=Bound(0.5), aim=Bound(1), over="redis-py pipelined"),
            Goal("actorbus", MEDIAN, aim=Bound(250), at_most=True),
        )
    return Workload(
        name=title,
        clock=f"n questions of 300 B to one responder in another process, {how}",
        metrics=METRICS,
        cases=(
            Case("redis-py pipelined", partial(_bare, outstanding), n, warm_up=0),
            Case("actorbus", partial(_actorbus, outstanding), n, warm_up=0),
            *(
                Case(name, partial(_peer, name, outstanding), n // 4, warm_up=0, needs=NAMES[name])
                for name in (_PEERS if outstanding == 1 else _PEERS_OF_MANY)
            ),
        ),
        baseline="redis-py pipelined",
        goals=goals,
        kinds=(Cores.FREE,),
    )


def _bare(outstanding: int, n: int) -> Sample:
    from benchmarks.redis.bare import REPLIES, REQUESTS

    with lab() as here, here.consumer("benchmarks.redis.bare", "echo", milestones=()) as consumer:
        consumer.reached(0)

        def ask(outstanding: int, n: int) -> list[float]:
            trips: list[float] = []
            asked: deque[float] = deque()
            sent = 0
            while len(trips) < n:
                room = min(outstanding - len(asked), n - sent)
                with here.server.client.pipeline(transaction=False) as pipe:
                    if room:
                        pipe.rpush(REQUESTS, *(body(sent + more) for more in range(room)))
                    pipe.blpop(REPLIES, 5)
                    pipe.lpop(REPLIES, outstanding)
                    asked.extend([time.perf_counter()] * room)
                    *_, _first, more = pipe.execute()
                sent += room
                now = time.perf_counter()
                trips += [now - asked.popleft() for _ in range(1 + len(more or ()))]
            return trips

        return _measure(ask, outstanding, n)


def _actorbus(outstanding: int, n: int) -> Sample:
    from actorbus import Node
    from benchmarks.redis.agents import name_of

    with (
        lab() as here,
        here.consumer("benchmarks.redis.node", "echo", "1", milestones=()) as consumer,
        Node(here.url, name="asker") as node,
    ):
        consumer.reached(0)
        ref = node.ref(name_of(0))

        def ask(outstanding: int, n: int) -> list[float]:
            trips: list[float] = []
            asked: deque[tuple[float, Any]] = deque()
            for number in range(n):
                if len(asked) == outstanding:
                    trips.append(_answered(*asked.popleft()))
                asked.append((time.perf_counter(), ref.ask(payload(number))))
            return trips + [_answered(*one) for one in asked]

        return _measure(ask, outstanding, n)


def _answered(asked: float, reply: Any) -> float:
    reply.get(_WAIT)
    return time.perf_counter() - asked


def _peer(name: str, outstanding: int, n: int) -> Sample:
    with lab() as here:
        module = peer(name, here.url)
        says_so = getattr(module, "SAYS_WHEN_READY", False)
        with here.consumer(*module.WORKER, milestones=(1,)) as consumer:
            if says_so:
                consumer.reached(0)
            return _measure(module.ask, outstanding, n)


def _measure(ask: Ask, outstanding: int, n: int) -> Sample:
    ask(outstanding, max(outstanding, int(n * _WARM_UP)))
    start = time.perf_counter()
    trips = ask(outstanding, n)
    return {
        RATE.name: n / (time.perf_counter() - start),
        MEDIAN.name: percentile(trips, 0.50) * 1e6,
        "p99": percentile(trips, 0.99) * 1e6,
    }
