"""Messages that outlive their sender: taken by Redis, handled by a call each, acknowledged."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from benchmarks.redis.lab import Accounts, lab
from benchmarks.redis.payloads import AGENTS, body, payload
from benchmarks.redis.peers import NAMES, peer
from benchmarks.workload import Bound, Case, Cores, Goal, Metric, Sample, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.redis.lab import Lab

END_TO_END: Final = Metric("rate", "messages/s, end to end")
ENQUEUE: Final = Metric("enqueue", "messages/s taken by Redis")
CPU: Final = tuple(
    Metric(name, "us of processor time a message") for name in ("sender", "redis", "owner")
)
_PEERS: Final = {"dramatiq": 8_000, "celery": 2_500, "taskiq": 6_000, "faststream": 6_000}
_WARM_UP: Final = 0.1
_LOADED: Final = str(Path(__file__).with_name("loaded.py"))


def workload(title: str, *, aof: bool) -> Workload:
    kept = "append-only file every second" if aof else "no append-only file"
    return Workload(
        name=title,
        clock=f"n payloads of 300 B from one process, until another handled the last ({kept})",
        metrics=(END_TO_END, ENQUEUE, *CPU),
        cases=(
            Case("bare stream", partial(_bare, aof), 100_000, warm_up=0),
            Case("actorbus", partial(_actorbus, aof), 60_000, warm_up=0),
            *(
                Case(name, partial(_peer, name, aof), n, warm_up=0, needs=NAMES[name])
                for name, n in _PEERS.items()
            ),
        ),
        baseline="bare stream",
        goals=(
            Goal("actorbus", END_TO_END, must=Bound(10), aim=Bound(15), over="dramatiq"),
            Goal("actorbus", END_TO_END, must=Bound(0.35), aim=Bound(0.5), over="bare stream"),
            Goal("actorbus", END_TO_END, aim=Bound(70_000)),
        ),
        kinds=(Cores.FREE,),
    )


def _bare(aof: bool, n: int) -> Sample:
    from benchmarks.redis.bare import STREAM, TOGETHER

    with lab(aof=aof) as here:

        def send(start: int, stop: int) -> None:
            for first in range(start, stop, TOGETHER):
                with here.server.client.pipeline(transaction=False) as pipe:
                    for number in range(first, min(first + TOGETHER, stop)):
                        pipe.xadd(STREAM, {"b": body(number)})
                    pipe.execute()

        return _measure(here, n, send, "benchmarks.redis.bare", "work")


def _actorbus(aof: bool, n: int) -> Sample:
    """The owner is what users run, as the peers' workers are."""
    from actorbus import Node
    from benchmarks.redis.agents import name_of

    with lab(aof=aof) as here, Node(here.url, name="sender") as node:

        def send(start: int, stop: int) -> None:
            refs = [node.ref(name_of(number)) for number in range(AGENTS)]
            for number in range(start, stop):
                refs[number % AGENTS].tell(payload(number))
            node.flush(60.0)

        return _measure(here, n, send, "actorbus", "node", "--bus", here.url, "--load", _LOADED)


def _peer(name: str, aof: bool, n: int) -> Sample:
    with lab(aof=aof) as here:
        module = peer(name, here.url)
        ready = getattr(module, "SAYS_WHEN_READY", False)
        return _measure(here, n, module.send, *module.WORKER, ready=ready)


def _measure(
    here: Lab, n: int, send: Callable[[int, int], None], *command: str, ready: bool = True
) -> Sample:
    """Send after a warm-up; a consumer that cannot say that it is ready says so by handling."""
    warm_up = max(1, int(n * _WARM_UP))
    one_process = command[0] in ("actorbus", "benchmarks.redis.bare")
    with here.consumer(*command, milestones=(warm_up, warm_up + n)) as consumer:
        if ready:
            consumer.reached(0)
        send(0, warm_up)
        consumer.reached(warm_up)
        before, start = Accounts.now(here, consumer), monotonic()
        send(warm_up, warm_up + n)
        taken, handled = monotonic(), consumer.reached(warm_up + n)
        cpu = before.until(Accounts.now(here, consumer), n) if one_process else {}
        return {"rate": n / (handled - start), "enqueue": n / (taken - start), **cpu}
