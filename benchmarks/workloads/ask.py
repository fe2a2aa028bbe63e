"""ask: round trips between a thread and a receiver, which answers with what it got."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from benchmarks.receivers import WAIT, Payload
from benchmarks.round_trips import METRICS, RATE, time_asks
from benchmarks.workload import Case, Goal, Sample, Workload, everywhere

_N = 20_000


def ask_over_simple_queues(n: int) -> Sample:
    """One queue there, one back: two hand-overs and nothing else."""
    requests: SimpleQueue[Payload | None] = SimpleQueue()
    replies: SimpleQueue[Payload] = SimpleQueue()

    def answer() -> None:
        while (request := requests.get()) is not None:
            replies.put(request)

    def ask(request: Payload) -> Payload:
        requests.put(request)
        return replies.get()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    sample = time_asks(ask, n)
    requests.put(None)
    thread.join(WAIT)
    return sample


def ask_pykka(n: int) -> Sample:
    import pykka

    class Echo(pykka.ThreadingActor):
        def on_receive(self, message: Payload) -> Payload:
            return message

    ref = Echo.start()
    try:
        return time_asks(lambda request: ref.ask(request, timeout=WAIT), n)
    finally:
        ref.stop(timeout=WAIT)


def ask_actorbus(n: int) -> Sample:
    from actorbus import Agent, Node, handles

    class Echo(Agent):
        @handles
        def answer(self, request: Payload) -> Payload:
            return request

    with Node() as node:
        ref = node.spawn(Echo)
        return time_asks(lambda request: ref.ask(request).get(), n)


WORKLOAD = Workload(
    name="ask",
    clock="a thread asks with a fresh dict and waits for the answer, n times in a row",
    metrics=METRICS,
    cases=(
        Case("SimpleQueue", ask_over_simple_queues, _N),
        Case("pykka", ask_pykka, _N),
        Case("actorbus", ask_actorbus, _N),
    ),
    baseline="pykka",
    goals=(
        Goal("actorbus", RATE, must=everywhere(1.2), over="pykka"),
        Goal("actorbus", RATE, aim=everywhere(0.9), over="SimpleQueue"),
    ),
)
