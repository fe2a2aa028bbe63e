"""``python -m benchmarks``: measure, and print tables. Progress goes to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import machine, report, workloads
from benchmarks.harness import Job, Measurement, kinds_of_cores, measure, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPEATS: Final = 3
_WIDTH_OF_A_FILE: Final = 110
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all was measured, 1 a measurement failed, 130 interrupted."""
    options = _parser().parse_args(arguments)
    chosen = [workloads.load(name) for name in options.names or workloads.NAMES]
    kinds = kinds_of_cores(only_one=options.one_core)
    repeats = options.repeats or (1 if options.quick else _REPEATS)
    facts = machine.facts()

    jobs = list(plan(chosen, repeats, kinds, quick=options.quick))
    measurements: list[Measurement] = []
    interrupted = False
    try:
        _measure_all(jobs, measurements)
    except KeyboardInterrupt:
        interrupted = True

    out = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    report.show(out, facts, chosen, measurements, kinds)
    if options.json:
        raw = report.as_json(facts, chosen, measurements, kinds)
        options.json.write_text(json.dumps(raw, indent=1) + "\n")
    if interrupted:
        print(f"\ninterrupted after {len(measurements)} of {len(jobs)}", file=sys.stderr)
        return _INTERRUPTED
    return int(any(one.error is not None for one in measurements))


def _measure_all(jobs: Sequence[Job], measurements: list[Measurement]) -> None:
    """Make every measurement; the bar moves only between them, so as not to disturb any."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        bar = progress.add_task("", total=len(jobs))
        shown = None
        for job in jobs:
            progress.update(bar, description=f"{job.workload}, {job.case}, {job.cores}")
            progress.refresh()
            if job.workload != shown and not console.is_terminal:
                print(f"measuring {job.workload}", file=sys.stderr, flush=True)
                shown = job.workload
            measurements.append(measure(job))
            progress.advance(bar)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure actorbus beside plain baselines. docs/benchmarks.md says how.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        type=_workload,
        metavar="NAME",
        help=f"what to measure, all if not said: {', '.join(workloads.NAMES)}",
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, once; < 60 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--one-core", action="store_true", help="leave out the free cores")
    parser.add_argument("--repeats", type=_positive, metavar="N", help=f"default {_REPEATS}")
    return parser


def _workload(name: str) -> str:
    if name in workloads.NAMES:
        return name
    close = get_close_matches(name, workloads.NAMES, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(workloads.NAMES)}."
    raise argparse.ArgumentTypeError(f"no workload {name!r}. {hint}")


def _positive(text: str) -> int:
    if text.isdecimal() and (number := int(text)) > 0:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of repeats: give 1 or more")


if __name__ == "__main__":
    sys.exit(main())
