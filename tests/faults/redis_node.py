"""A node as a process: it owns agents, takes over others', and writes down what it runs.

Each line in its ledger is one run of one message, written before it is acknowledged. SIGTERM
has it finish what is in hand and give everything up.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING

from actorbus.bus.transports.redis.consumer import Consumer
from actorbus.bus.transports.redis.keeper import Keeper
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.transports.redis.log import Item, Ownership


class Agent:
    """Hands its messages to the node's one worker thread."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name
        self.mine = True

    def take(self, items: Sequence[Item], now: int) -> None:
        for item in items:
            self._node.work.put((self, item))

    def lost(self) -> None:
        self.mine = False


class Node:
    def __init__(self, url: str, name: str, ledger: str, ttl: float, *, bells: bool) -> None:
        self.server = RedisServer(url)
        self.log = InboxLog(self.server)
        self.consumer = Consumer(self.log, self.server, name, bells=bells)
        self.keeper = Keeper(
            self.log, name, ttl=ttl, wants=lambda names: [] if self.leaving else names, adopt=self.adopt
        )
        self.work: queue.SimpleQueue[tuple[Agent, Item] | None] = queue.SimpleQueue()
        self.agents: dict[str, Agent] = {}
        self.leaving = False
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def adopt(self, ownership: Ownership) -> None:
        agent = self.agents[ownership.agent] = Agent(self, ownership.agent)
        self.consumer.read(ownership, agent)

    def run(self) -> None:
        while (found := self.work.get()) is not None:
            agent, item = found
            if not agent.mine:
                continue
            os.write(self._ledger, f"{agent.name} {item.blob.decode()}\n".encode())
            if item.blob.startswith(b"poison"):
                os.kill(os.getpid(), signal.SIGKILL)
            self.consumer.done(agent.name, item.id)

    def leave(self, timeout: float) -> None:
        """Give every agent up, so that others begin after what was done here."""
        self.leaving = True
        self.log.release_many(self.consumer.give_up(list(self.agents), timeout))
        self.consumer.close(5.0)
        self.keeper.close()


def main(url: str, name: str, ledger: str, ttl: str, agents: str, bells: str) -> None:
    node = Node(url, name, ledger, float(ttl), bells=bells == "1")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    node.keeper.start()
    node.consumer.start()
    worker = threading.Thread(target=node.run, daemon=True)
    worker.start()
    node.keeper.claim(one for one in agents.split(",") if one)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    stop.wait()
    node.leave(20.0)
    node.work.put(None)
    worker.join(10.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
