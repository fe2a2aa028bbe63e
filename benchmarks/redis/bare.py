"""The consumers that are redis-py and no more: ``python -m benchmarks.redis.bare ROLE``."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Final

from benchmarks.redis.lab import URL
from benchmarks.redis.marks import Marks

STREAM: Final = "stream"
REQUESTS: Final = "requests"
REPLIES: Final = "replies"
CHANNEL: Final = "channel"
TOGETHER: Final = 500
"""Messages in one round trip: as many as an outbox of ours sends at once."""
_GROUP: Final = "workers"
_BLOCK: Final = 1_000


def work(client: Any, marks: Marks, _count: int) -> None:
    """Read a stream as a group, handle each message with a call, acknowledge them together."""
    client.xgroup_create(STREAM, _GROUP, "$", mkstream=True)
    marks.ready()
    while True:
        found = client.xreadgroup(_GROUP, "one", {STREAM: ">"}, count=TOGETHER, block=_BLOCK)
        for _, entries in found or ():
            for _id, _fields in entries:
                marks.handled()
            client.xack(STREAM, _GROUP, *(entry for entry, _ in entries))


def echo(client: Any, marks: Marks, _count: int) -> None:
    """Answer requests, all that wait at a time: the answers and the next wait are one write."""
    marks.ready()
    answers: list[bytes] = []
    while True:
        with client.pipeline(transaction=False) as pipe:
            if answers:
                pipe.rpush(REPLIES, *answers)
            pipe.blpop(REQUESTS, 1)
            pipe.lpop(REQUESTS, TOGETHER)
            *_, first, more = pipe.execute()
        answers = ([first[1]] if first else []) + (more or [])


def listen(_client: Any, marks: Marks, subscribers: int) -> None:
    """As many connections as subscribers, in one process."""
    from redis.asyncio import Redis

    async def hear(client: Any, up: asyncio.Semaphore) -> None:
        channel = client.pubsub()
        await channel.subscribe(CHANNEL)
        up.release()
        async for message in channel.listen():
            if message["type"] == "message":
                marks.handled()

    async def hear_all() -> None:
        client: Any = Redis.from_url(os.environ[URL])
        up = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for _ in range(subscribers):
                group.create_task(hear(client, up))
            for _ in range(subscribers):
                await up.acquire()
            marks.ready()

    asyncio.run(hear_all())


def hand_out(client: Any, marks: Marks, subscribers: int) -> None:
    """One connection, whose messages are handed to each subscriber in memory."""
    channel = client.pubsub()
    channel.subscribe(CHANNEL)
    for message in channel.listen():
        if message["type"] == "subscribe":
            marks.ready()
            continue
        for _ in range(subscribers):
            marks.handled()


def read_log(client: Any, marks: Marks, subscribers: int) -> None:
    """A stream read once, and handed to each subscriber in memory."""
    client.xadd(STREAM, {"b": b""})
    last: Any = client.xinfo_stream(STREAM)["last-generated-id"]
    marks.ready()
    while True:
        for _, entries in client.xread({STREAM: last}, count=TOGETHER, block=_BLOCK) or ():
            last = entries[-1][0]
            for _ in range(len(entries) * subscribers):
                marks.handled()


def main(role: str, count: str = "1") -> None:
    from redis import Redis

    roles = {
        "work": work,
        "echo": echo,
        "listen": listen,
        "hand-out": hand_out,
        "read-log": read_log,
    }
    client: Any = Redis.from_url(os.environ[URL])
    roles[role](client, Marks.from_environment(), int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
