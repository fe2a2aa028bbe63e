"""Senders that wait for room: none is forgotten, whatever others do that waited too."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from actorbus import Agent, MailboxFull, MailboxPolicy, handles
from actorbus.bus.mailbox import Mailbox
from actorbus.testing.transport_contract import Receiver, run_in_threads, tell
from tests.waiting import until

if TYPE_CHECKING:
    from actorbus import Node, Ref

SOON: Final = 10.0


class Stuck(Agent):
    """Has room for one, and handles it when the test says so."""

    mailbox = MailboxPolicy(capacity=1)

    def __init__(self, begun: threading.Event, go_on: threading.Event) -> None:
        self.begun = begun
        self.go_on = go_on
        self.handled: list[int] = []

    @handles
    def work(self, number: int) -> list[int]:
        self.begun.set()
        assert self.go_on.wait(SOON)
        self.handled.append(number)
        return self.handled


def full_agent(node: Node, go_on: threading.Event) -> Ref:
    """An agent with a message in hand and a mailbox that is full."""
    begun = threading.Event()
    ref = node.spawn(Stuck, begun, go_on)
    ref.tell(1)
    assert begun.wait(SOON)
    ref.tell(2)
    return ref


def mailbox_of(ref: Ref) -> Mailbox:
    mailbox = ref._inbox
    assert isinstance(mailbox, Mailbox)
    return mailbox


def test_a_mailbox_that_runs_empty_calls_everybody_who_waits() -> None:
    called: list[str] = []
    receiver = Receiver("counter", MailboxPolicy(capacity=1))
    mailbox = receiver.mailbox
    mailbox.offer(tell("counter", 1))
    assert mailbox.when_room(lambda: called.append("has given up"))
    assert mailbox.when_room(lambda: called.append("waits"))

    assert receiver.pop() is not None
    assert receiver.pop() is None

    assert called == ["has given up", "waits"]


def test_a_sender_gets_its_turn_though_one_before_it_gave_up(node: Node) -> None:
    go_on = threading.Event()
    ref = full_agent(node, go_on)
    with pytest.raises(MailboxFull, match="time to send was up"):
        ref.tell(3, ttl=0.01)
    sender = threading.Thread(target=ref.tell, args=(4,))
    sender.start()
    until(lambda: mailbox_of(ref)._waiters is not None)

    go_on.set()
    sender.join(SOON)

    assert not sender.is_alive()
    assert ref.ask(5).get(SOON) == [1, 2, 4, 5]


def test_a_sender_that_gave_up_leaves_nothing_behind(node: Node) -> None:
    go_on = threading.Event()
    ref = full_agent(node, go_on)

    for _ in range(3):
        with pytest.raises(MailboxFull, match="time to send was up"):
            ref.tell(3, ttl=0.01)

    assert not mailbox_of(ref)._waiters
    go_on.set()


def test_a_loop_that_closed_while_it_waited_for_room_hurts_nobody(node: Node) -> None:
    go_on = threading.Event()
    ref = full_agent(node, go_on)

    async def wait_a_moment() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref.room(), 0.01)

    asyncio.run(wait_a_moment())
    assert not mailbox_of(ref)._waiters
    go_on.set()

    assert ref.ask(3).get(SOON) == [1, 2, 3]


@pytest.mark.parametrize("capacity", [1, 2, 7])
def test_more_senders_than_there_is_room_for_all_get_through(node: Node, capacity: int) -> None:
    handled: list[int] = []

    class Small(Agent):
        mailbox = MailboxPolicy(capacity=capacity)

        @handles
        def work(self, number: int) -> None:
            handled.append(number)

    ref = node.spawn(Small)

    def send(first: int) -> None:
        for number in range(first, first + 100):
            ref.tell(number)

    run_in_threads(*(partial(send, first) for first in range(0, 800, 100)))
    node.drain(SOON)

    assert sorted(handled) == list(range(800))


class EmptiedAfterALook(Mailbox):
    """Is emptied by its consumer just after a sender has looked how full it is."""

    emptied: threading.Event
    watched = False

    def __len__(self) -> int:
        waiting = super().__len__()
        if self.watched:
            self.watched = False
            threading.Thread(target=self._consume).start()
            # Either it empties the mailbox now, or it waits for the lock of whoever looks.
            self.emptied.wait(0.2)
        return waiting

    def _consume(self) -> None:
        run, count = self.run(100)
        for _ in range(count):
            run.popleft()
            self.taken += 1
        self.ran(count)
        self.emptied.set()
        self.run(100)


def test_a_sender_that_looked_just_before_the_mailbox_was_emptied_is_called() -> None:
    called = threading.Event()
    mailbox = EmptiedAfterALook("inbox", MailboxPolicy(capacity=2), None, lambda _: None)
    mailbox.emptied = threading.Event()
    for number in range(2):
        assert mailbox.offer(tell("inbox", number)) is None

    mailbox.watched = True
    waits = mailbox.when_room(called.set)

    assert not waits or called.wait(SOON)
