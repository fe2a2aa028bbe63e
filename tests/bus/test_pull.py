"""A mailbox for code that is not an agent: it takes its messages when it wants to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import (
    AgentStopped,
    AskTimeout,
    BusClosed,
    Cancelled,
    InvalidArgument,
    MailboxFull,
    MailboxPolicy,
    NameTaken,
    Node,
    Priority,
    Reason,
    Rejected,
    Settings,
    Status,
    agent,
    where,
)
from actorbus.testing import TestNode
from actorbus.testing.transport_contract import run_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.pull import PullMailbox
    from actorbus.bus.waiting import Settling
    from actorbus.message import MessageId

    from .conftest import ClockedNode

DEADLINE: Final = 10.0


class Waits:
    """A node's way to wait that tells a test how many are waiting by now."""

    def __init__(self, node: Node) -> None:
        self._waiting = node.bus.waiting
        self.begun = threading.Semaphore(0)
        node.bus.waiting = self

    def may_block(self) -> bool:
        return self._waiting.may_block()

    def spin(self, awaited: Settling) -> bool:
        return self._waiting.spin(awaited)

    def wait(
        self,
        arm: Callable[[Callable[[], object]], bool],
        until: float | None,
        *,
        answers: MessageId | None = None,
    ) -> bool:
        def armed(wake: Callable[[], object]) -> bool:
            waits = arm(wake)
            if waits:
                self.begun.release()
            return waits

        return self._waiting.wait(armed, until)

    def until_begun(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=DEADLINE), "nobody waits"


class NeverWaits:
    """Waiting whose time is always up at once: nothing came."""

    def may_block(self) -> bool:
        return True

    def spin(self, awaited: Settling) -> bool:
        return awaited.settled

    def wait(
        self,
        arm: Callable[[Callable[[], object]], bool],
        until: float | None,
        *,
        answers: MessageId | None = None,
    ) -> bool:
        self.until = until
        return not arm(lambda: None)


def payloads(taken: list[Any]) -> list[Any]:
    return [message.payload for message in taken]


@pytest.fixture
def inbox(node: Node) -> PullMailbox:
    return node.mailbox("inbox")


class TestTaking:
    def test_what_was_told_to_it_is_taken_in_order(self, node: Node, inbox: PullMailbox) -> None:
        for number in range(5):
            node.tell("inbox", number)

        assert payloads(inbox.take(3)) == [0, 1, 2]
        assert payloads(inbox.take(3)) == [3, 4]
        assert inbox.take() == []

    def test_the_most_urgent_is_taken_first(self, node: Node, inbox: PullMailbox) -> None:
        for level in reversed(Priority):
            node.tell("inbox", level.name, priority=level)

        assert payloads(inbox.take(10)) == ["URGENT", "HIGH", "NORMAL", "LOW"]

    def test_an_envelope_says_who_sent_what(self, node: Node, inbox: PullMailbox) -> None:
        node.tell("inbox", "text", headers={"tenant": "a"})

        [message] = inbox.take()

        assert (message.recipient, message.sender, message.kind) == ("inbox", None, "tell")
        assert message.headers == {"tenant": "a"}

    def test_what_was_taken_counts_as_handled(self, node: Node, inbox: PullMailbox) -> None:
        node.tell("inbox", "text")

        [message] = inbox.take()

        [ending] = node.history
        assert (ending.id, ending.status, ending.recipient) == (
            message.id,
            Status.HANDLED,
            "inbox",
        )

    def test_what_has_expired_is_not_taken(self, node: ClockedNode, inbox: PullMailbox) -> None:
        node.tell("inbox", "short", ttl=5)
        node.tell("inbox", "long", ttl=60)

        node.clock.advance(5)

        assert payloads(inbox.take(10)) == ["long"]
        [letter] = node.dead_letters.list()
        assert (letter.message.payload, letter.reason) == ("short", Reason.EXPIRED)

    def test_a_cancelled_ask_is_not_taken(self, node: Node, inbox: PullMailbox) -> None:
        reply = node.ask("inbox", "question")
        reply.cancel()

        assert inbox.take() == []
        with pytest.raises(Cancelled):
            reply.get()
        assert [ending.reason for ending in node.history] == [Reason.CANCELLED]

    @pytest.mark.parametrize("n", [0, -1, True, 1.5, "1", None])
    def test_a_number_of_messages_that_is_none_is_refused(self, inbox: PullMailbox, n: Any) -> None:
        with pytest.raises(InvalidArgument, match="int of 1 or more"):
            inbox.take(n)

    @pytest.mark.parametrize("timeout", [-1, "1", None, True])
    def test_a_timeout_that_is_none_is_refused(self, inbox: PullMailbox, timeout: Any) -> None:
        with pytest.raises(InvalidArgument, match="seconds"):
            inbox.take(1, timeout)


class TestWaiting:
    def test_nothing_in_time_is_an_empty_list(self, node: ClockedNode, inbox: PullMailbox) -> None:
        node.bus.waiting = waiting = NeverWaits()

        taken = inbox.take(1, 5)

        assert taken == []
        assert waiting.until == node.clock.now() + 5

    def test_what_is_there_is_taken_without_waiting(self, node: Node, inbox: PullMailbox) -> None:
        node.bus.waiting = NeverWaits()
        node.tell("inbox", "text")

        assert payloads(inbox.take(10, 5)) == ["text"]

    def test_a_message_ends_the_wait(self, node: Node, inbox: PullMailbox) -> None:
        waits = Waits(node)
        taken: list[Any] = []

        def tell() -> None:
            waits.until_begun()
            node.tell("inbox", "text")

        run_in_threads(lambda: taken.extend(inbox.take(1, DEADLINE)), tell)

        assert payloads(taken) == ["text"]

    def test_a_burst_ends_the_wait_of_everyone_it_suffices_for(
        self, node: Node, inbox: PullMailbox
    ) -> None:
        waits = Waits(node)
        taken: list[Any] = []

        def tell() -> None:
            waits.until_begun(4)
            for number in range(4):
                node.tell("inbox", number)

        run_in_threads(*[lambda: taken.extend(inbox.take(1, DEADLINE))] * 4, tell)

        assert sorted(payloads(taken)) == [0, 1, 2, 3]

    def test_closing_ends_every_wait(self, node: Node, inbox: PullMailbox) -> None:
        waits = Waits(node)
        taken: list[Any] = []

        def close() -> None:
            waits.until_begun(3)
            inbox.close()

        run_in_threads(*[lambda: taken.extend(inbox.take(1, DEADLINE))] * 3, close)

        assert taken == []

    def test_who_gave_up_is_not_remembered(self, node: Node, inbox: PullMailbox) -> None:
        node.bus.waiting = NeverWaits()

        for _ in range(10):
            inbox.take(1, 5)

        assert inbox._waiters == []

    @pytest.mark.usefixtures("frequent_switches")
    def test_many_threads_share_a_mailbox_and_nobody_misses_a_wake_up(
        self, node: Node, inbox: PullMailbox
    ) -> None:
        taken: list[Any] = []

        def take() -> None:
            while True:
                messages = inbox.take(1, DEADLINE)
                assert messages, "a wake-up was lost"
                if messages[0].payload is None:
                    return
                taken.append(messages[0].payload)

        def tell() -> None:
            for number in range(1_000):
                node.tell("inbox", number)
            for _ in range(4):
                node.tell("inbox", None)

        run_in_threads(*[take] * 4, tell)

        assert sorted(taken) == list(range(1_000))


class TestAsks:
    def test_an_ask_is_answered_by_reply(self, node: Node, inbox: PullMailbox) -> None:
        reply = node.ask("inbox", "question")
        [question] = inbox.take()

        answered = inbox.reply(question, 42)

        assert answered
        assert reply.get() == 42
        told = [(one.kind, one.sender, one.recipient) for one in node.history]
        assert told == [("request", None, "inbox"), ("reply", "inbox", None)]

    def test_a_second_answer_is_too_late(self, node: Node, inbox: PullMailbox) -> None:
        reply = node.ask("inbox", "question")
        [question] = inbox.take()
        inbox.reply(question, 1)

        again = inbox.reply(question, 2)

        assert not again
        assert reply.get() == 1

    def test_an_ask_that_is_rejected_says_why(self, node: Node, inbox: PullMailbox) -> None:
        reply = node.ask("inbox", "question")
        [question] = inbox.take()

        inbox.reject(question, "not today")

        with pytest.raises(Rejected, match="not today"):
            reply.get()

    def test_an_ask_ends_once_however_often_it_is_answered(
        self, node: Node, inbox: PullMailbox
    ) -> None:
        reply = node.ask("inbox", "question")
        [question] = inbox.take()

        answers = [
            inbox.reject(question, "no"),
            inbox.reject(question, "no"),
            inbox.reply(question, 1),
        ]

        assert answers == [True, False, False]
        assert [(one.kind, one.reason) for one in node.history] == [("request", Reason.REJECTED)]
        with pytest.raises(Rejected):
            reply.get()

    def test_one_that_nobody_answers_ends_when_its_asker_gives_up(self) -> None:
        with TestNode() as node, node.mailbox("inbox") as inbox:
            late, cancelled = node.ask("inbox", "late", timeout=5), node.ask("inbox", "cancelled")
            inbox.take(2)

            cancelled.cancel()
            node.clock.advance(6)

            assert [(one.type, one.reason) for one in node.history] == [
                ("str", Reason.CANCELLED),
                ("str", Reason.EXPIRED),
            ]
            with pytest.raises(AskTimeout):
                late.get()

    def test_one_that_nobody_answers_ends_with_the_node(self) -> None:
        node = Node(settings=Settings(log_level="off")).start()
        inbox = node.mailbox("inbox")
        reply = node.ask("inbox", "question")
        inbox.take()

        node.stop()

        assert [(one.kind, one.reason) for one in node.history] == [("request", Reason.STOPPED)]
        with pytest.raises(AgentStopped):
            reply.get()

    def test_what_was_told_cannot_be_rejected_once_it_was_taken(
        self, node: Node, inbox: PullMailbox
    ) -> None:
        node.tell("inbox", "text")
        [message] = inbox.take()

        with pytest.raises(InvalidArgument, match="only an ask"):
            inbox.reject(message, "not today")
        assert not node.dead_letters.list()

    def test_a_tell_cannot_be_replied_to(self, node: Node, inbox: PullMailbox) -> None:
        node.tell("inbox", "text")
        [message] = inbox.take()

        with pytest.raises(InvalidArgument, match="only an ask can be replied to"):
            inbox.reply(message, 42)

    def test_an_ask_that_nobody_takes_times_out(
        self, node: ClockedNode, inbox: PullMailbox
    ) -> None:
        reply = node.ask("inbox", "question", timeout=5)

        node.clock.advance(5)

        assert reply.done()
        with pytest.raises(AskTimeout):
            reply.get()
        assert inbox.take() == []


class TestLife:
    def test_the_mailbox_of_a_name_is_one(self, node: Node, inbox: PullMailbox) -> None:
        assert node.mailbox("inbox") is inbox

    def test_a_name_belongs_to_an_agent_or_to_a_mailbox(
        self, node: Node, inbox: PullMailbox
    ) -> None:
        node.spawn(agent(_echo), name="echo")

        with pytest.raises(NameTaken):
            node.mailbox("echo")
        with pytest.raises(NameTaken):
            node.spawn(agent(_echo), name="inbox")

    def test_what_waits_when_it_closes_becomes_stopped(
        self, node: Node, inbox: PullMailbox
    ) -> None:
        node.tell("inbox", "text")
        reply = node.ask("inbox", "question")

        inbox.close()
        inbox.close()

        assert [letter.reason for letter in node.dead_letters.list()] == [Reason.STOPPED]
        with pytest.raises(AgentStopped):
            reply.get()
        assert inbox.take(1, 5) == []

    def test_leaving_its_block_closes_it_and_the_name_is_free(self, node: Node) -> None:
        with node.mailbox("inbox") as first:
            node.tell("inbox", "one")
            assert payloads(first.take()) == ["one"]

        second = node.mailbox("inbox")
        node.tell("inbox", "two")

        assert payloads(second.take()) == ["two"]

    def test_a_stopped_node_closes_its_mailboxes(self, node: Node, inbox: PullMailbox) -> None:
        node.tell("inbox", "text")

        node.stop()

        assert [letter.reason for letter in node.dead_letters.list()] == [Reason.STOPPED]
        with pytest.raises(BusClosed):
            node.mailbox("other")

    def test_it_is_bounded_and_a_taken_message_lets_a_sender_in(self, node: Node) -> None:
        inbox = node.mailbox("inbox", MailboxPolicy(2))
        waits = Waits(node)
        node.tell("inbox", 0)
        node.tell("inbox", 1)
        taken: list[Any] = []

        def take() -> None:
            waits.until_begun()
            taken.extend(inbox.take(1))

        run_in_threads(lambda: node.tell("inbox", 2), take)

        assert payloads(taken) == [0]
        assert payloads(inbox.take(10)) == [1, 2]

    @pytest.mark.parametrize("overflow", ["reject", "drop-newest", "drop-oldest"])
    def test_its_overflow_policy_holds(self, node: Node, overflow: Any) -> None:
        inbox = node.mailbox("inbox", MailboxPolicy(1, overflow))
        node.tell("inbox", "first")

        if overflow == "reject":
            with pytest.raises(MailboxFull):
                node.tell("inbox", "second")
        else:
            node.tell("inbox", "second")

        kept, lost = ("second", "first") if overflow == "drop-oldest" else ("first", "second")
        dead = [(one.message.payload, one.reason) for one in node.dead_letters.list()]
        assert payloads(inbox.take(10)) == [kept]
        assert dead == ([] if overflow == "reject" else [(lost, Reason.MAILBOX_FULL)])

    def test_it_gets_events_until_it_unsubscribes(self, node: Node, inbox: PullMailbox) -> None:
        unsubscribe = inbox.subscribe("orders.>", {"total": where.gt(100)})
        orders = node.topic("orders.new")
        for total in (50, 150):
            orders.publish({"total": total})

        unsubscribe()
        orders.publish({"total": 250})

        assert payloads(inbox.take(10)) == [{"total": 150}]

    def test_it_gets_broadcasts(self, node: Node, inbox: PullMailbox) -> None:
        node.broadcast("halt")

        assert payloads(inbox.take(10)) == ["halt"]


def _echo(text: str) -> str:
    return text
