"""A node on Redis drains what is sent to its agents, wherever it lies."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

import pytest

from actorbus import Agent, Node, NotDrained, Supervision, handles
from actorbus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clerk(Agent):
    subscriptions = ("orders.*",)
    done: ClassVar[list[object]] = []
    held: ClassVar[threading.Event] = threading.Event()

    @handles
    def work(self, item: int) -> None:
        self.done.append(item)

    @handles
    def wait(self, why: str) -> None:
        self.held.wait(10.0)
        self.done.append(why)


class Parks(Agent):
    supervision = Supervision(on_failure="escalate")

    @handles
    def work(self, item: int) -> None:
        raise ValueError("no")


@pytest.fixture
def node(redis_url: str) -> Iterator[Node]:
    Clerk.done.clear()
    Clerk.held.clear()
    node = Node(redis_url, settings=Settings(namespace=uuid4().hex)).start()
    yield node
    Clerk.held.set()
    node.stop()


def test_messages_and_events_that_were_just_sent_are_handled_first(node: Node) -> None:
    clerk = node.spawn(Clerk)

    for number in range(200):
        clerk.tell(number)
    node.topic("orders.new").publish(200)
    node.drain(10.0)

    assert sorted(Clerk.done) == list(range(201))  # type: ignore[type-var]


def test_it_is_not_drained_while_messages_wait_in_redis(node: Node) -> None:
    clerk = node.spawn(Clerk)
    clerk.tell("slow")
    for number in range(100):
        clerk.tell(number)
    node.flush(10.0)

    with pytest.raises(NotDrained):
        node.drain(0.2)
    Clerk.held.set()
    node.drain(10.0)

    assert len(Clerk.done) == 101


def test_what_waits_for_a_parked_agent_holds_up_nobody(node: Node) -> None:
    parked = node.spawn(Parks)
    for number in range(100):
        parked.tell(number)
    node.flush(10.0)

    node.drain(10.0)

    assert [one.reason for one in node.dead_letters.list()] == ["handler-error"]
    with pytest.raises(Exception, match="parked"):
        parked.ask(1).get(10.0)


def test_what_waits_in_a_mailbox_that_nobody_empties_holds_up_nobody(node: Node) -> None:
    node.mailbox("box")
    node.tell("box", 1)

    node.drain(10.0)

    assert [message.payload for message in node.mailbox("box").take(1, 10.0)] == [1]
