"""The mailbox between threads, step by step: each interleaving that once went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, handles
from actorbus.bus.mailbox import Mailbox, MailboxPolicy, Refusal
from actorbus.errors import NotStopped
from actorbus.message import Message, Priority
from actorbus.testing import TestNode
from actorbus.testing.transport_contract import tell

if TYPE_CHECKING:
    from actorbus.bus.mailbox import Overflow, Run


def mailbox_of(capacity: int, overflow: Overflow = "reject") -> Mailbox:
    return Mailbox("counter", MailboxPolicy(capacity, overflow), None, lambda _: None)


def test_a_sender_held_between_its_ticket_and_the_limit_does_not_get_past_the_bound() -> None:
    mailbox = mailbox_of(2)
    for number in range(2):
        assert mailbox.offer(tell("counter", number)) is None
    draw = mailbox._ticket

    def draw_and_be_held() -> int:
        mailbox._ticket = draw
        ticket = draw()
        for _ in range(3):
            assert mailbox.offer(tell("counter", "refused")) is Refusal.FULL
        return ticket

    mailbox._ticket = draw_and_be_held

    assert mailbox.put(tell("counter", "late"), Priority.NORMAL) is Refusal.FULL
    assert len(mailbox) == 2


def test_a_sender_held_before_its_message_is_in_is_not_overtaken_past_the_bound() -> None:
    mailbox = mailbox_of(1, "drop-oldest")
    draw = mailbox._ticket
    overtaking = tell("counter", "overtaking")
    answers = []

    def draw_and_be_held() -> int:
        mailbox._ticket = draw
        ticket = draw()
        answers.append(mailbox.offer(overtaking))
        return ticket

    mailbox._ticket = draw_and_be_held
    answers.append(mailbox.offer(tell("counter", "held")))

    assert answers == [overtaking, None]
    assert [message.payload for message in mailbox.waiting()] == ["held"]


class ClosesAsItIsTaken(Mailbox):
    """Closes when its consumer has just looked whether it may go on, and goes on to take."""

    left: list[Message[Any]] | None = None

    def run(self, limit: int) -> Run:
        run = super().run(limit)
        if run[1] > 0:
            self.left = self.close()
            self.interrupted = False
        return run


class Sync(Agent):
    def __init__(self, handled: list[int]) -> None:
        self.handled = handled

    @handles
    def take(self, number: int) -> None:
        self.handled.append(number)


class Async(Agent):
    def __init__(self, handled: list[int]) -> None:
        self.handled = handled

    @handles
    async def take(self, number: int) -> None:
        self.handled.append(number)


class Several(Async):
    concurrency = 4


@pytest.mark.parametrize("overflow", ["block", "drop-oldest"])
@pytest.mark.parametrize("cls", [Sync, Async, Several])
def test_an_agent_that_takes_as_its_mailbox_closes_handles_nothing_of_what_was_left(
    monkeypatch: pytest.MonkeyPatch, cls: type[Agent], overflow: Overflow
) -> None:
    monkeypatch.setattr("actorbus.actors.cell.Mailbox", ClosesAsItIsTaken)
    monkeypatch.setattr(cls, "mailbox", MailboxPolicy(overflow=overflow))
    handled: list[int] = []
    node = TestNode().start()
    ref = node.spawn(cls, handled)
    mailbox: Any = ref._inbox
    ref.tell(1)

    node.settle()

    assert [message.payload for message in mailbox.left] == [1]
    assert handled == []
    with pytest.raises(NotStopped):
        node.stop()
