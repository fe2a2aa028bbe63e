"""Celery: late acknowledgement, no results, one process that handles in turn."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any, Final

from benchmarks.redis.lab import URL
from benchmarks.redis.marks import Marks
from benchmarks.redis.payloads import payload

WORKER: Final = (
    "celery", "-A", "benchmarks.redis.peers.with_celery", "worker", "--pool", "solo",
    "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "error",
)  # fmt: skip

app: Any = import_module("celery").Celery(
    "bench", broker=os.environ[URL].replace("unix://", "redis+socket://")
)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=0,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)

_marks = cache(Marks.from_environment)


def handle(_order: dict[str, Any]) -> None:
    _marks().handled()


work: Any = app.task(handle, name="work")


def send(start: int, stop: int) -> None:
    for number in range(start, stop):
        work.delay(payload(number))
