"""A process that sends, and writes down what was accepted."""

from __future__ import annotations

import os
import sys
import time
from uuid import uuid4

from actorbus.bus.transports.redis.lanes import Accepted, News, Parcel
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.redis_client import RedisServer


def main(url: str, name: str, ledger: str, count: str, agents: str) -> None:
    out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def told(news: News) -> None:
        if not isinstance(news, Accepted):
            raise SystemExit(f"refused: {news}")
        parcel = news.parcel
        os.write(out, f"{parcel.agent} {parcel.blob.decode()}\n".encode())

    outbox = Outbox(InboxLog(RedisServer(url)), f"{name}-{uuid4().hex}", told=told, limit=2_000)
    outbox.start()
    names = agents.split(",")
    for number in range(int(count)):
        agent = names[number % len(names)]
        parcel = Parcel(agent, 2, uuid4().bytes, f"{name} {number}".encode(), time.monotonic() + 60)
        while not outbox.put(parcel):
            time.sleep(0.001)
    left = outbox.flush(60.0)
    outbox.close(1.0)
    raise SystemExit(1 if left else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
