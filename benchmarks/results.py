"""What the measurements say: medians, and whether a goal was reached. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.harness import Measurement
    from benchmarks.workload import Cores, Goal, Workload


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one metric of one case."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Key:
    """Whose figures: the parts of the name of a summary."""

    workload: str
    case: str
    cores: Cores
    metric: str


Summaries = dict[Key, Summary]


class Verdict(StrEnum):
    NOT_MEASURED = "not measured"
    NOT_MET = "NOT MET"
    AIM_MISSED = "aim missed"
    MUST_MET = "met"
    AIM_MET = "aim met"


@dataclass(frozen=True, slots=True)
class Judged:
    """How a goal stands on one kind of cores."""

    workload: Workload
    goal: Goal
    cores: Cores
    figure: float | None
    verdict: Verdict


def summarize(measurements: Iterable[Measurement]) -> Summaries:
    figures: dict[Key, list[float]] = defaultdict(list)
    for measurement in measurements:
        job = measurement.job
        for metric, figure in (measurement.sample or {}).items():
            figures[Key(job.workload, job.case, job.cores, metric)].append(figure)
    return {
        key: Summary(median(values), min(values), max(values), len(values))
        for key, values in figures.items()
    }


def judge(
    workloads: Sequence[Workload], measurements: Sequence[Measurement], kinds: Sequence[Cores]
) -> list[Judged]:
    """Every goal whose case was tried, on every kind of cores for which it names a bound."""
    summaries = summarize(measurements)
    tried = {(one.job.workload, one.job.case) for one in measurements}
    return [
        _judge(workload, goal, cores, summaries)
        for workload in workloads
        for goal in workload.goals
        for cores in kinds
        if (workload.name, goal.case) in tried and goal.names_a_bound(cores)
    ]


def _judge(
    workload: Workload, goal: Goal, cores: Cores, summaries: Mapping[Key, Summary]
) -> Judged:
    figure = _figure(workload, goal, cores, summaries)
    return Judged(workload, goal, cores, figure, _verdict(goal, cores, figure))


def _figure(
    workload: Workload, goal: Goal, cores: Cores, summaries: Mapping[Key, Summary]
) -> float | None:
    def of(case: str) -> float | None:
        summary = summaries.get(Key(workload.name, case, cores, goal.metric.name))
        return None if summary is None else summary.median

    ours = of(goal.case)
    other = goal.over or goal.minus
    if ours is None or other is None:
        return ours
    theirs = of(other)
    if theirs is None:
        return None
    return ours / theirs if goal.over else ours - theirs


def _verdict(goal: Goal, cores: Cores, figure: float | None) -> Verdict:
    if figure is None:
        return Verdict.NOT_MEASURED
    must, aim = goal.must.on(cores), goal.aim.on(cores)
    if must is not None and not goal.reached(figure, must):
        return Verdict.NOT_MET
    if aim is not None and goal.reached(figure, aim):
        return Verdict.AIM_MET
    return Verdict.AIM_MISSED if must is None else Verdict.MUST_MET
