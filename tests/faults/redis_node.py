"""A node as a process: it runs workers, and takes over others'. SIGTERM has it hand them over."""

from __future__ import annotations

import sys
from pathlib import Path

from workers import (  # type: ignore[import-not-found]
    Follower,
    SlowFollower,
    SlowWorker,
    Worker,
)

from actorbus import Node
from actorbus.bus.transports.redis.doorbell import Doorbell
from actorbus.settings import Settings

CLASSES = {
    (False, False): Worker,
    (True, False): SlowWorker,
    (False, True): Follower,
    (True, True): SlowFollower,
}
"""Of agents by their names: whether slow, and whether followers."""


def main(url: str, name: str, ttl: str, agents: str, bells: str) -> None:
    if bells == "0":
        Doorbell._run = lambda self: None  # type: ignore[method-assign]
    seconds = float(ttl)
    settings = Settings(beat=seconds / 5, suspect_after=seconds / 2, dead_after=seconds)
    node = Node(url, name=name, settings=settings).start()
    node.load(Path(__file__).with_name("workers.py"))
    for agent in agents.split(","):
        if agent:
            slow, follows = agent.startswith("slow"), "follower" in agent
            node.spawn(CLASSES[slow, follows], name=agent)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    node.wait()
    node.stop(20.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
