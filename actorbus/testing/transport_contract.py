"""What every transport promises, as tests that a new one inherits.

::

    class TestMyTransport(TransportContract):
        guarantees = MY_GUARANTEES

        def open(self) -> Transport:
            return MyTransport()

A test that ``@needs`` a guarantee is there only for transports that give it: elsewhere it is not
collected, so that nothing is skipped and nothing looks as if it had run.
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import pytest

from actorbus.bus.mailbox import Mailbox, MailboxPolicy, Refusal
from actorbus.bus.routing import Route
from actorbus.bus.transport import Guarantee
from actorbus.bus.where import compiled
from actorbus.errors import NameTaken
from actorbus.message import IdSource, Message, MessageKind, Priority, Status, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actorbus.bus.mailbox import Level, Offered
    from actorbus.bus.transport import Guarantees, Transport

_DEADLINE: Final = 10.0
"""Seconds that a message may take to arrive, or a thread to end."""

_BY_NEED: Final = "_needed_guarantee"
_ids: Final = IdSource()

Test = TypeVar("Test", bound="Callable[..., None]")


def needs(guarantee: Guarantee) -> Callable[[Test], Test]:
    """Mark a test of ``TransportContract`` as one for transports that give `guarantee`."""

    def mark(test: Test) -> Test:
        setattr(test, _BY_NEED, guarantee)
        return test

    return mark


class Receiver:
    """Whoever consumes a mailbox, one message at a time, as an agent does.

    It holds the run that it was given over several steps, and lets itself be interrupted.
    ``wakes`` counts how often it was woken.
    """

    def __init__(self, name: str, policy: MailboxPolicy | None = None, *, limit: int = 32) -> None:
        self.mailbox = Mailbox(name, policy or MailboxPolicy(), self, Receiver._wake)
        self.limit = limit
        """How many messages it asks for at a time."""
        self.wakes = 0
        self.woken = threading.Semaphore(0)
        self._run: Level = deque()
        self._may_pop = 0
        self._popped = 0

    def _wake(self) -> None:
        self.wakes += 1
        self.woken.release()

    def pop(self) -> Message[Any] | None:
        """The next message. None if none waits, or commands come first."""
        while True:
            while self._popped < self._may_pop and not self.mailbox.interrupted:
                try:
                    entry = self.mailbox.take(self._run)
                except IndexError:
                    # The overflow policy dropped the rest of the run.
                    break
                self._popped += 1
                self.mailbox.taken += 1
                return self._ended(envelope(entry))
            self.mailbox.ran(self._popped)
            self._popped = 0
            self._run, self._may_pop = self.mailbox.run(self.limit)
            if self._may_pop <= 0:
                return None

    def _ended(self, message: Message[Any]) -> Message[Any]:
        """Say that it is handled, as a bus does, to whoever wants to know."""
        if message.delivery is not None:
            message.delivery.over(self.mailbox.name, Status.HANDLED, None, None, 1)
        return message

    def wait_for(self, count: int) -> None:
        """Wait until `count` messages wait here."""
        give_up = time.monotonic() + _DEADLINE
        while len(self.mailbox) < count:
            assert time.monotonic() < give_up, f"{len(self.mailbox)} of {count} messages came"
            time.sleep(0.001)

    def take(self, count: int) -> list[Any]:
        """Wait for the next `count` messages; their payloads, in the order they are served."""
        taken: list[Any] = []
        while len(taken) < count:
            message = self.pop()
            if message is not None:
                taken.append(message.payload)
            else:
                came = self.woken.acquire(timeout=_DEADLINE)
                assert came, f"{len(taken)} of {count} messages came"
        return taken


class TransportContract:
    """What every transport promises. A subclass says what it gives and how to open one."""

    guarantees: ClassVar[Guarantees]
    """What the opened transport states."""

    def open(self) -> Transport:
        """A new transport that nobody is attached to."""
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "guarantees"):
            raise TypeError(f"{cls.__name__} must say which `guarantees` its transport gives")
        for name, test in vars(TransportContract).items():
            needed = getattr(test, _BY_NEED, None)
            if needed is not None and name not in vars(cls):
                # What is None is not collected.
                setattr(cls, name, test if cls.guarantees.gives(needed) else None)

    # -- always

    def test_it_states_the_guarantees_that_it_is_held_to(self) -> None:
        transport = self.open()

        assert transport.guarantees == self.guarantees

    def test_what_is_sent_to_an_attached_name_arrives(self) -> None:
        transport, counter = self.open(), Receiver("counter")

        transport.attach(counter.mailbox)
        send(transport, tell("counter", "one"))

        assert counter.take(1) == ["one"]

    def test_each_name_gets_its_own(self) -> None:
        transport, first, second = self.open(), Receiver("first"), Receiver("second")
        transport.attach(first.mailbox)
        transport.attach(second.mailbox)

        send(transport, tell("second", "for the second"))
        send(transport, tell("first", "for the first"))

        assert first.take(1) == ["for the first"]
        assert second.take(1) == ["for the second"]
        assert (len(first.mailbox), len(second.mailbox)) == (0, 0)

    def test_everybody_who_is_attached_is_listed(self) -> None:
        transport, left = self.open(), Receiver("left")
        transport.attach(Receiver("counter").mailbox)
        transport.attach(Receiver("editor").mailbox)
        transport.attach(left.mailbox)

        transport.detach(left.mailbox)

        assert sorted(transport.names()) == ["counter", "editor"]

    def test_a_name_has_one_inbox_and_the_second_is_refused(self) -> None:
        transport, first, second = self.open(), Receiver("counter"), Receiver("counter")
        transport.attach(first.mailbox)

        with pytest.raises(NameTaken) as raised:
            transport.attach(second.mailbox)
        send(transport, tell("counter", "one"))

        assert raised.value.name == "counter"
        assert first.take(1) == ["one"]
        assert len(second.mailbox) == 0

    def test_of_many_threads_that_want_a_name_one_gets_it(self) -> None:
        transport = self.open()
        start = threading.Barrier(8)
        refused: list[NameTaken] = []

        def attach() -> None:
            start.wait(_DEADLINE)
            try:
                transport.attach(Receiver("counter").mailbox)
            except NameTaken as error:
                refused.append(error)

        run_in_threads(*[attach] * 8)

        assert len(refused) == 7
        assert transport.names() == ["counter"]

    def test_a_name_that_was_given_up_can_be_had_again(self) -> None:
        transport, old, new = self.open(), Receiver("counter"), Receiver("counter")
        transport.attach(old.mailbox)

        transport.detach(old.mailbox)
        transport.attach(new.mailbox)
        send(transport, tell("counter", "one"))

        assert new.take(1) == ["one"]
        assert len(old.mailbox) == 0

    def test_detaching_twice_does_not_hurt_a_successor(self) -> None:
        transport, old, new = self.open(), Receiver("counter"), Receiver("counter")
        transport.attach(old.mailbox)
        transport.detach(old.mailbox)
        transport.attach(new.mailbox)

        transport.detach(old.mailbox)
        send(transport, tell("counter", "one"))

        assert new.take(1) == ["one"]

    def test_detaching_what_was_never_attached_changes_nothing(self) -> None:
        transport = self.open()

        transport.detach(Receiver("counter").mailbox)

        assert transport.names() == []

    def test_flushing_leaves_nothing_that_was_not_accepted(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        for number in range(100):
            send(transport, tell("counter", number))

        assert transport.flush(_DEADLINE) == 0

    def test_it_can_be_closed_twice(self) -> None:
        transport = self.open()

        transport.close()
        transport.close()

    def test_names_come_and_go_while_others_send(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        def come_and_go(prefix: str) -> Callable[[], None]:
            def work() -> None:
                for number in range(100):
                    passer_by = Receiver(f"{prefix}{number}").mailbox
                    transport.attach(passer_by)
                    transport.subscribe(Route(passer_by.name, "prices.>"))
                    transport.detach(passer_by)

            return work

        def send_many() -> None:
            for number in range(100):
                send(transport, tell("counter", number))
                spread(transport, broadcast(number))
                spread(transport, event("prices.eur", number))

        run_in_threads(come_and_go("a"), come_and_go("b"), send_many)

        assert transport.names() == ["counter"]

    # -- guaranteed

    @needs(Guarantee.KNOWN_RECIPIENTS)
    def test_nobody_is_known_by_a_name_that_nobody_has(self) -> None:
        transport = self.open()

        assert transport.route("counter") is None

    @needs(Guarantee.KNOWN_RECIPIENTS)
    def test_who_has_left_is_not_known_any_more(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        transport.detach(counter.mailbox)

        assert transport.route("counter") is None

    @needs(Guarantee.ORDERED)
    def test_messages_from_one_sender_arrive_in_the_order_sent(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        for number in range(1_000):
            send(transport, tell("counter", number))

        assert counter.take(1_000) == list(range(1_000))

    @needs(Guarantee.ORDERED)
    def test_each_of_many_senders_has_its_order_kept(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        def sender(name: str) -> Callable[[], None]:
            def work() -> None:
                for number in range(250):
                    send(transport, tell("counter", [name, number], sender=name))

            return work

        run_in_threads(*(sender(name) for name in "abcd"))

        taken = counter.take(1_000)
        for name in "abcd":
            assert [number for sent_by, number in taken if sent_by == name] == list(range(250))

    @needs(Guarantee.PRIORITIZED)
    def test_the_more_urgent_of_two_that_wait_goes_first(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        for priority in reversed(Priority):
            send(transport, tell("counter", priority.name, priority=priority))
        counter.wait_for(4)

        assert counter.take(4) == ["URGENT", "HIGH", "NORMAL", "LOW"]

    @needs(Guarantee.PRIORITIZED)
    def test_the_least_urgent_is_served_while_urgent_ones_wait(self) -> None:
        transport, counter = self.open(), Receiver("counter")
        transport.attach(counter.mailbox)

        send(transport, tell("counter", "low", priority=Priority.LOW))
        for number in range(30):
            send(transport, tell("counter", number, priority=Priority.URGENT))
        transport.flush(_DEADLINE)

        assert "low" in counter.take(15)

    @needs(Guarantee.BOUNDED)
    def test_an_inbox_never_holds_more_than_its_capacity(self) -> None:
        transport, counter = self.open(), Receiver("counter", MailboxPolicy(3))
        transport.attach(counter.mailbox)

        answers = [offer(transport, tell("counter", number)) for number in range(5)]

        counter.wait_for(3)
        assert answers.count(Refusal.FULL) + transport.flush(0.1) == 2
        assert len(counter.mailbox) == 3
        assert counter.take(3) == [0, 1, 2]

    @needs(Guarantee.REFUSED_AT_ONCE)
    def test_a_full_inbox_refuses_what_is_sent(self) -> None:
        transport, counter = self.open(), Receiver("counter", MailboxPolicy(3))
        transport.attach(counter.mailbox)

        answers = [offer(transport, tell("counter", number)) for number in range(5)]

        assert answers == [None, None, None, Refusal.FULL, Refusal.FULL]

    @needs(Guarantee.BOUNDED)
    def test_there_is_room_again_once_a_message_was_taken(self) -> None:
        transport, counter = self.open(), Receiver("counter", MailboxPolicy(1))
        transport.attach(counter.mailbox)
        send(transport, tell("counter", "one"))
        counter.take(1)

        send(transport, tell("counter", "two"))

        assert counter.take(1) == ["two"]

    @needs(Guarantee.FANOUT)
    def test_a_broadcast_reaches_everyone_but_its_sender(self) -> None:
        transport = self.open()
        receivers = {name: Receiver(name) for name in ("counter", "editor", "scout")}
        for receiver in receivers.values():
            transport.attach(receiver.mailbox)

        spread(transport, broadcast("halt", sender="scout"))

        assert receivers["counter"].take(1) == ["halt"]
        assert receivers["editor"].take(1) == ["halt"]
        assert len(receivers["scout"].mailbox) == 0

    @needs(Guarantee.FANOUT)
    def test_a_broadcast_to_nobody_is_no_error(self) -> None:
        transport = self.open()

        spread(transport, broadcast("halt"))

        assert transport.names() == []

    @needs(Guarantee.FANOUT)
    def test_who_comes_after_a_broadcast_does_not_get_it(self) -> None:
        transport, early, late = self.open(), Receiver("early"), Receiver("late")
        transport.attach(early.mailbox)
        spread(transport, broadcast("first"))
        transport.flush(_DEADLINE)
        transport.attach(late.mailbox)

        spread(transport, broadcast("second"))

        assert early.take(2) == ["first", "second"]
        assert late.take(1) == ["second"]

    @needs(Guarantee.FANOUT)
    def test_an_event_reaches_who_subscribed_to_its_topic(self) -> None:
        transport, exact, star, rest, other = self._subscribed(
            "prices.eur", "prices.*", "prices.>", "orders.>"
        )

        spread(transport, event("prices.eur", 1.08))
        spread(transport, event("prices.eur.spot", 1.09))

        assert exact.take(1) == [1.08]
        assert star.take(1) == [1.08]
        assert rest.take(2) == [1.08, 1.09]
        assert [len(one.mailbox) for one in (exact, star, rest, other)] == [0, 0, 0, 0]

    @needs(Guarantee.FANOUT)
    def test_an_event_reaches_a_subscriber_once_however_many_patterns_match(self) -> None:
        transport, trader = self._subscribed("prices.eur")
        transport.subscribe(Route("trader-1", "prices.*"))
        transport.subscribe(Route("trader-1", ">"))

        spread(transport, event("prices.eur", 1))
        spread(transport, event("prices.eur", 2))

        assert trader.take(2) == [1, 2]
        assert len(trader.mailbox) == 0

    @needs(Guarantee.FANOUT)
    def test_an_event_never_reaches_its_own_sender(self) -> None:
        transport, sender, other = self._subscribed("prices.*", "prices.*")

        spread(transport, event("prices.eur", 1, sender="trader-1"))

        assert other.take(1) == [1]
        assert len(sender.mailbox) == 0

    @needs(Guarantee.FANOUT)
    def test_a_filter_lets_through_what_passes_it(self) -> None:
        transport, trader = self.open(), Receiver("trader")
        transport.attach(trader.mailbox)
        transport.subscribe(Route("trader", "orders.*", compiled({"country": "NO"})))

        for country in ("SE", "NO", "DK"):
            spread(transport, event("orders.new", {"country": country}))

        assert trader.take(1) == [{"country": "NO"}]
        assert len(trader.mailbox) == 0

    @needs(Guarantee.FANOUT)
    def test_a_subscription_ends_when_it_is_cancelled_and_may_be_cancelled_twice(self) -> None:
        transport, trader = self.open(), Receiver("trader")
        transport.attach(trader.mailbox)
        route = Route("trader", "prices.*")
        transport.subscribe(route)
        spread(transport, event("prices.eur", 1))
        before = trader.take(1)

        transport.unsubscribe(route)
        transport.unsubscribe(route)
        spread(transport, event("prices.eur", 2))

        assert before == [1]
        assert len(trader.mailbox) == 0

    @needs(Guarantee.FANOUT)
    def test_of_two_equal_subscriptions_one_goes_on_when_the_other_ends(self) -> None:
        transport, trader = self._subscribed("prices.*")
        second = Route("trader-1", "prices.*")
        transport.subscribe(second)

        transport.unsubscribe(second)
        spread(transport, event("prices.eur", 1))

        assert trader.take(1) == [1]

    @needs(Guarantee.FANOUT)
    def test_subscriptions_end_with_whoever_had_them(self) -> None:
        transport, old = self._subscribed("prices.*")
        transport.detach(old.mailbox)
        successor = Receiver("trader-1")
        transport.attach(successor.mailbox)

        spread(transport, event("prices.eur", 1))

        assert len(successor.mailbox) == 0

    def _subscribed(self, *patterns: str) -> tuple[Any, ...]:
        """A transport, and a receiver for each pattern: ``trader-1``, ``trader-2``, ..."""
        transport = self.open()
        receivers = [Receiver(f"trader-{number}") for number, _ in enumerate(patterns, start=1)]
        for receiver, pattern in zip(receivers, patterns, strict=True):
            transport.attach(receiver.mailbox)
            transport.subscribe(Route(receiver.mailbox.name, pattern))
        return (transport, *receivers)


def message(
    payload: Any,
    *,
    kind: MessageKind = MessageKind.TELL,
    recipient: str | None = None,
    topic: str | None = None,
    sender: str | None = None,
    priority: Priority = Priority.NORMAL,
    deadline: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Message[Any]:
    """A message as a bus would stamp it, at node time 0."""
    message_id = _ids.make(0.0)
    return Message(
        message_id,
        kind,
        sender,
        recipient,
        topic,
        payload,
        priority,
        0.0,
        deadline,
        message_id,
        None,
        None,
        1,
        0,
        headers,
    )


def tell(
    recipient: str, payload: Any, *, sender: str | None = None, priority: Priority = Priority.NORMAL
) -> Message[Any]:
    return message(payload, recipient=recipient, sender=sender, priority=priority)


def broadcast(payload: Any, *, sender: str | None = None) -> Message[Any]:
    return message(payload, kind=MessageKind.BROADCAST, sender=sender)


def event(topic: str, payload: Any, *, sender: str | None = None) -> Message[Any]:
    return message(payload, kind=MessageKind.EVENT, topic=topic, sender=sender)


def offer(transport: Transport, message: Message[Any]) -> Offered:
    """Offer `message` to whoever it is for, as a bus does."""
    assert message.recipient is not None
    inbox = transport.route(message.recipient)
    assert inbox is not None, f"nobody is known as {message.recipient!r}"
    return inbox.offer(message)


def send(transport: Transport, message: Message[Any]) -> None:
    assert offer(transport, message) is None


def spread(transport: Transport, message: Message[Any]) -> None:
    """Offer a broadcast or an event to its audience, as a bus does."""
    for inbox in transport.audience(message):
        assert inbox.offer(message) in (None, Refusal.CLOSED)


def run_in_threads(*work: Callable[[], None]) -> None:
    """Run each function in a thread of its own and wait for all; the first error is raised."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised on the test's thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE)
        assert not thread.is_alive(), "a thread did not end"
    if errors:
        raise errors[0]
