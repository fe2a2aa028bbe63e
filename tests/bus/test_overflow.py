"""What becomes of messages that a full mailbox of an agent does not take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, MailboxPolicy, Reason, Settings, handles
from actorbus.testing.transport_contract import run_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Node


class Sync(Agent):
    mailbox = MailboxPolicy(1, "drop-oldest")

    @handles
    def take(self, number: int) -> int:
        return number


class Async(Agent):
    mailbox = MailboxPolicy(1, "drop-oldest")

    @handles
    async def take(self, number: int) -> int:
        return number


class Several(Async):
    concurrency = 4


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("cls", [Sync, Async, Several])
def test_an_agent_whose_messages_are_dropped_under_its_hands_goes_on(
    make_node: Callable[..., Node], cls: type[Agent]
) -> None:
    node = make_node(
        settings=Settings(history_size=20_000, dead_letter_capacity=20_000, log_level="off")
    )
    ref = node.spawn(cls, name="taker")

    def send() -> None:
        for number in range(2_000):
            ref.tell(number)

    run_in_threads(*[send] * 4)
    answer = ref.ask(7, timeout=10).get()

    node.drain(10)
    handled: list[Any] = [one for one in node.history if one.kind == "tell" and not one.reason]
    assert answer == 7
    assert len(handled) + len(node.dead_letters.list(limit=20_000)) == 8_000
    assert {letter.reason for letter in node.dead_letters.list()} <= {Reason.MAILBOX_FULL}
