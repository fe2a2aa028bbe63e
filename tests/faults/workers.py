"""The agents of the fault tests: each run of a message is a line in a ledger."""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from pathlib import Path

from actorbus import Agent, MailboxPolicy, handles


class Worker(Agent):
    failover = True

    @handles
    def work(self, text: str) -> None:
        while _hold().exists():
            time.sleep(0.01)
        write_down(self.name, text)
        if text.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)


class SlowWorker(Worker):
    """One message a second, and room for few."""

    mailbox = MailboxPolicy(capacity=100)

    @handles
    def work(self, text: str) -> None:
        time.sleep(1.0)
        write_down(self.name, text)


class Follower(Agent):
    """Writes down what is published."""

    failover = True
    subscriptions = ("news",)

    @handles
    def hear(self, text: str) -> None:
        write_down(self.name, text)


class SlowFollower(Follower):
    """Half as quick as events come."""

    @handles
    def hear(self, text: str) -> None:
        time.sleep(0.004)
        write_down(self.name, text)


def write_down(agent: str, text: str) -> None:
    """Whose message that was, its number, and when; not what fills it up."""
    sender, number = text.split(" ")[:2]
    os.write(_ledger(), f"{agent} {sender} {number} {time.monotonic():.4f}\n".encode())


@cache
def _ledger() -> int:
    return os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@cache
def _hold() -> Path:
    return Path(os.environ["HOLD"])
