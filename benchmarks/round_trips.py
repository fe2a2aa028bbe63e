"""Round trips one after the other: how many a second, and how long the slow ones take."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.receivers import payload
from benchmarks.workload import Metric, Sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.receivers import Payload

RATE: Final = Metric("rate", "round trips/s")
MEDIAN: Final = Metric("p50", "us")
SLOW: Final = Metric("p99", "us")
METRICS: Final = (RATE, MEDIAN, SLOW)


def percentile(figures: Sequence[float], share: float) -> float:
    """The figure below which `share` of them lie (nearest rank)."""
    ordered = sorted(figures)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def time_asks(ask: Callable[[Payload], object], n: int) -> Sample:
    """Ask `n` times, each answered before the next is sent."""
    trips = []
    start = perf_counter()
    for number in range(n):
        asked = perf_counter()
        ask(payload(number))
        trips.append(perf_counter() - asked)
    return _sample(trips, perf_counter() - start)


async def time_awaits(ask: Callable[[Payload], Awaitable[object]], n: int) -> Sample:
    """The same, awaited."""
    trips = []
    start = perf_counter()
    for number in range(n):
        asked = perf_counter()
        await ask(payload(number))
        trips.append(perf_counter() - asked)
    return _sample(trips, perf_counter() - start)


def _sample(trips: Sequence[float], seconds: float) -> Sample:
    return {
        RATE.name: len(trips) / seconds,
        MEDIAN.name: percentile(trips, 0.50) * 1e6,
        SLOW.name: percentile(trips, 0.99) * 1e6,
    }
