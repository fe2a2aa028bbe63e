"""The ring of how messages ended: bounded, in order, and without payloads unless asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from actorbus import Agent, InvalidName, Settings, agent, handles
from actorbus.bus.history import HANDLED_TELL, History
from actorbus.message import MessageId, Priority, format_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Node
    from actorbus.bus.history import Slots


def ending(
    number: int,
    *,
    conversation: int = 1,
    type: str = "str",
    sender: str | None = None,
    recipient: str = "counter",
) -> Slots:
    """An ending as the bus writes it, with `number` as its id."""
    priority = Priority.NORMAL.value
    return (
        MessageId(number),
        type,
        sender,
        recipient,
        priority,
        0.0,
        0.0,
        0.0,
        MessageId(conversation),
        None,
        None,
        HANDLED_TELL,
    )


def ids(endings: Any) -> list[int]:
    return [one.id for one in endings]


def test_it_keeps_the_last_ones_oldest_first() -> None:
    history = History(3)

    for number in range(5):
        history.append(ending(number))

    assert ids(history) == [2, 3, 4]
    assert len(history) == 3


def test_a_ring_of_size_0_keeps_nothing() -> None:
    history = History(0)

    history.append(ending(1))

    assert list(history) == []


def test_reading_it_is_not_disturbed_by_what_comes_meanwhile() -> None:
    history = History(10)
    for number in range(3):
        history.append(ending(number))

    seen = []
    for one in history:
        seen.append(one.id)
        history.append(ending(100 + one.id))

    assert seen == [0, 1, 2]


def test_it_lists_newest_first_by_agent_and_by_type() -> None:
    history = History(10)
    history.append(ending(1, sender="scout", recipient="counter"))
    history.append(ending(2, sender="counter", recipient="editor", type="int"))
    history.append(ending(3, sender="scout", recipient="editor", type="Text"))

    assert ids(history.list()) == [3, 2, 1]
    assert ids(history.list(agent="counter")) == [2, 1]
    assert ids(history.list(agent="scout", limit=1)) == [3]
    assert ids(history.list(type="int")) == [2]
    assert ids(history.list(type="Text")) == [3]
    assert history.list(agent="nobody") == []


def test_a_conversation_is_found_from_any_of_its_messages_in_the_order_sent() -> None:
    history = History(10)
    for number, conversation in [(3, 1), (2, 9), (1, 1)]:
        history.append(ending(number, conversation=conversation))

    for written in (3, UUID(int=3), format_id(3), 1):
        assert ids(history.conversation(written)) == [1, 3]


def test_a_conversation_that_nobody_remembers_is_empty() -> None:
    assert History(10).conversation(7) == []


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(InvalidName, match="message ids look like"):
        History(10).conversation("the last one")


class Asker(Agent):
    @handles
    def count_words(self, text: str) -> int:
        count: int = self.ask("counter", text.split()).get()
        return count


def count(words: list[str]) -> int:
    return len(words)


class TestOfANode:
    def test_a_question_and_what_it_caused_are_one_conversation(self, node: Node) -> None:
        node.spawn(agent(count), name="counter")
        asker = node.spawn(Asker, name="asker")

        answer = asker.ask("to be or not").get()

        node.drain(10)
        told = [
            (one.kind.value, one.sender, one.recipient, one.type)
            for one in node.history.conversation(node.history.list(limit=1)[0].id)
        ]
        assert answer == 4
        assert told == [
            ("request", None, "asker", "str"),
            ("request", "asker", "counter", "list"),
            ("reply", "counter", "asker", "int"),
            ("reply", "asker", None, "int"),
        ]

    @pytest.mark.parametrize("keeps", [False, True])
    def test_payloads_are_kept_on_request(
        self, make_node: Callable[..., Node], keeps: bool
    ) -> None:
        settings = Settings(history_payloads=keeps, log_level="off")
        node = make_node(settings=settings)
        counter = node.spawn(agent(count), name="counter")

        counter.ask(["one", "two"]).get()
        counter.tell(["three"])
        node.drain(10)

        expected = [["one", "two"], 2, ["three"]] if keeps else [None, None, None]
        assert [one.payload for one in node.history] == expected
