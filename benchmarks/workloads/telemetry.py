"""telemetry: what the possibility of listening costs a message to which nobody listens.

A part looks whether anybody listens before it builds an event. The cost of that is too small to
be seen in the rate of a node, so it is put together from its two factors: how often a node looks
while one message goes its way, which is counted, and what one look costs, which is timed.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import count, repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.receivers import Countdown, actorbus_agent, payload
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_N = 2_000_000
_MESSAGES = 5_000

COST = Metric("cost", "ns a message")
LOOKS = Metric("looks", "a message")


def cost_of_silence(n: int) -> Sample:
    looks = looks_a_message()
    return {LOOKS.name: looks, COST.name: looks * seconds_a_look(n) * 1e9}


def seconds_a_look(n: int) -> float:
    """One look through the part that holds the telemetry, less an empty loop."""
    from actorbus.telemetry import Telemetry

    class Part:
        def __init__(self) -> None:
            self.telemetry = Telemetry()

        def look(self) -> None:
            for _ in repeat(None, n):
                if self.telemetry.every_message:
                    raise AssertionError("nobody listens")

        def pass_by(self) -> None:
            for _ in repeat(None, n):
                pass

    part = Part()
    return max(0.0, (_seconds(part.look) - _seconds(part.pass_by)) / n)


def looks_a_message() -> float:
    """How often a node looks for one tell, from sending to handled.

    The flags of the telemetry count, and the one into which the bus folds them.

    Raises:
        AssertionError: it never does, so this no longer counts the right flags.
    """
    from actorbus.bus.bus import Bus
    from actorbus.telemetry import Telemetry

    looks = count()
    countdown = Countdown(_MESSAGES)
    with actorbus_agent(countdown) as send, ExitStack() as counting:
        for owner, flag in ((Telemetry, "active"), (Telemetry, "every_message"), (Bus, "plain")):
            counting.enter_context(_reads_counted(owner, flag, lambda: next(looks)))
        for number in range(_MESSAGES):
            send(payload(number))
        countdown.wait()
    counted = next(looks)
    assert counted, "no flag was read: say here where the node looks now"
    return counted / _MESSAGES


@contextmanager
def _reads_counted(owner: type, name: str, counted: Callable[[], object]) -> Iterator[None]:
    """Call `counted` at every read of an attribute of `owner`'s instances, slot or not."""
    slot: Any = vars(owner).get(name)

    def read(instance: Any) -> Any:
        counted()
        return slot.__get__(instance) if slot else vars(instance)[name]

    def write(instance: Any, value: Any) -> None:
        if slot:
            slot.__set__(instance, value)
        else:
            vars(instance)[name] = value

    setattr(owner, name, property(read, write))
    try:
        yield
    finally:
        if slot:
            setattr(owner, name, slot)
        else:
            delattr(owner, name)


def _seconds(work: Callable[[], None]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


WORKLOAD = Workload(
    name="telemetry",
    clock="looks whether anybody listens, a message, times what one look costs",
    metrics=(COST, LOOKS),
    cases=(Case("actorbus", cost_of_silence, _N),),
    baseline="actorbus",
    goals=(Goal("actorbus", COST, must=everywhere(50), at_most=True),),
)
