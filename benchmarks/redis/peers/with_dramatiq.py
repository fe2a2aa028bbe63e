"""dramatiq: one worker process with one thread (8, its default, are slower here)."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any, Final

from benchmarks.redis.lab import URL
from benchmarks.redis.marks import Marks
from benchmarks.redis.payloads import payload

WORKER: Final = (
    "dramatiq", "benchmarks.redis.peers.with_dramatiq", "--processes", "1", "--threads", "1",
)  # fmt: skip
os.environ.setdefault("dramatiq_queue_prefetch", "1000")

_dramatiq: Any = import_module("dramatiq")
_broker: Any = import_module("dramatiq.brokers.redis").RedisBroker(url=os.environ[URL])
_dramatiq.set_broker(_broker)

_marks = cache(Marks.from_environment)


def handle(_order: dict[str, Any]) -> None:
    _marks().handled()


work: Any = _dramatiq.actor(handle, max_retries=0)


def send(start: int, stop: int) -> None:
    for number in range(start, stop):
        work.send(payload(number))
