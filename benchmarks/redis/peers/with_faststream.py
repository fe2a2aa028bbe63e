"""FastStream: a stream with a consumer group, 100 read at a time; the sender pipelines 100."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from functools import cache
from importlib import import_module
from typing import Any, Final

from benchmarks.redis.lab import URL
from benchmarks.redis.marks import Marks
from benchmarks.redis.payloads import payload

WORKER: Final = ("benchmarks.redis.peers.with_faststream",)
_TOGETHER: Final = 100
SAYS_WHEN_READY: Final = True
"""Its group reads what is sent after it has come."""

_redis: Any = import_module("faststream.redis")
_Pipeline: Any = import_module("redis.asyncio.client").Pipeline
broker: Any = _redis.RedisBroker(os.environ[URL], logger=None)

_marks = cache(Marks.from_environment)
_loop = cache(asyncio.new_event_loop)


async def work(_order: dict[str, Any]) -> None:
    _marks().handled()


async def answer(request: dict[str, Any]) -> dict[str, Any]:
    _marks().handled()
    return request


def send(start: int, stop: int) -> None:
    _loop().run_until_complete(_send(start, stop))


def ask(outstanding: int, n: int) -> list[float]:
    """How long each of n asks took, so many of them at a time."""
    return _loop().run_until_complete(_ask(outstanding, n))


async def _send(start: int, stop: int) -> None:
    await broker.connect()
    for first in range(start, stop, _TOGETHER):
        async with broker._connection.pipeline(transaction=False) as pipe:
            for number in range(first, min(first + _TOGETHER, stop)):
                await broker.publish(payload(number), stream="work", pipeline=pipe)
            await pipe.execute()


async def _ask(outstanding: int, n: int) -> list[float]:
    await broker.connect()
    trips: list[float] = []
    left = iter(range(n))

    async def one_by_one() -> None:
        for number in left:
            asked = time.perf_counter()
            await broker.request(payload(number), list="echo", timeout=30)
            trips.append(time.perf_counter() - asked)

    await asyncio.gather(*(one_by_one() for _ in range(outstanding)))
    return trips


def main() -> None:
    stream = _redis.StreamSub("work", group="workers", consumer="one", max_records=_TOGETHER)
    broker.subscriber(stream=stream)(work)
    broker.subscriber(list="echo")(answer)
    app = import_module("faststream").FastStream(broker, logger=None)
    app.after_startup(_marks().ready)
    asyncio.run(app.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
