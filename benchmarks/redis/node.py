"""The consumer that is a node of ours: ``python -m benchmarks.redis.node ROLE AGENTS [FIRST]``."""

from __future__ import annotations

import os
import sys
from typing import Final

from actorbus import Node
from benchmarks.redis.agents import Echo, Idle, Listener, Worker, marks, name_of, pubsub
from benchmarks.redis.lab import URL

ROLES: Final = {"work": Worker, "echo": Echo, "listen": Listener, "hear": Listener, "idle": Idle}


def main(role: str, agents: str, first: str = "0") -> None:
    with Node(_url(role), name=f"{role}-{os.getpid()}") as node:
        for number in range(int(first), int(first) + int(agents)):
            node.spawn(ROLES[role], name=name_of(number))
        marks().ready()
        node.wait()


def stand_by(_role: str, _agents: str) -> None:
    """Know how to run idle agents, and run one of them, which makes the first mark."""
    with Node(os.environ[URL], name="stand-by") as node:
        node.spawn(Idle, name="stand-by")
        marks().ready()
        node.wait()


def _url(role: str) -> str:
    """Live events go over plain pub/sub."""
    url = os.environ[URL]
    return pubsub(url) if role == "hear" else url


if __name__ == "__main__":
    (stand_by if sys.argv[1] == "stand-by" else main)(*sys.argv[1:])
