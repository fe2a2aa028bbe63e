"""The agents of consumers that are nodes of ours."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from actorbus import Agent, handles
from benchmarks.redis.marks import Marks

TOPIC: Final = "bench.prices"


@cache
def marks() -> Marks:
    """This process's. An agent that may run elsewhere cannot be given them."""
    return Marks.from_environment()


class Worker(Agent):
    def __init__(self) -> None:
        self._handled = marks().handled

    @handles
    def work(self, order: dict[str, Any]) -> None:
        self._handled()


class Echo(Agent):
    @handles
    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return request


class Listener(Worker):
    subscriptions = (TOPIC,)


class Idle(Agent):
    """Does nothing, and runs elsewhere if its node dies."""

    failover = True

    def on_start(self) -> None:
        marks().handled()

    @handles
    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return request


def name_of(number: int) -> str:
    return f"agent-{number}"


def pubsub(url: str) -> str:
    """The same server's, as the bus that is at most once."""
    return url.replace("://", "+pubsub://", 1)
