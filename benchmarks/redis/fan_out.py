"""One message to many: live through pub/sub, or through a log that keeps it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Final

from benchmarks.redis.lab import Accounts, lab
from benchmarks.redis.payloads import body, payload
from benchmarks.workload import Bound, Case, Cores, Goal, Metric, Sample, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.redis.lab import Consumer, Lab

DELIVERIES: Final = Metric("rate", "deliveries/s")
CPU: Final = tuple(
    Metric(name, "us of processor time a delivery") for name in ("sender", "redis", "owner")
)
_PUBLISHED_TOGETHER: Final = 100
_AHEAD: Final = 2_000
"""Live messages that nobody has handled yet: a server drops a subscriber that is far behind."""
_WARM_UP: Final = 0.1


def live(title: str, subscribers: int) -> Workload:
    """Through plain pub/sub, which keeps nothing."""
    n = 20_000
    return Workload(
        name=title,
        clock=f"n events of 300 B, until {subscribers} subscribers in another process had all",
        metrics=(DELIVERIES, *CPU),
        cases=(
            Case("redis-py", partial(_published, "listen", subscribers), n, warm_up=0),
            Case(
                "redis-py, one connection", partial(_published, "hand-out", subscribers), n,
                warm_up=0,
            ),
            Case("actorbus", partial(_actorbus, "hear", subscribers), n, warm_up=0),
        ),
        baseline="redis-py",
        goals=(Goal("actorbus", DELIVERIES, must=Bound(1), aim=Bound(4), over="redis-py"),),
        kinds=(Cores.FREE,),
    )  # fmt: skip


def kept(title: str, subscribers: int) -> Workload:
    """Through a log in Redis that each node reads once."""
    n = max(500, 50_000 // subscribers)
    return Workload(
        name=title,
        clock=f"n events of 300 B, until {subscribers} subscribers in another process had all",
        metrics=(DELIVERIES, *CPU),
        cases=(
            Case("stream, read once", partial(_logged, subscribers), n, warm_up=0),
            Case("actorbus", partial(_actorbus, "listen", subscribers), n, warm_up=0),
        ),
        baseline="stream, read once",
        kinds=(Cores.FREE,),
    )


def _published(role: str, subscribers: int, n: int) -> Sample:
    from benchmarks.redis.bare import CHANNEL

    with lab() as here:

        def send(start: int, stop: int) -> None:
            for first in range(start, stop, _PUBLISHED_TOGETHER):
                with here.server.client.pipeline(transaction=False) as pipe:
                    for number in range(first, min(first + _PUBLISHED_TOGETHER, stop)):
                        pipe.publish(CHANNEL, body(number))
                    pipe.execute()

        command = ("benchmarks.redis.bare", role, str(subscribers))
        return _measure(here, n, subscribers, send, *command)


def _logged(subscribers: int, n: int) -> Sample:
    from benchmarks.redis.bare import STREAM, TOGETHER

    with lab() as here:

        def send(start: int, stop: int) -> None:
            for first in range(start, stop, TOGETHER):
                with here.server.client.pipeline(transaction=False) as pipe:
                    for number in range(first, min(first + TOGETHER, stop)):
                        pipe.xadd(STREAM, {"b": body(number)})
                    pipe.execute()

        command = ("benchmarks.redis.bare", "read-log", str(subscribers))
        return _measure(here, n, subscribers, send, *command)


def _actorbus(role: str, subscribers: int, n: int) -> Sample:
    from actorbus import Node
    from benchmarks.redis.agents import TOPIC, pubsub

    with lab() as here:
        url = pubsub(here.url) if role == "hear" else here.url
        with Node(url, name="publisher") as node:

            def send(start: int, stop: int) -> None:
                for number in range(start, stop):
                    node.topic(TOPIC).publish(payload(number))
                node.flush(60.0)

            command = ("benchmarks.redis.node", role, str(subscribers))
            return _measure(here, n, subscribers, send, *command)


def _measure(
    here: Lab, n: int, subscribers: int, send: Callable[[int, int], None], *command: str
) -> Sample:
    warm_up = max(1, int(n * _WARM_UP))
    stops = [*range(warm_up, warm_up + n, _AHEAD), warm_up + n]
    milestones = tuple(stop * subscribers for stop in stops)
    with here.consumer(*command, milestones=milestones) as consumer:
        consumer.reached(0)
        send(0, warm_up)
        consumer.reached(warm_up * subscribers)
        before, start = Accounts.now(here, consumer), monotonic()
        handled = _in_rounds(send, stops, subscribers, consumer)
        cpu = before.until(Accounts.now(here, consumer), n * subscribers)
        return {"rate": n * subscribers / (handled - start), **cpu}


def _in_rounds(
    send: Callable[[int, int], None], stops: list[int], subscribers: int, consumer: Consumer
) -> float:
    handled = 0.0
    for start, stop in pairwise(stops):
        send(start, stop)
        handled = consumer.reached(stop * subscribers)
    return handled
