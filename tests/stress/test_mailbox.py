"""The mailbox between threads, step by step: each interleaving that once went wrong."""

from __future__ import annotations

from actorbus.bus.mailbox import Mailbox, MailboxPolicy, Refusal
from actorbus.message import Priority
from actorbus.testing.transport_contract import tell


def mailbox_of(capacity: int) -> Mailbox:
    return Mailbox("counter", MailboxPolicy(capacity, "reject"), None, lambda _: None)


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
