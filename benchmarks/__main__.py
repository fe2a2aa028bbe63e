"""``python -m benchmarks``: measure, and print tables. Progress goes to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import machine, report, workloads
from benchmarks.harness import Job, Measurement, kinds_of_cores, measure, plan
from benchmarks.redis.server import GIVEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Workload

_REPEATS: Final = 3
_WIDTH_OF_A_FILE: Final = 110
_INTERRUPTED: Final = 130
_ALL_ON_REDIS: Final = "redis"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all was measured, 1 a measurement failed, 130 interrupted."""
    options = _parser().parse_args(arguments)
    if options.redis:
        os.environ[GIVEN] = options.redis
    chosen = [workloads.load(name) for name in _names(options.names)]
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
    for line in _left_out(chosen):
        print(line, file=sys.stderr)
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
        help="what to measure, all that need no Redis if not said; redis: all that do:"
        f" {', '.join(workloads.NAMES)}",
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, once; < 60 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="an empty database of a Redis to measure on, else one is started; it is emptied",
    )
    parser.add_argument("--one-core", action="store_true", help="leave out the free cores")
    parser.add_argument("--repeats", type=_positive, metavar="N", help=f"default {_REPEATS}")
    return parser


def _names(given: Sequence[str]) -> list[str]:
    if not given:
        return [name for name in workloads.NAMES if name not in workloads.REDIS]
    found = [
        name for one in given for name in (workloads.REDIS if one == _ALL_ON_REDIS else (one,))
    ]
    return list(dict.fromkeys(found))


def _left_out(chosen: Sequence[Workload]) -> list[str]:
    missing = {case.name for one in chosen for case in one.cases if not case.can_run()}
    return [
        f"left out: {name} is not installed; pip install -e '.[bench-peers]' brings it"
        for name in sorted(missing)
    ]


def _workload(name: str) -> str:
    if name == _ALL_ON_REDIS or name in workloads.NAMES:
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
