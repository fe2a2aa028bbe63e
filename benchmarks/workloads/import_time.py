"""import: what ``import actorbus`` costs, and that it leaves the slow libraries alone."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from statistics import median
from typing import Final

from benchmarks.receivers import WAIT
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

TIME = Metric("time", "ms")

_INTERPRETERS = 5
_AT_FIRST_USE: Final = (
    "redis",
    "sqlalchemy",
    "rich",
    "typer",
    "anthropic",
    "openai",
    "structlog",
    "prometheus_client",
)

_PROGRAM: Final = """
import sys, time
start = time.perf_counter()
import {modules}
print((time.perf_counter() - start) * 1e3)
print(*sorted(set({unwanted}) & set(sys.modules)))
"""


def import_into_a_bare_interpreter(
    modules: str, n: int, *, unwanted: tuple[str, ...] = ()
) -> Sample:
    """The median of `n` interpreters that imported nothing before.

    Raises:
        AssertionError: one of the `unwanted` modules came along.
    """
    program = _PROGRAM.format(modules=modules, unwanted=unwanted)
    times = []
    for _ in range(n):
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=True,
        )
        milliseconds, came_along = done.stdout.split("\n", 2)[:2]
        assert not came_along, f"import {modules} also imports {came_along}"
        times.append(float(milliseconds))
    return {TIME.name: median(times)}


WORKLOAD = Workload(
    name="import_time",
    clock="the import statement alone, in an interpreter that has imported nothing else",
    metrics=(TIME,),
    cases=(
        Case(
            "pydantic, pykka",
            partial(import_into_a_bare_interpreter, "pydantic, pykka"),
            _INTERPRETERS,
            quick_n=1,
        ),
        Case(
            "actorbus",
            partial(import_into_a_bare_interpreter, "actorbus", unwanted=_AT_FIRST_USE),
            _INTERPRETERS,
            quick_n=1,
        ),
    ),
    baseline="pydantic, pykka",
    goals=(Goal("actorbus", TIME, must=everywhere(2.5), over="pydantic, pykka", at_most=True),),
)
