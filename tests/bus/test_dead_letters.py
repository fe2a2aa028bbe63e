"""Dead letters: kept with their reason, found, sent again or discarded; never for ever."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from actorbus import (
    InvalidArgument,
    InvalidName,
    Reason,
    Reject,
    UnknownMessage,
    UnknownRecipient,
    agent,
)
from actorbus.bus.dead_letters import DeadLetter, DeadLetters
from actorbus.errors import MailboxFull
from actorbus.message import MessageId, MessageKind, format_id
from actorbus.telemetry import DeadLetterForgotten, Event, Telemetry
from actorbus.testing.transport_contract import broadcast, run_in_threads, tell

if TYPE_CHECKING:
    from actorbus import Node


class Resender:
    """Sends dead letters again, unless it is told to fail."""

    def __init__(self) -> None:
        self.sent: list[DeadLetter] = []
        self.error: Exception | None = None

    def __call__(self, letter: DeadLetter) -> MessageId:
        if self.error is not None:
            raise self.error
        self.sent.append(letter)
        return MessageId(len(self.sent))


@pytest.fixture
def resender() -> Resender:
    return Resender()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def letters(resender: Resender, telemetry: Telemetry) -> DeadLetters:
    return DeadLetters(3, telemetry, resender)


def letter(
    payload: Any, *, reason: Reason = Reason.REJECTED, to: str = "counter", at: float = 0.0
) -> DeadLetter:
    return DeadLetter(tell(to, payload), to, reason, None, 1, at)


def payloads(letters: list[DeadLetter]) -> list[Any]:
    return [one.message.payload for one in letters]


class TestLooking:
    def test_they_are_listed_newest_first(self, letters: DeadLetters) -> None:
        for number in range(3):
            letters.add(letter(number, at=number))

        assert payloads(letters.list()) == [2, 1, 0]
        assert payloads(letters.list(limit=2)) == [2, 1]
        assert len(letters) == 3

    def test_they_are_listed_by_reason_and_by_recipient(self, letters: DeadLetters) -> None:
        letters.add(letter(0, reason=Reason.EXPIRED, to="counter"))
        letters.add(letter(1, reason=Reason.REJECTED, to="counter"))
        letters.add(letter(2, reason=Reason.EXPIRED, to="editor"))

        assert payloads(letters.list(reason=Reason.EXPIRED)) == [2, 0]
        assert payloads(letters.list(reason="expired")) == [2, 0]
        assert payloads(letters.list(recipient="counter")) == [1, 0]
        assert payloads(letters.list(reason="expired", recipient="counter")) == [0]
        assert letters.list(reason="a word of a newer node") == []

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "10", None])
    def test_a_limit_that_is_no_positive_int_is_refused(
        self, letters: DeadLetters, limit: Any
    ) -> None:
        with pytest.raises(InvalidArgument, match="must be an int of 1 or more"):
            letters.list(limit=limit)

    def test_a_reason_that_is_no_word_is_refused_with_those_that_are(
        self, letters: DeadLetters
    ) -> None:
        with pytest.raises(InvalidArgument, match="no-such-agent, no-handler"):
            letters.list(reason=7)  # type: ignore[arg-type]

    def test_one_is_found_by_its_message_id_however_that_is_written(
        self, letters: DeadLetters
    ) -> None:
        one = letter("one")
        letters.add(letter("other"))
        letters.add(one)

        for written in (one.id, UUID(int=one.id), format_id(one.id)):
            assert letters.get(written) is one

    def test_of_a_broadcast_the_newest_is_found(self, letters: DeadLetters) -> None:
        halt = broadcast("halt")
        for at, name in enumerate(["first", "second"]):
            letters.add(DeadLetter(halt, name, Reason.REJECTED, None, 1, at))

        assert letters.get(halt.id).recipient == "second"

    def test_an_unknown_id_says_how_many_are_kept(self, letters: DeadLetters) -> None:
        letters.add(letter("one"))

        with pytest.raises(UnknownMessage, match=r"1 are kept, list\(\) shows them"):
            letters.get(12345)

    def test_what_is_no_id_is_refused(self, letters: DeadLetters) -> None:
        with pytest.raises(InvalidName, match="message ids look like"):
            letters.get("the last one")


class TestForgetting:
    def test_the_oldest_goes_first_and_that_is_counted_and_said(
        self, letters: DeadLetters, telemetry: Telemetry
    ) -> None:
        said: list[Event] = []
        telemetry.listen(said.append)
        for number in range(5):
            letters.add(letter(number, at=number))

        forgotten = [event for event in said if isinstance(event, DeadLetterForgotten)]
        assert payloads(letters.list()) == [4, 3, 2]
        assert letters.forgotten == 2
        assert [event.message.payload for event in forgotten] == [0, 1]

    def test_what_is_discarded_is_returned_and_gone(self, letters: DeadLetters) -> None:
        one = letter("one")
        letters.add(one)

        discarded = letters.discard(one.id)

        assert discarded is one
        assert len(letters) == 0
        with pytest.raises(UnknownMessage):
            letters.discard(one.id)


class TestRequeue:
    def test_what_was_sent_again_is_a_dead_letter_no_more(
        self, letters: DeadLetters, resender: Resender
    ) -> None:
        one = letter("one")
        letters.add(one)

        new_id = letters.requeue(one.id)

        assert resender.sent == [one]
        assert new_id == 1
        assert len(letters) == 0

    def test_what_could_not_be_sent_is_kept_in_its_place(
        self, letters: DeadLetters, resender: Resender
    ) -> None:
        for number in range(3):
            letters.add(letter(number, at=number))
        middle = letters.list()[1]
        resender.error = MailboxFull("counter", 1)

        with pytest.raises(MailboxFull):
            letters.requeue(middle.id)

        assert payloads(letters.list()) == [2, 1, 0]

    def test_what_is_put_back_does_not_pass_the_capacity(
        self, letters: DeadLetters, resender: Resender
    ) -> None:
        for number in range(3):
            letters.add(letter(number, at=number))
        middle = letters.list()[1]

        class Late(MailboxFull):
            def __init__(self) -> None:
                super().__init__("counter", 1)
                letters.add(letter("meanwhile", at=9))

        def fail(_: DeadLetter) -> MessageId:
            raise Late

        letters._resend = fail
        with pytest.raises(Late):
            letters.requeue(middle.id)

        assert payloads(letters.list()) == ["meanwhile", 2, 1]
        assert letters.forgotten == 1

    @pytest.mark.usefixtures("frequent_switches")
    def test_of_many_who_requeue_a_letter_one_sends_it(
        self, letters: DeadLetters, resender: Resender
    ) -> None:
        one = letter("one")
        letters.add(one)
        start = threading.Barrier(8)
        unknown: list[UnknownMessage] = []

        def requeue() -> None:
            start.wait(10)
            try:
                letters.requeue(one.id)
            except UnknownMessage as error:
                unknown.append(error)

        run_in_threads(*[requeue] * 8)

        assert resender.sent == [one]
        assert len(unknown) == 7


class TestOfANode:
    """Where they come from, and what becomes of them there."""

    def test_a_refused_tell_can_be_requeued_once_its_agent_takes_it(self, node: Node) -> None:
        open_for_work = threading.Event()
        taken: list[Any] = []

        def counter(text: str) -> None:
            if not open_for_work.is_set():
                raise Reject("not yet")
            taken.append(text)

        ref = node.spawn(agent(counter), name="counter")
        ref.tell("one", headers={"tenant": "a"})
        node.drain(10)
        [one] = node.dead_letters.list()
        open_for_work.set()

        new_id = node.dead_letters.requeue(one.id)

        node.drain(10)
        assert (one.reason, one.recipient, one.attempts) == (Reason.REJECTED, "counter", 1)
        assert taken == ["one"]
        ending = node.history.list(limit=1)[0]
        assert (ending.id, ending.causation_id) == (new_id, one.id)
        assert new_id != one.id
        assert (ending.correlation_id, ending.kind) == (one.message.correlation_id, "tell")
        assert len(node.dead_letters) == 0

    def test_it_cannot_be_requeued_while_its_agent_is_missing(self, node: Node) -> None:
        def counter(text: str) -> None:
            raise Reject("not this")

        ref = node.spawn(agent(counter), name="counter")
        ref.tell("one")
        node.drain(10)
        ref.stop()
        node.drain(10)
        [one] = node.dead_letters.list()

        with pytest.raises(UnknownRecipient):
            node.dead_letters.requeue(one.id)

        assert node.dead_letters.list() == [one]

    def test_one_copy_of_a_broadcast_is_requeued_to_whom_it_was_for(self, node: Node) -> None:
        taken: list[Any] = []
        first = True

        def picky(text: str) -> None:
            nonlocal first
            if first:
                first = False
                raise Reject("once")
            taken.append(text)

        node.spawn(agent(picky), name="picky")
        node.broadcast("halt")
        node.drain(10)
        [one] = node.dead_letters.list(recipient="picky")

        node.dead_letters.requeue(one.id)

        node.drain(10)
        assert one.message.kind == MessageKind.BROADCAST
        assert taken == ["halt"]

    def test_a_failed_ask_is_no_dead_letter(self, node: Node) -> None:
        def counter(text: str) -> None:
            raise Reject("no")

        reply = node.spawn(agent(counter)).ask("one")

        with pytest.raises(Exception, match="no"):
            reply.get()
        assert len(node.dead_letters) == 0


def test_the_awaitable_twin_does_the_same(letters: DeadLetters, resender: Resender) -> None:
    first, second = letter("first", at=0), letter("second", at=1)
    letters.add(first)
    letters.add(second)

    async def use() -> tuple[DeadLetter, list[DeadLetter], DeadLetter]:
        found = await letters.aio.get(first.id)
        listed = await letters.aio.list(reason="rejected")
        await letters.aio.requeue(first.id)
        return found, listed, await letters.aio.discard(second.id)

    assert asyncio.run(use()) == (first, [second, first], second)
    assert resender.sent == [first]
    assert len(letters) == 0
