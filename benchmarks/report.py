"""The results as people read them."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from benchmarks.results import Key, Verdict, judge, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType

    from benchmarks.harness import Measurement
    from benchmarks.machine import Machine
    from benchmarks.results import Judged, Summaries, Summary
    from benchmarks.workload import Cores, Goal, Metric, Workload

_STYLES: Final = {
    Verdict.AIM_MET: "green",
    Verdict.MUST_MET: "green",
    Verdict.AIM_MISSED: "yellow",
    Verdict.NOT_MET: "bold red",
    Verdict.NOT_MEASURED: "dim",
}
_SMALLEST_RATIO: Final = 0.01
_LOUD: Final = 0.3
"""Cores of other work above which a measurement is named as disturbed."""


def show(
    console: Console,
    machine: Machine,
    workloads: Sequence[Workload],
    measurements: Sequence[Measurement],
    kinds: Sequence[Cores],
) -> None:
    """Print everything: the machine, a table a metric, the goals, what failed or disturbed."""
    summaries = summarize(measurements)
    console.print(_machine_line(machine))
    for workload in workloads:
        console.print(f"\n[bold]{workload.name}[/]: {workload.clock}", highlight=False)
        for metric in workload.metrics:
            table = _table(workload, metric, summaries, kinds)
            if table.row_count:
                console.print(table)
    judged = judge(workloads, measurements, kinds)
    if judged:
        console.print(_goals(judged))
    for line in _remarks(measurements):
        console.print(line)


def as_json(
    machine: Machine,
    workloads: Sequence[Workload],
    measurements: Sequence[Measurement],
    kinds: Sequence[Cores],
) -> dict[str, Any]:
    """Every raw measurement, and how the goals stand."""
    return {
        "machine": machine,
        "measurements": [asdict(measurement) for measurement in measurements],
        "goals": [
            {
                "workload": one.workload.name,
                "case": one.goal.case,
                "figure": figure_name(one.goal),
                "cores": one.cores,
                "value": one.figure,
                "must": one.goal.must.on(one.cores),
                "aim": one.goal.aim.on(one.cores),
                "verdict": one.verdict,
            }
            for one in judge(workloads, measurements, kinds)
        ],
    }


def short(figure: float) -> str:
    """Three digits and a letter: 1.23M, 99.1k, 0.45."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(figure) >= size * 0.9995:
            return f"{_three_digits(figure / size)}{letter}"
    return _three_digits(figure)


def figure_name(goal: Goal) -> str:
    """What figure a goal is about: a ratio, a difference, or the metric itself."""
    if goal.over:
        return f"{goal.metric.name} / {goal.over}"
    if goal.minus:
        return f"{goal.metric.unit} more than {goal.minus}"
    return goal.metric.unit


def _three_digits(figure: float) -> str:
    size = abs(figure)
    if size >= 9.995:
        return f"{figure:.{0 if size >= 99.95 else 1}f}"
    return f"{figure:.2f}" if size >= 0.0995 or not size else f"{figure:.2g}"


def _machine_line(machine: Machine) -> Text:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return Text(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']},"
        f" load before {machine['load_before']:.2f}; {packages}",
        style="dim",
    )


def _plain_table(title: str) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="italic",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        show_edge=False,
        pad_edge=False,
    )


def _table(
    workload: Workload, metric: Metric, summaries: Summaries, kinds: Sequence[Cores]
) -> Table:
    table = _plain_table(f"{metric.name}, {metric.unit}")
    table.add_column("", no_wrap=True)
    for cores in kinds:
        table.add_column(cores, justify="right", no_wrap=True)
        table.add_column("min..max", justify="right", no_wrap=True, style="dim")
        table.add_column("ratio", justify="right", no_wrap=True)
    for case in workload.cases:
        cells = list(_cells(workload, case.name, metric, summaries, kinds))
        if any(cells):
            ours = case.name.startswith("actorbus")
            table.add_row(case.name, *cells, style="bold" if ours else None)
    return table


def _cells(
    workload: Workload, case: str, metric: Metric, summaries: Summaries, kinds: Sequence[Cores]
) -> Iterator[RenderableType]:
    for cores in kinds:
        figure = summaries.get(Key(workload.name, case, cores, metric.name))
        base = summaries.get(Key(workload.name, workload.baseline, cores, metric.name))
        if figure is None:
            yield from ("", "", "")
        else:
            yield short(figure.median)
            yield f"{short(figure.low)}..{short(figure.high)}" if figure.count > 1 else ""
            yield _ratio(figure, base)


def _ratio(figure: Summary, base: Summary | None) -> str:
    if base is None or not base.median:
        return ""
    ratio = figure.median / base.median
    return f"{short(ratio)}x" if ratio >= _SMALLEST_RATIO else f"<{_SMALLEST_RATIO}x"


def _goals(judged: Sequence[Judged]) -> Table:
    table = _plain_table("goals")
    table.add_column("workload", no_wrap=True)
    table.add_column("figure", overflow="fold")
    table.add_column("on", no_wrap=True)
    for name in ("is", "must", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in judged:
        table.add_row(
            one.workload.name,
            figure_name(one.goal),
            one.cores,
            "" if one.figure is None else short(one.figure),
            _bound(one.goal, one.goal.must.on(one.cores)),
            _bound(one.goal, one.goal.aim.on(one.cores)),
            Text(one.verdict, style=_STYLES[one.verdict]),
        )
    return table


def _bound(goal: Goal, bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{'<=' if goal.at_most else '>='} {short(bound)}"


def _remarks(measurements: Sequence[Measurement]) -> Iterator[Text]:
    failed: dict[str, list[str]] = {}
    for one in measurements:
        if one.error is not None:
            cases = failed.setdefault(one.error.splitlines()[-1], [])
            if (case := f"{one.job.workload} {one.job.case}") not in cases:
                cases.append(case)
    for error, cases in failed.items():
        yield Text(f"\nNot measured: {'; '.join(cases)}\n{error}", style="red")
    others = [one.other_work for one in measurements if one.other_work is not None]
    if others:
        loud = sum(cores > _LOUD for cores in others)
        yield Text(
            f"\nOther work on the machine: {median(others):.2f} cores in the median,"
            f" {max(others):.2f} at worst, above {_LOUD} in {loud} of {len(others)} measurements.",
            style="yellow" if loud else "dim",
        )
