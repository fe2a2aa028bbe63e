"""The one harness: what to measure in which order, each in a fresh process of its own.

The repeats of a workload are interleaved, so that a slow minute of the machine hurts all cases
alike, and every second repeat runs backwards, so that none always follows the same neighbour.
A case warms up in its process before its clock starts; what is shown are medians.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.machine import OtherWork, available_cores
from benchmarks.workload import Cores, Sample, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEADLINE: Final = 120.0
"""Seconds after which a measurement is given up."""

_ROOT: Final = Path(__file__).resolve().parent.parent
_MOST_ERROR_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement to be made."""

    workload: str
    case: str
    cores: Cores
    repeat: int
    n: int
    warm_up: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement made: its sample, or why there is none.

    `seconds` is what the whole process took, `other_work` the cores that others kept busy
    meanwhile.
    """

    job: Job
    sample: Sample | None
    error: str | None
    seconds: float
    other_work: float | None


def kinds_of_cores(*, only_one: bool) -> tuple[Cores, ...]:
    """On what to measure: free cores and one, as far as this machine can."""
    if not available_cores():
        return (Cores.FREE,)
    return (Cores.ONE,) if only_one else (Cores.FREE, Cores.ONE)


def plan(
    workloads: Sequence[Workload], repeats: int, kinds: Sequence[Cores], *, quick: bool
) -> Iterator[Job]:
    """Every measurement, in the order in which to make them."""
    for workload in workloads:
        cases = [case for case in workload.cases if case.size(quick=quick) and case.can_run()]
        for repeat in range(repeats):
            for cores in (one for one in kinds if one in workload.kinds):
                for case in cases if repeat % 2 == 0 else reversed(cases):
                    n = case.size(quick=quick)
                    warm_up = max(1, int(n * case.warm_up)) if case.warm_up else 0
                    yield Job(workload.name, case.name, cores, repeat, n, warm_up)


def measure(job: Job) -> Measurement:
    """Make one measurement in a process of its own, which sees none of our settings."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("ACTORBUS_")
    }
    command = [sys.executable, "-m", "benchmarks.child", job.workload, job.case]
    command += [str(job.n), str(job.warm_up), job.cores]
    others, start = OtherWork(), time.perf_counter()
    sample, error = None, None
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, problems = process.communicate(timeout=DEADLINE)
        if process.returncode == 0:
            sample = json.loads(out.splitlines()[-1])
        else:
            error = _last_words(problems, process.returncode)
    except subprocess.TimeoutExpired:
        error = f"took longer than {DEADLINE:.0f} s"
    finally:
        _end_all(process)
    return Measurement(job, sample, error, time.perf_counter() - start, others.cores())


def _end_all(process: subprocess.Popen[str]) -> None:
    """The process, and what it has started: servers and workers would outlive it otherwise."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _last_words(problems: str, status: int) -> str:
    lines = problems.strip().splitlines()
    return "\n".join(lines[-_MOST_ERROR_LINES:]) or f"ended with status {status}"
