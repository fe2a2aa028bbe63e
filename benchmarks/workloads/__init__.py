"""One file a workload, each with its plain baselines. The order here is that of the tables.

The parent process imports them all to know their cases, and a child runs one case; so a case
imports what it measures when it runs, and a baseline's process never holds our code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.workload import Workload

REDIS: Final = (
    "redis_durable",
    "redis_durable_aof",
    "redis_ask",
    "redis_ask_64",
    "redis_pubsub",
    "redis_topic",
    "redis_topic_1000",
    "redis_idle",
    "redis_takeover",
)
"""Those that need a Redis, and are measured only if one asks for them."""

NAMES: Final = (
    "tell",
    "fan_in",
    "ask",
    "await_ask",
    "broadcast",
    "ring",
    "priority_mix",
    "spawn",
    "audit",
    "telemetry",
    "import_time",
    *REDIS,
)


def load(name: str) -> Workload:
    """The workload of that name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    workload: Workload = import_module(f"{__name__}.{name}").WORKLOAD
    return workload
