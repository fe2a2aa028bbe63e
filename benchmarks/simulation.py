"""What queueing does to a Redis that is busy, and to agents that are chosen by load.

``python -m benchmarks.simulation`` prints both tables; the same seed gives the same figures.

A server is one queue with one thread: waits follow Lindley's recursion. Arrivals are Poisson.
"""

from __future__ import annotations

import argparse
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.round_trips import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ARRIVALS: Final = 200_000
_LOADS: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
_TASKS: Final = 100_000
_WORKERS: Final = 100
_BUSY: Final = 0.9


class Waits(NamedTuple):
    """In multiples of the mean service time."""

    mean: float
    p99: float


def waits(
    load: float, service: Callable[[random.Random], float], n: int = _ARRIVALS, *, seed: int = 1
) -> Waits:
    """How long arrivals wait at a server that is busy for the part `load` of the time.

    `service` draws service times with mean 1.
    """
    chance = random.Random(seed)
    waiting, found = 0.0, []
    for _ in range(n):
        found.append(waiting)
        waiting = max(0.0, waiting + service(chance) - chance.expovariate(load))
    return Waits(sum(found) / n, percentile(found, 0.99))


def queues(choices: int, *, refreshed: int, n: int = _TASKS, seed: int = 1) -> Waits:
    """What a task waits where it goes to the shortest of so many queues, drawn at random.

    `refreshed`: after how many tasks a sender learns the lengths anew; it counts its own since.
    0 chooses among all, 1 is chance.
    """
    chance = random.Random(seed)
    free_at = [0.0] * _WORKERS
    told = [0.0] * _WORKERS
    now, found = 0.0, []
    for number in range(n):
        now += chance.expovariate(_WORKERS * _BUSY)
        if number % refreshed == 0:
            told = [max(0.0, at - now) for at in free_at]
        drawn = chance.sample(range(_WORKERS), choices) if choices else range(_WORKERS)
        chosen = min(drawn, key=told.__getitem__)
        found.append(max(0.0, free_at[chosen] - now))
        free_at[chosen] = max(now, free_at[chosen]) + chance.expovariate(1.0)
        told[chosen] += 1.0
    return Waits(sum(found) / n, percentile(found, 0.99))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation")
    parser.add_argument(
        "--service",
        type=_microseconds,
        default=10.0,
        metavar="US",
        help="microseconds of Redis a message, as measured (default 10)",
    )
    service = parser.parse_args(arguments).service
    console = Console()
    console.print(_server(service))
    console.print(_choices())


def _microseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no time of a message; use 10 or so")
    return value


def _server(service: float) -> Table:
    table = Table("busy", "messages/s", "steady: mean", "p99", "uneven: mean", "p99", box=None)
    table.title = f"waiting at Redis, us, with {service:g} us a message"
    for load in _LOADS:
        figures = [figure * service for kind in (_steady, _uneven) for figure in waits(load, kind)]
        table.add_row(
            f"{load:.0%}", f"{load / service * 1e6:,.0f}", *(f"{one:,.0f}" for one in figures)
        )
    return table


def _steady(_chance: random.Random) -> float:
    return 1.0


def _uneven(chance: random.Random) -> float:
    """One call in 50 takes 20 times what the others do: a large batch, a takeover."""
    return (20.0 if chance.random() < 0.02 else 1.0) / 1.38


def _choices() -> Table:
    table = Table("chosen from", "figures are", "mean wait", "p99", box=None)
    table.title = f"{_WORKERS} agents, {_BUSY:.0%} busy; waits in mean times of a task"
    for choices, name in ((1, "one, by chance"), (2, "two"), (0, "all")):
        for refreshed, age in ((1, "fresh"), (_WORKERS * 10, "old")):
            wait = queues(choices, refreshed=refreshed)
            table.add_row(name, age, f"{wait.mean:.2f}", f"{wait.p99:.2f}")
    return table


if __name__ == "__main__":
    main()
