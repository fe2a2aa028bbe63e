"""What the figures were measured on, and what else ran meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypedDict

_PACKAGES: Final = ("actorbus", "pykka", "pydantic", "SQLAlchemy", "redis", "hiredis")


class Machine(TypedDict):
    cpu: str
    cores: int
    python: str
    kernel: str
    load_before: float
    packages: dict[str, str]
    started_at: str


def facts() -> Machine:
    """This machine now. ``load_before`` is the load average of the last minute."""
    return {
        "cpu": _cpu(),
        "cores": len(available_cores()) or os.cpu_count() or 1,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def available_cores() -> list[int]:
    """The cores this process may use; empty where the system cannot say or pin."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin_to_one_core() -> None:
    """Keep this process and what it starts on its first core, as ``taskset -c 0`` does."""
    os.sched_setaffinity(0, available_cores()[:1])


def resident_bytes() -> int | None:
    """The memory this process holds; None where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class OtherWork:
    """Cores that were busy with something else while children of ours ran.

    The kernel counts the whole machine's busy time and our children's; the rest is others'. So
    load that arrives in the middle of a measurement shows too.
    """

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._ours = _seconds_of_children()
        self._since = time.perf_counter()

    def cores(self) -> float | None:
        """Their average since the start; None where /proc does not tell."""
        if self._busy is None or (busy := _busy_seconds()) is None:
            return None
        others = (busy - self._busy) - (_seconds_of_children() - self._ours)
        return max(0.0, others / (time.perf_counter() - self._since))


def _busy_seconds() -> float | None:
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
