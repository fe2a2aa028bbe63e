"""Two nodes of one process, joined by pub/sub as processes would be."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus import Agent, AgentFailed, Message, Node, Reject, Rejected, UnknownRecipient, handles
from actorbus.bus.transports.pubsub import PubSubTransport
from actorbus.codec import Codec, TypeBook
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 10.0


class Worker(Agent):
    subscriptions = ("prices.*",)

    def __init__(self, heard: list[Any], more: threading.Semaphore) -> None:
        self.heard = heard
        self.more = more

    @handles
    def work(self, text: str) -> str:
        match text:
            case "fail":
                raise KeyError("no such page")
            case "refuse":
                raise Reject("not today")
        return text.upper()

    @handles
    def hear(self, message: Message[int]) -> None:
        self.heard.append((message.kind, message.payload))
        self.more.release()


@pytest.fixture
def join(redis_url: str) -> Iterator[Callable[[str], Node]]:
    """Starts nodes that are all in one namespace of their own."""
    server, namespace = RedisServer(redis_url), uuid4().hex
    with ExitStack() as stack:
        stack.callback(server.close)

        def join(name: str) -> Node:
            codec = Codec(TypeBook(), limit=1 << 20)
            transport = PubSubTransport(server, codec, namespace=namespace)
            stack.callback(transport.close)
            node = Node(transport, name=name)
            transport.join(node.bus)
            transport.start()
            return stack.enter_context(node)

        yield join


def test_an_agent_of_another_node_answers(join: Callable[[str], Node]) -> None:
    here, there = join("here"), join("there")
    there.spawn(Worker, [], threading.Semaphore(0), name="worker")
    there.bus.transport.flush(DEADLINE)

    assert here.ask("worker", "hello", timeout=DEADLINE).get() == "HELLO"


def test_its_errors_come_with_type_and_traceback(join: Callable[[str], Node]) -> None:
    here, there = join("here"), join("there")
    there.spawn(Worker, [], threading.Semaphore(0), name="worker")
    there.bus.transport.flush(DEADLINE)

    with pytest.raises(AgentFailed) as failed:
        here.ask("worker", "fail", timeout=DEADLINE).get()
    with pytest.raises(Rejected, match="not today"):
        here.ask("worker", "refuse", timeout=DEADLINE).get()

    assert failed.value.error_type == "KeyError"
    assert "no such page" in failed.value.traceback


def test_tells_broadcasts_and_events_cross_and_only_local_recipients_count(
    join: Callable[[str], Node],
) -> None:
    here, there = join("here"), join("there")
    heard: list[Any] = []
    more = threading.Semaphore(0)
    there.spawn(Worker, heard, more, name="worker")
    there.bus.transport.flush(DEADLINE)

    here.tell("worker", 1)
    assert more.acquire(timeout=DEADLINE)
    counts = [here.broadcast(2), here.topic("prices.eur").publish(3)]

    assert more.acquire(timeout=DEADLINE)
    assert more.acquire(timeout=DEADLINE)
    assert counts == [0, 0]
    assert heard == [("tell", 1), ("broadcast", 2), ("event", 3)]


def test_a_name_that_nobody_has_is_an_error_at_once(join: Callable[[str], Node]) -> None:
    here, there = join("here"), join("there")
    there.spawn(Worker, [], threading.Semaphore(0), name="worker")
    there.bus.transport.flush(DEADLINE)

    with pytest.raises(UnknownRecipient, match="worker"):
        here.tell("workr", 1)
