"""taskiq: a stream broker, one worker process; the sender has 50 sends under way.

Results are looked for each half millisecond (0.2 s, its default, would be the whole figure).
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache
from importlib import import_module
from typing import Any, Final

from benchmarks.redis.lab import URL
from benchmarks.redis.marks import Marks
from benchmarks.redis.payloads import payload

WORKER: Final = (
    "taskiq", "worker", "benchmarks.redis.peers.with_taskiq:broker", "--workers", "1",
    "--log-level", "ERROR",
)  # fmt: skip
_TOGETHER: Final = 50
_LOOK_EVERY: Final = 0.0005

_redis: Any = import_module("taskiq_redis")
_results: Any = _redis.RedisAsyncResultBackend(os.environ[URL])
broker: Any = _redis.RedisStreamBroker(os.environ[URL]).with_result_backend(_results)

_marks = cache(Marks.from_environment)


async def handle(_order: dict[str, Any]) -> None:
    _marks().handled()


async def answer(request: dict[str, Any]) -> dict[str, Any]:
    _marks().handled()
    return request


work: Any = broker.task(task_name="work")(handle)
echo: Any = broker.task(task_name="echo")(answer)
_loop = cache(asyncio.new_event_loop)


def send(start: int, stop: int) -> None:
    _loop().run_until_complete(_send(start, stop))


def ask(outstanding: int, n: int) -> list[float]:
    """How long each of n asks took, so many of them at a time."""
    return _loop().run_until_complete(_ask(outstanding, n))


async def _send(start: int, stop: int) -> None:
    await _up()
    for first in range(start, stop, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, stop))
        await asyncio.gather(*(work.kiq(payload(number)) for number in numbers))


async def _ask(outstanding: int, n: int) -> list[float]:
    await _up()
    trips: list[float] = []
    left = iter(range(n))

    async def one_by_one() -> None:
        for number in left:
            asked = time.perf_counter()
            task = await echo.kiq(payload(number))
            await task.wait_result(check_interval=_LOOK_EVERY, timeout=30)
            trips.append(time.perf_counter() - asked)

    await asyncio.gather(*(one_by_one() for _ in range(outstanding)))
    return trips


@cache
def _started() -> asyncio.Task[None]:
    return asyncio.ensure_future(broker.startup())


async def _up() -> None:
    await _started()
