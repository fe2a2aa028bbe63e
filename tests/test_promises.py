"""The promises of the in-memory bus, each a test; and every way in which a message can fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from actorbus import (
    ActorbusError,
    Agent,
    AgentFailed,
    AgentStopped,
    AskTimeout,
    BusClosed,
    Cancelled,
    Dead,
    DeadLetter,
    Deliver,
    InvalidArgument,
    MailboxFull,
    MailboxPolicy,
    Message,
    MessageExpired,
    NoHandler,
    NoProvider,
    PayloadTooLarge,
    Priority,
    Reason,
    Reject,
    Rejected,
    Reply,
    Send,
    Settings,
    Status,
    Supervision,
    UnknownMessage,
    UnknownRecipient,
    UnsupportedPayload,
    handles,
)
from actorbus.testing import TestNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus import Ref
    from actorbus.bus.middleware import Handle, Outcome


class Job(BaseModel):
    number: int


class Worker(Agent):
    capabilities = ("work",)
    supervision = Supervision(on_failure="resume")

    def __init__(self, seen: list[Any] | None = None) -> None:
        self.seen = [] if seen is None else seen

    @handles
    def work(self, job: Job) -> int:
        self.seen.append(job.number)
        return job.number * 2

    @handles
    def fail(self, error: str) -> None:
        raise ValueError(error)

    @handles
    def refuse(self, why: float) -> None:
        raise Reject(str(why))


class Sleeper(Agent):
    """Holds its message until the clock is turned far."""

    @handles
    async def sleep(self, seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds


def small(overflow: Any) -> type[Worker]:
    return type("Small", (Worker,), {"mailbox": MailboxPolicy(capacity=1, overflow=overflow)})


@pytest.fixture
def node() -> Iterator[TestNode]:
    with TestNode() as node:
        yield node


# -- every way in which a message can fail to be handled


@dataclass
class Failure:
    """How one kind of failure is brought about, and what must come of it.

    ``cause`` gets a node and ``send``, which tells or asks; what it returns is the recipient.
    """

    what: str
    cause: Callable[[TestNode, Callable[..., Any]], None]
    tell: type[ActorbusError] | Reason
    ask: type[ActorbusError] | None
    """None where there is no such ask."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the node."""


def no_such_name(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.ref("nobody"), Job(number=1))


def no_provider(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.any("fly"), Job(number=1))


def already_stopped(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(Worker, name="worker")
    ref.stop()
    node.settle()
    send(lambda: ref, Job(number=1))


def stopped_while_waiting(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(Worker, name="worker")
    send(lambda: ref, Job(number=1))
    ref.stop()
    node.settle()


def node_stopped_while_waiting(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(Sleeper, name="worker")
    ref.tell(1000)
    node.settle()
    send(lambda: ref, 1)
    ref.stop()
    node.settle()
    node.advance(2000)


def without_handler(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), [1])
    node.settle()


def handler_raises(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), "boom")
    node.settle()


def agent_refuses(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), 1.5)
    node.settle()


def too_late(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(Worker, name="worker")
    send(lambda: ref, Job(number=1), expires=1)
    node.clock.advance(2)
    node.settle()


def expired_before_sending(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), Job(number=1), expires=-1)


def full_and_rejecting(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(small("reject"), name="worker")
    ref.tell(Job(number=0))
    send(lambda: ref, Job(number=1))


def full_and_dropping_the_newest(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(small("drop-newest"), name="worker")
    ref.tell(Job(number=0))
    send(lambda: ref, Job(number=1))
    node.settle()


def full_and_dropping_the_oldest(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(small("drop-oldest"), name="worker")
    send(lambda: ref, Job(number=1))
    ref.tell(Job(number=0))
    node.settle()


def run_is_cancelled(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(Worker, name="worker")
    with node.run() as run:
        send(lambda: ref, Job(number=1))
    run.cancel()
    node.settle()


def too_large(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), {"blob": b"x" * (2 << 20)})


def uncarriable(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), {"lock": object()})


def parked(node: TestNode, send: Callable[..., Any]) -> None:
    fragile = type("Fragile", (Worker,), {"supervision": Supervision(max_restarts=0)})
    ref = node.spawn(fragile, name="worker")
    ref.tell("boom")
    node.settle()
    node.dead_letters.discard(node.dead_letters.list()[0].id)
    send(lambda: ref, Job(number=1))
    ref.stop()
    node.settle()


def handled(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), Job(number=1))
    node.settle()


def delayed_beyond_its_recipient(node: TestNode, send: Callable[..., Any]) -> None:
    ref = node.spawn(Worker, name="worker")
    send(lambda: ref, Job(number=1), delay=10)
    ref.stop()
    node.settle()
    node.advance(10)


def delayed_beyond_its_node(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), Job(number=1), delay=10)
    node.stop()


def node_has_stopped(node: TestNode, send: Callable[..., Any]) -> None:
    node.spawn(Worker, name="worker")
    node.stop()
    send(lambda: node.ref("worker"), Job(number=1))


def node_stops(node: TestNode, send: Callable[..., Any]) -> None:
    send(lambda: node.spawn(Worker, name="worker"), Job(number=1))
    node.stop()


def answering(reason: Reason) -> Callable[[Handle], Handle]:
    def refuse(handle: Handle) -> Handle:
        def refuse_all(message: Message[Any]) -> Outcome:
            return Dead(reason, "not today")

        return refuse_all

    return refuse


def in_the_middle(side: Any, reason: Reason) -> Failure:
    options = {"middleware": [side(answering(reason))]}
    return Failure(f"{reason} by {side.__name__}", handled, reason, Rejected, options)


FAILURES = [
    Failure("no such name", no_such_name, UnknownRecipient, UnknownRecipient),
    Failure("no provider", no_provider, NoProvider, NoProvider),
    Failure("already stopped", already_stopped, AgentStopped, AgentStopped),
    Failure("stopped while waiting", stopped_while_waiting, Reason.STOPPED, AgentStopped),
    Failure("stopped behind another", node_stopped_while_waiting, Reason.STOPPED, AgentStopped),
    Failure("without handler", without_handler, Reason.NO_HANDLER, NoHandler),
    Failure("handler raises", handler_raises, Reason.HANDLER_ERROR, AgentFailed),
    Failure("agent refuses", agent_refuses, Reason.REJECTED, Rejected),
    Failure("too late", too_late, Reason.EXPIRED, AskTimeout),
    Failure("expired before sending", expired_before_sending, MessageExpired, InvalidArgument),
    Failure("full, rejecting", full_and_rejecting, MailboxFull, MailboxFull),
    Failure("dropped, newest", full_and_dropping_the_newest, Reason.MAILBOX_FULL, MailboxFull),
    Failure("dropped, oldest", full_and_dropping_the_oldest, Reason.MAILBOX_FULL, MailboxFull),
    Failure("run cancelled", run_is_cancelled, Reason.CANCELLED, Cancelled),
    Failure("too large", too_large, PayloadTooLarge, PayloadTooLarge),
    Failure("cannot be carried", uncarriable, UnsupportedPayload, UnsupportedPayload),
    Failure("parked, then stopped", parked, Reason.STOPPED, AgentStopped),
    Failure("node stops", node_stops, Reason.STOPPED, AgentStopped),
    Failure("node has stopped", node_has_stopped, BusClosed, BusClosed),
    Failure("its recipient left", delayed_beyond_its_recipient, Reason.NO_SUCH_AGENT, None),
    Failure("delayed too long", delayed_beyond_its_node, Reason.STOPPED, None),
    *(
        in_the_middle(side, reason)
        for side in (Send, Deliver)
        for reason in (Reason.REFUSED, Reason.RATE_LIMITED, Reason.DUPLICATE)
    ),
]

ONLY_BETWEEN_NODES = {Reason.UNDECODABLE, Reason.CRASHED_OWNER}


def test_there_is_a_row_for_every_reason() -> None:
    told = {failure.tell for failure in FAILURES}

    assert set(Reason) - told == ONLY_BETWEEN_NODES


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.what)
def test_a_tell_that_fails_is_an_error_or_a_dead_letter(failure: Failure) -> None:
    raised: list[ActorbusError] = []

    def send(
        target: Callable[[], Any],
        payload: Any,
        *,
        expires: float | None = None,
        delay: float | None = None,
    ) -> None:
        try:
            target().tell(payload, ttl=expires, delay=delay)
        except ActorbusError as error:
            raised.append(error)

    with TestNode(**failure.options) as node:
        failure.cause(node, send)

        if isinstance(failure.tell, Reason):
            (letter,) = node.dead_letters.list(reason=failure.tell)
            assert letter.recipient == "worker"
            assert not raised
        else:
            assert [type(error) for error in raised] == [failure.tell]
            assert not node.dead_letters.list()


@pytest.mark.parametrize(
    "failure", [one for one in FAILURES if one.ask is not None], ids=lambda failure: failure.what
)
def test_an_ask_that_fails_is_an_error_and_never_a_dead_letter(failure: Failure) -> None:
    replies: list[Reply[Any]] = []
    raised: list[ActorbusError] = []

    def send(target: Callable[[], Any], payload: Any, *, expires: float | None = None) -> None:
        try:
            replies.append(target().ask(payload, timeout=expires))
        except ActorbusError as error:
            raised.append(error)

    with TestNode(**failure.options) as node:
        failure.cause(node, send)

        for reply in replies:
            with pytest.raises(ActorbusError) as fetched:
                reply.get()
            raised.append(fetched.value)
        assert [type(error) for error in raised] == [failure.ask]
        assert not node.dead_letters.list(recipient="worker")


def test_a_message_handled_late_in_its_own_handler_is_not_expired(node: TestNode) -> None:
    """A deadline decides whether work is started, not whether it may end."""
    ref = node.spawn(Sleeper, name="worker")
    ref.tell(10, ttl=1)
    node.settle()

    node.advance(20)

    assert not node.dead_letters.list()
    assert [ending.status for ending in node.history] == [Status.HANDLED]


# -- delivery, order, bound


def test_messages_of_a_priority_keep_the_senders_order(node: TestNode) -> None:
    seen: list[int] = []
    ref = node.spawn(Worker, seen, name="worker")
    for number in range(200):
        ref.tell(Job(number=number))

    node.settle()

    assert seen == list(range(200))


def test_urgent_overtakes_what_waits(node: TestNode) -> None:
    seen: list[int] = []
    ref = node.spawn(Worker, seen, name="worker")
    ref.tell(Job(number=3), priority=Priority.LOW)
    ref.tell(Job(number=2))
    ref.tell(Job(number=1), priority=Priority.HIGH)
    ref.tell(Job(number=0), priority=Priority.URGENT)

    node.settle()

    assert seen == [0, 1, 2, 3]


def test_every_message_ends_exactly_once(node: TestNode) -> None:
    ref = node.spawn(Worker, name="worker")
    for number in range(50):
        ref.tell(Job(number=number))
        ref.tell("boom")
        ref.tell(1.0)

    node.settle()

    ids = [ending.id for ending in node.history]
    assert len(ids) == len(set(ids)) == 150


def test_a_broadcast_reaches_everyone_but_its_sender(node: TestNode) -> None:
    seen: dict[str, list[int]] = {}

    class Hearer(Agent):
        def __init__(self) -> None:
            seen[self.name] = []

        @handles
        def hear(self, job: Job) -> None:
            seen[self.name].append(job.number)

        @handles
        def shout(self, word: str) -> int:
            return self.broadcast(Job(number=7))

    refs = [node.spawn(Hearer, name=f"hearer-{number}") for number in range(3)]

    from_outside = node.broadcast(Job(number=1))
    node.settle()
    from_inside = refs[0].ask("now").get()
    node.settle()

    assert (from_outside, from_inside) == (3, 2)
    assert seen == {"hearer-0": [1], "hearer-1": [1, 7], "hearer-2": [1, 7]}


def test_a_broadcast_to_nobody_is_counted_and_no_error(node: TestNode) -> None:
    assert node.broadcast(Job(number=1)) == 0
    assert node.topic("prices.eur").publish(Job(number=1)) == 0


def test_a_full_recipient_of_a_broadcast_is_its_own_dead_letter(node: TestNode) -> None:
    full = node.spawn(small("reject"), name="full")
    node.spawn(Worker, name="free")
    full.tell(Job(number=0))

    taken = node.broadcast(Job(number=1))

    assert taken == 1
    (letter,) = node.dead_letters.list()
    assert (letter.recipient, letter.reason) == ("full", Reason.MAILBOX_FULL)


def test_an_unknown_name_gets_help(node: TestNode) -> None:
    node.spawn(Worker, name="counter")
    node.spawn(Worker, name="editor")

    with pytest.raises(UnknownRecipient) as error:
        node.tell("conter", Job(number=1))

    assert str(error.value) == (
        "no agent 'conter'. Did you mean 'counter'? Running: counter, editor."
    )


def test_tell_many_sends_nothing_if_one_name_is_unknown(node: TestNode) -> None:
    seen: list[int] = []
    node.spawn(Worker, seen, name="worker")

    with pytest.raises(UnknownRecipient):
        node.tell_many([("worker", Job(number=1)), ("nobody", Job(number=2))])
    node.settle()

    assert seen == []
    assert node.tell_many([("worker", Job(number=1)), ("worker", Job(number=2))]) == 2


# -- deadlines


def test_an_ask_within_a_handler_gets_the_earlier_deadline(node: TestNode) -> None:
    deadlines: list[float | None] = []

    class Inner(Agent):
        @handles
        def note(self, word: str) -> None:
            deadlines.append(self.message.deadline)

    class Outer(Agent):
        def __init__(self, inner: Ref) -> None:
            self.inner = inner

        @handles
        def pass_on(self, timeout: float) -> None:
            self.inner.ask("x", timeout=timeout).get()

    inner = node.spawn(Inner, name="inner")
    outer = node.spawn(Outer, inner, name="outer")
    now = node.clock.now()

    outer.ask(5.0, timeout=10).get()
    outer.ask(60.0, timeout=10).get()

    assert deadlines == [now + 5, now + 10]


def test_a_tell_within_a_handler_inherits_no_deadline(node: TestNode) -> None:
    messages: list[Message[Any]] = []

    class Inner(Agent):
        @handles
        def note(self, word: str) -> None:
            messages.append(self.message)

    class Outer(Agent):
        @handles
        def pass_on(self, word: str) -> None:
            self.tell("inner", "x")

    node.spawn(Inner, name="inner")
    node.spawn(Outer, name="outer").ask("x", timeout=10).get()
    node.settle()

    assert messages[0].deadline is None
    assert (messages[0].sender, messages[0].hops) == ("outer", 1)


def test_a_ttl_that_has_not_passed_does_no_harm(node: TestNode) -> None:
    seen: list[int] = []
    ref = node.spawn(Worker, seen, name="worker")
    ref.tell(Job(number=1), ttl=10)

    node.clock.advance(9.9)
    node.settle()

    assert seen == [1]


def test_a_delay_is_kept_to_the_moment(node: TestNode) -> None:
    seen: list[int] = []
    ref = node.spawn(Worker, seen, name="worker")
    ref.tell(Job(number=2), delay=5)
    ref.tell(Job(number=1), delay=2)

    node.advance(4.999)
    early = list(seen)
    node.advance(0.001)

    assert early == [1]
    assert seen == [1, 2]


# -- dead letters


def dead(node: TestNode) -> DeadLetter:
    ref = node.spawn(Worker, name="worker")
    ref.tell("boom")
    node.settle()
    return node.dead_letters.list()[0]


def test_a_requeued_letter_is_a_new_message_caused_by_the_old(node: TestNode) -> None:
    letter = dead(node)

    new_id = node.dead_letters.requeue(letter.id)
    again = node.assert_sent("worker", sender=None)
    node.settle()

    resent = node.sent[-1]
    assert again.id == letter.id
    assert (resent.id, resent.causation_id, resent.payload) == (new_id, letter.id, "boom")
    assert new_id != letter.id
    assert [one.id for one in node.dead_letters.list()] == [new_id]


def test_a_letter_that_cannot_be_requeued_is_kept(node: TestNode) -> None:
    letter = dead(node)
    node.ref("worker").stop()
    node.settle()

    with pytest.raises(UnknownRecipient):
        node.dead_letters.requeue(letter.id)

    assert node.dead_letters.get(letter.id) is letter


def test_a_discarded_letter_is_gone(node: TestNode) -> None:
    letter = dead(node)

    node.dead_letters.discard(letter.id)

    with pytest.raises(UnknownMessage):
        node.dead_letters.get(letter.id)


def test_dead_letters_are_bounded_and_the_oldest_is_forgotten() -> None:
    with TestNode(settings=Settings(dead_letter_capacity=3)) as node:
        ref = node.spawn(Worker, name="worker")
        for number in range(5):
            ref.tell(str(number))
        node.settle()

        assert [letter.message.payload for letter in node.dead_letters.list()] == ["4", "3", "2"]
        assert node.dead_letters.forgotten == 2


# -- history


def test_history_keeps_how_everything_ended_without_payloads(node: TestNode) -> None:
    ref = node.spawn(Worker, name="worker")
    ref.ask(Job(number=1)).get()
    ref.tell("boom")
    node.settle()

    endings = list(node.history)

    assert [(ending.kind, ending.type, ending.status) for ending in endings] == [
        ("request", "Job", Status.HANDLED),
        ("reply", "int", Status.HANDLED),
        ("tell", "str", Status.DEAD),
    ]
    assert all(ending.payload is None for ending in endings)
    assert [ending.id for ending in node.history.conversation(endings[1].id)] == [
        endings[0].id,
        endings[1].id,
    ]


def test_history_is_bounded_and_keeps_payloads_on_request() -> None:
    settings = Settings(history_size=2, history_payloads=True)
    with TestNode(settings=settings) as node:
        ref = node.spawn(Worker, name="worker")
        for number in range(4):
            ref.tell(Job(number=number))
        node.settle()

        assert [ending.payload for ending in node.history] == [Job(number=2), Job(number=3)]
