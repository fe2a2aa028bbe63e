"""What a workload is: cases measured side by side, and the goals they are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Final

Sample = Mapping[str, float]
"""What one measurement gave: a figure for each metric, by the metric's name."""

Run = Callable[[int], Sample]
"""Does the work with `n` messages (rows, agents) and takes its own time."""


class Cores(StrEnum):
    """What a measurement may run on. Which of the two decides more than most code does."""

    FREE = "free"
    ONE = "one core"


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must be on each kind of cores; None where the design does not say."""

    free: float | None = None
    one: float | None = None

    def on(self, cores: Cores) -> float | None:
        return self.free if cores is Cores.FREE else self.one


def everywhere(figure: float) -> Bound:
    """The same bound on free cores and on one."""
    return Bound(figure, figure)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    unit: str


RATE: Final = Metric("rate", "messages/s")


@dataclass(frozen=True, slots=True)
class Case:
    """One technique at work.

    `quick_n` is its size in a quick run, a quarter where not said, 0 to leave it out. `warm_up`
    is the share of the size that runs first in the same process and is thrown away; with 0 the
    case warms up by itself. `needs` is a module without which the case is left out.
    """

    name: str
    run: Run
    n: int
    quick_n: int | None = None
    warm_up: float = 0.1
    needs: str | None = None

    def size(self, *, quick: bool) -> int:
        if not quick:
            return self.n
        return self.n // 4 if self.quick_n is None else self.quick_n

    def can_run(self) -> bool:
        return self.needs is None or find_spec(self.needs) is not None


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that a case must reach, and one it aims for.

    The figure is the case's metric itself, its ratio to the case `over`, or its difference to
    the case `minus`.
    """

    case: str
    metric: Metric
    must: Bound = Bound()
    aim: Bound = Bound()
    over: str | None = None
    minus: str | None = None
    at_most: bool = False

    def names_a_bound(self, cores: Cores) -> bool:
        return self.must.on(cores) is not None or self.aim.on(cores) is not None

    def reached(self, figure: float, bound: float) -> bool:
        return figure <= bound if self.at_most else figure >= bound


@dataclass(frozen=True, slots=True)
class Workload:
    """Cases that do the same work; ratios in the table are to `baseline`, a case's name.

    `kinds` are those of cores that it makes sense on.
    """

    name: str
    clock: str
    metrics: Sequence[Metric]
    cases: Sequence[Case]
    baseline: str
    goals: Sequence[Goal] = ()
    kinds: Sequence[Cores] = tuple(Cores)

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)
