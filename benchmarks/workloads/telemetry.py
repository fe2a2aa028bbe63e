"""telemetry: what the possibility of listening costs a message to which nobody listens.

A part asks ``telemetry.active`` before it builds an event. The cost of that is too small to be
seen in the rate of a node, so it is put together from its two factors: how often the node asks
while one message goes its way, which is counted, and what one question costs, which is timed.
"""

from __future__ import annotations

from itertools import count, repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.receivers import Countdown, actorbus_agent, payload
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

_N = 2_000_000
_MESSAGES = 5_000

COST = Metric("cost", "ns a message")
QUESTIONS = Metric("questions", "a message")


def cost_of_silence(n: int) -> Sample:
    questions = questions_a_message()
    return {QUESTIONS.name: questions, COST.name: questions * seconds_a_question(n) * 1e9}


def seconds_a_question(n: int) -> float:
    """One look at ``active`` through the part that holds the telemetry, less an empty loop."""
    from actorbus.telemetry import Telemetry

    class Part:
        def __init__(self) -> None:
            self.telemetry = Telemetry()

        def ask(self) -> None:
            for _ in repeat(None, n):
                if self.telemetry.active:
                    raise AssertionError("nobody listens")

        def pass_by(self) -> None:
            for _ in repeat(None, n):
                pass

    part = Part()
    return max(0.0, (_seconds(part.ask) - _seconds(part.pass_by)) / n)


def questions_a_message() -> float:
    """How often a node reads ``active`` for one tell, from sending to handled."""
    from actorbus.telemetry import Telemetry

    slot: Any = Telemetry.__dict__["active"]
    asked = count()

    def counted(telemetry: Telemetry) -> bool:
        next(asked)
        return bool(slot.__get__(telemetry))

    countdown = Countdown(_MESSAGES)
    with actorbus_agent(countdown) as send:
        type.__setattr__(Telemetry, "active", property(counted, slot.__set__))
        try:
            for number in range(_MESSAGES):
                send(payload(number))
            countdown.wait()
        finally:
            type.__setattr__(Telemetry, "active", slot)
    return next(asked) / _MESSAGES


def _seconds(work: Callable[[], None]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


WORKLOAD = Workload(
    name="telemetry",
    clock="questions a message whether anybody listens, times what one question costs",
    metrics=(COST, QUESTIONS),
    cases=(Case("actorbus", cost_of_silence, _N),),
    baseline="actorbus",
    goals=(Goal("actorbus", COST, must=everywhere(50), at_most=True),),
)
