"""Nodes on one Redis, as their users meet them: each test has a deployment of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import fakeredis
import pytest

from actorbus import (
    Agent,
    AgentFailed,
    AgentStopped,
    AskTimeout,
    BusClosed,
    Cancelled,
    InvalidSettings,
    MailboxFull,
    MailboxPolicy,
    Message,
    NameTaken,
    Node,
    NoHandler,
    NotFlushed,
    OwnerLost,
    PayloadTooLarge,
    Priority,
    Ref,
    Reject,
    Rejected,
    Reply,
    Settings,
    Supervision,
    TransportUnavailable,
    Undecodable,
    UnknownRecipient,
    UnsupportedPayload,
    agent,
    handles,
)
from actorbus.bus.transports.redis.loads import Outgoing
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.message import Status
from actorbus.redis_client import RedisServer
from actorbus.registry.entry import AgentStatus
from actorbus.telemetry import TransportAway, TransportTrouble
from tests.hearing import hears_itself
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actorbus.bus.dead_letters import DeadLetter
    from tests.conftest import RedisProcess

DEADLINE = 10.0


class Deployment:
    """Nodes that see each other and nobody else's."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self.namespace = uuid4().hex
        self._stack = stack

    def make(self, name: str, **settings: Any) -> Node:
        """A node that does not run yet."""
        known = {"namespace": self.namespace, "log_level": "off", **settings}
        node = Node(self.url, name=name, settings=Settings(**known))
        self._stack.callback(node.stop)
        return node

    def start(self, name: str, **settings: Any) -> Node:
        return self.make(name, **settings).start()

    def pair(self) -> tuple[Node, Node]:
        return self.start("here"), self.start("there")


@pytest.fixture(params=["fakeredis", "real"])
def anywhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """A deployment on fakeredis, and one on a server."""
    if request.param == "fakeredis":
        fake = fakeredis.FakeServer()
        client = partial(fakeredis.FakeRedis, server=fake, protocol=2)
        faked = partial(RedisServer, make=lambda **_: client())
        monkeypatch.setattr("actorbus.redis_client.RedisServer", faked)
        url = "redis://fake"
    else:
        url = request.getfixturevalue("redis_url")
    with ExitStack() as stack:
        yield Deployment(url, stack)


@pytest.fixture
def deployment(redis_url: str) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(redis_url, stack)


@pytest.fixture
def crashing(
    start_redis: Callable[..., RedisProcess],
) -> Iterator[tuple[Deployment, RedisProcess]]:
    """A deployment on a server of its own, which keeps what it has when it is killed."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    with ExitStack() as stack:
        yield Deployment(server.url, stack), server


def letters(node: Node, count: int = 1) -> list[DeadLetter]:
    """The dead letters of a node, once there are so many."""
    until(lambda: len(node.dead_letters) >= count)
    return node.dead_letters.list()


@dataclass
class Order:
    number: int


@dataclass
class Greeting:
    to: Ref


class Gate:
    """Agents that are held at a gate by its name: they run in this process."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        self.entered.set()
        assert self.opened.wait(DEADLINE)


class Listener(Agent):
    """Keeps what it is told, in order."""

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate
        self.heard: list[Any] = []

    @handles
    def hear(self, message: Message[str | int | dict | Order]) -> None:  # type: ignore[type-arg]
        if message.payload == "hold":
            assert self.gate is not None
            self.gate.hold()
        else:
            self.heard.append(message)


def heard_by(ref: Ref, count: int) -> list[Any]:
    """The payloads that a ``Listener`` of this process has got, once there are so many."""
    messages: list[Message[Any]] = ref._cell.agent.heard  # type: ignore[union-attr]
    until(lambda: len(messages) >= count, f"{len(messages)} of {count}")
    return [message.payload for message in messages]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def silence(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have others take it for dead, though it goes on."""
    transport: Any = node.bus.transport
    transport._keeper.close(leave=False)
    registry: Any = node.registry
    monkeypatch.setattr(registry, "_beat_again_after", lambda _: None)
    registry._timer.cancel()


HASTY: Any = {"beat": 0.1, "suspect_after": 0.3, "dead_after": 1.0}
"""Settings of nodes that take each other for dead soon."""


class Clerk(Agent):
    @handles
    def upper(self, text: str) -> str:
        return text.upper()

    @handles
    def next_one(self, order: Order) -> Order:
        return Order(order.number + 1)


class Asks(Agent):
    """Says whether the handler that waits for an answer hears it itself."""

    @handles
    def ask_on(self, name: str) -> bool:
        return hears_itself(lambda: self.ask(name, "abc"))


class TestHearing:
    """Whoever waits for what comes is woken by it, and not by another thread."""

    def test_a_thread_that_waits_for_an_answer_hears_it_itself(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")

        until(lambda: hears_itself(lambda: here.ask("clerk", "abc")))

    def test_so_does_a_handler(self, deployment: Deployment) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")
        asks = here.spawn(Asks)

        until(lambda: asks.ask("clerk").get(DEADLINE))

    def test_the_answer_of_an_agent_of_its_own_node_it_cannot_hear(
        self, deployment: Deployment
    ) -> None:
        here = deployment.start("here")
        here.spawn(Clerk, name="clerk")

        assert not hears_itself(lambda: here.ask("clerk", "abc"))


class TestSending:
    def test_agents_of_two_nodes_are_asked_and_told_both_ways(self, anywhere: Deployment) -> None:
        here, there = anywhere.pair()
        here.spawn(Clerk, name="left")
        there.spawn(Clerk, name="right")
        listener = here.spawn(Listener, name="listener")

        there.tell("listener", "hello")

        assert here.ask("right", "abc").get(DEADLINE) == "ABC"
        assert there.ask("left", "xyz").get(DEADLINE) == "XYZ"
        assert heard_by(listener, 1) == ["hello"]

    def test_messages_of_a_sender_arrive_in_order(self, anywhere: Deployment) -> None:
        here, there = anywhere.pair()
        listener = there.spawn(Listener, name="listener")
        ref = here.ref("listener")

        for number in range(300):
            ref.tell(number)

        assert heard_by(listener, 300) == list(range(300))

    def test_the_most_urgent_goes_first(self, deployment: Deployment, gate: Gate) -> None:
        here, there = deployment.pair()
        listener = there.spawn(Listener, gate, name="listener")
        ref = here.ref("listener")
        ref.tell("hold")
        assert gate.entered.wait(DEADLINE)

        for priority in reversed(Priority):
            ref.tell(priority.name, priority=priority)
        here.flush(DEADLINE)
        until(lambda: len(listener._cell.mailbox) == len(Priority))  # type: ignore[union-attr]
        gate.opened.set()

        assert heard_by(listener, 4) == ["URGENT", "HIGH", "NORMAL", "LOW"]

    def test_what_expires_while_it_waits_is_a_dead_letter_of_its_owner(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        listener = there.spawn(Listener, gate, name="listener")
        here.tell("listener", "hold")
        assert gate.entered.wait(DEADLINE)

        here.tell("listener", "late", ttl=0.05)
        here.tell("listener", "timeless")
        until(lambda: len(listener._cell.mailbox) == 2)  # type: ignore[union-attr]
        late = listener._cell.mailbox.waiting()[0]  # type: ignore[union-attr]
        until(lambda: late.expired(there.bus.clock.now()))
        gate.opened.set()

        (letter,) = letters(there)
        assert (letter.reason, letter.message.payload, letter.recipient) == (
            "expired",
            "late",
            "listener",
        )
        assert heard_by(listener, 1) == ["timeless"]

    def test_a_delayed_message_comes_though_its_sender_has_stopped(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()
        listener = there.spawn(Listener, name="listener")

        here.tell("listener", "later", delay=0.3)
        here.tell("listener", "now")
        here.stop()

        assert heard_by(listener, 2) == ["now", "later"]

    def test_a_delay_is_kept_to_though_nobody_was_about_to_look(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()
        listener = there.spawn(Listener, name="listener")
        began = time.monotonic()

        for number in range(8):
            here.tell("listener", number, delay=0.05)
            heard_by(listener, number + 1)

        # Whoever looks but once a second takes four times as long.
        assert 8 * 0.05 <= time.monotonic() - began < 2.0

    def test_a_delayed_message_to_an_agent_that_is_gone_by_then_becomes_a_letter(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]
        ref = there.spawn(Listener, name="listener")

        here.tell("listener", "later", delay=0.3)
        here.flush(DEADLINE)
        ref.stop()

        until(log.letters)
        (letter,) = log.letters()
        assert (letter["agent"], letter["reason"]) == ("listener", "no-such-agent")
        assert log.depth("listener") == 0
        heir = there.spawn(Listener, name="listener")
        here.tell("listener", "new")
        assert heard_by(heir, 1) == ["new"]

    def test_a_delayed_message_that_finds_no_room_expires_when_its_ttl_is_over(
        self, anywhere: Deployment, gate: Gate
    ) -> None:
        class Small(Listener):
            mailbox = MailboxPolicy(capacity=1)

        here, there = anywhere.pair()
        there.spawn(Small, gate, name="small")
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]
        here.tell("small", "hold")
        assert gate.entered.wait(DEADLINE)

        here.tell("small", "later", delay=0.05, ttl=0.2)

        until(log.letters)
        (letter,) = log.letters()
        assert (letter["agent"], letter["reason"]) == ("small", "expired")

    def test_headers_and_the_senders_name_travel(self, deployment: Deployment) -> None:
        here, there = deployment.pair()
        listener = there.spawn(Listener, name="listener")

        @agent
        def relay(text: str) -> None:
            here.ref("listener").tell(text, headers={"colour": "blue"})

        here.spawn(relay, name="relay").tell("hello")

        heard_by(listener, 1)
        (message,) = listener._cell.agent.heard  # type: ignore[union-attr]
        assert message.sender == "relay"
        assert message.headers["colour"] == "blue"

    def test_a_class_that_a_node_knows_arrives_as_itself(self, deployment: Deployment) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")

        plain = here.ask("clerk", {"number": 1}).get(DEADLINE)
        rebuilt = here.ask("clerk", {"number": 2}, expect=Order).get(DEADLINE)

        assert plain == {"number": 2}
        assert rebuilt == Order(3)

    def test_async_handlers_functions_and_children_are_agents_like_others(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()

        class Waiter(Agent):
            @handles
            async def serve(self, text: str) -> str:
                return str(await self.ask("double", text))

        class Parent(Agent):
            def on_start(self) -> None:
                self.spawn(Clerk, name="child")

        @agent
        def double(text: str) -> str:
            return text * 2

        there.spawn(Waiter, name="waiter")
        here.spawn(double)
        here.spawn(double, name="double")
        there.spawn(Parent, name="parent")

        assert here.ask("waiter", "ab").get(DEADLINE) == "abab"
        until(lambda: "child" in there._runtime.cells)
        assert here.ask("child", "abc").get(DEADLINE) == "ABC"

    def test_tell_many_checks_all_names_of_all_nodes_first(self, deployment: Deployment) -> None:
        here, there = deployment.pair()
        near = here.spawn(Listener, name="near")
        far = there.spawn(Listener, name="far")

        with pytest.raises(UnknownRecipient):
            here.tell_many([("near", 1), ("far", 1), ("nowhere", 1)])
        here.tell_many([("near", 2), ("far", 2)])

        assert heard_by(near, 1) == [2]
        assert heard_by(far, 1) == [2]

    def test_a_pull_mailbox_of_another_node_takes_and_replies(self, anywhere: Deployment) -> None:
        here, there = anywhere.pair()
        mailbox = there.mailbox("desk")

        here.tell("desk", "note")
        (note,) = mailbox.take(timeout=DEADLINE)
        reply = here.ask("desk", "question")
        (request,) = mailbox.take(timeout=DEADLINE)
        mailbox.reply(request, "answer")
        refused = here.ask("desk", "another")
        (request,) = mailbox.take(timeout=DEADLINE)
        mailbox.reject(request, "closed")

        assert note.payload == "note"
        assert reply.get(DEADLINE) == "answer"
        with pytest.raises(Rejected, match="closed"):
            refused.get(DEADLINE)
        until(lambda: there.bus.transport.log.depth("desk") == 0)  # type: ignore[attr-defined]

    def test_a_ref_in_a_payload_arrives_as_a_ref_to_use(self, deployment: Deployment) -> None:
        here, there = deployment.pair()
        listener = here.spawn(Listener, name="listener")

        class Greeter(Agent):
            @handles
            def greet(self, greeting: Greeting) -> Ref:
                greeting.to.tell(f"hello from {self.name}")
                return self.ref

        there.spawn(Greeter, name="greeter")

        greeter = here.ask("greeter", Greeting(listener), expect=Ref).get(DEADLINE)

        assert heard_by(listener, 1) == ["hello from greeter"]
        assert greeter == there.ref("greeter")
        assert isinstance(greeter, Ref)

    def test_run_conversation_cause_and_hops_are_carried_from_node_to_node(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()

        class Relay(Agent):
            @handles
            def pass_on(self, message: Message[str]) -> None:
                self.tell("listener", str(message.id))

        listener = here.spawn(Listener, name="listener")
        there.spawn(Relay, name="relay")

        with here.run("spring") as run:
            here.ref("relay").tell("go")

        heard_by(listener, 1)
        (message,) = listener._cell.agent.heard  # type: ignore[union-attr]
        assert run.id == "spring"
        assert message.run_id == "spring"
        assert str(message.causation_id) == message.payload
        assert message.correlation_id == message.causation_id
        assert message.hops == 1

    def test_each_node_has_in_its_history_what_ended_there(self, deployment: Deployment) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")
        listener = here.spawn(Listener, name="listener")

        here.ask("clerk", "abc").get(DEADLINE)
        there.tell("listener", "hello")
        heard_by(listener, 1)

        until(lambda: len(there.history) == 2)
        until(lambda: len(here.history) == 1)
        assert [(one.kind, one.status) for one in there.history] == [
            ("request", "handled"),
            ("reply", "handled"),
        ]
        (told,) = here.history
        assert (told.kind, told.recipient, told.status) == ("tell", "listener", "handled")


class Faulty(Agent):
    """Answers in every way but with what was wanted."""

    @handles
    def work(self, text: str) -> Any:
        match text:
            case "fail":
                raise KeyError("no such page")
            case "refuse":
                raise Reject("not today")
            case "large":
                return "x" * (1 << 20)
            case "lock":
                return threading.Lock()
        return text


class Held(Agent):
    """Works for as long as its gate is shut, and notes what it saw of the end."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.handled: list[str] = []
        self.saw_cancel = threading.Event()

    @handles
    def work(self, text: str) -> str:
        self.gate.entered.set()
        give_up = time.monotonic() + DEADLINE
        while not self.gate.opened.wait(0.005):
            assert time.monotonic() < give_up
            if self.cancelled:
                self.saw_cancel.set()
                break
        self.handled.append(text)
        return text


def state_of(ref: Ref) -> Any:
    """The instance behind a Ref of this process."""
    return ref._cell.agent  # type: ignore[union-attr]


class TestErrors:
    def test_what_an_agent_raises_comes_with_type_text_and_traceback(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()
        there.spawn(Faulty, name="faulty")

        with pytest.raises(AgentFailed, match="no such page") as failed:
            here.ask("faulty", "fail").get(DEADLINE)
        with pytest.raises(Rejected, match="not today"):
            here.ask("faulty", "refuse").get(DEADLINE)
        with pytest.raises(NoHandler, match="faulty"):
            here.ask("faulty", 1.5).get(DEADLINE)

        assert failed.value.error_type == "KeyError"
        assert failed.value.message == "'no such page'"
        assert 'raise KeyError("no such page")' in failed.value.traceback
        assert here.ask("faulty", "fine").get(DEADLINE) == "fine"

    def test_an_answer_that_cannot_be_carried_is_an_error_to_whoever_asked(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()
        there.spawn(Faulty, name="faulty")

        with pytest.raises(PayloadTooLarge):
            here.ask("faulty", "large").get(DEADLINE)
        with pytest.raises(UnsupportedPayload):
            here.ask("faulty", "lock").get(DEADLINE)

        assert here.ask("faulty", "fine").get(DEADLINE) == "fine"

    def test_a_payload_that_cannot_be_carried_is_refused_at_the_call(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")

        with pytest.raises(UnsupportedPayload):
            here.tell("clerk", threading.Lock())
        with pytest.raises(PayloadTooLarge):
            here.tell("clerk", "x" * (1 << 20))
        refused = here.ask("clerk", threading.Lock())

        with pytest.raises(UnsupportedPayload):
            refused.get(DEADLINE)

    def test_an_ask_ends_at_its_deadline_and_is_not_begun_after_it(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        held = there.spawn(Held, gate, name="held")
        here.tell("held", "first")
        assert gate.entered.wait(DEADLINE)

        reply = here.ask("held", "late", timeout=0.1)
        until(lambda: len(held._cell.mailbox) == 1)  # type: ignore[union-attr]
        late = held._cell.mailbox.waiting()[0]  # type: ignore[union-attr]
        with pytest.raises(AskTimeout):
            reply.get(DEADLINE)
        until(lambda: late.expired(there.bus.clock.now()))
        gate.opened.set()

        assert here.ask("held", "last").get(DEADLINE) == "last"
        assert state_of(held).handled == ["first", "last"]

    def test_asks_that_wait_when_their_agent_stops_hear_so(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        held = there.spawn(Held, gate, name="held")
        in_hand = here.ask("held", "in hand")
        assert gate.entered.wait(DEADLINE)
        # Some are in its mailbox by now, and some are in Redis.
        waiting = [here.ask("held", str(number)) for number in range(40)]
        here.flush(DEADLINE)

        held.stop()
        gate.opened.set()

        assert in_hand.get(DEADLINE) == "in hand"
        for reply in waiting:
            with pytest.raises(AgentStopped, match="held"):
                reply.get(DEADLINE)
        with pytest.raises((UnknownRecipient, AgentStopped)):
            here.ask("held", "too late").get(DEADLINE)

    def test_who_asked_an_agent_hears_that_its_node_died(
        self, deployment: Deployment, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = deployment.start("here", **HASTY), deployment.start("there", **HASTY)
        there.spawn(Held, gate, name="held")
        reply = here.ask("held", "in hand")
        assert gate.entered.wait(DEADLINE)

        silence(there, monkeypatch)

        with pytest.raises(OwnerLost, match="held"):
            reply.get(DEADLINE)

    def test_cancelling_an_ask_is_seen_by_a_handler_of_another_node(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        held = there.spawn(Held, gate, name="held")
        reply = here.ask("held", "in hand")
        assert gate.entered.wait(DEADLINE)

        reply.cancel()

        assert state_of(held).saw_cancel.wait(DEADLINE)
        with pytest.raises(Cancelled):
            reply.get(DEADLINE)

    def test_a_cancelled_ask_that_waits_is_dropped_wherever_it_waits(
        self, anywhere: Deployment, gated: type[Gated]
    ) -> None:
        here, there = anywhere.pair()
        there.spawn(gated, name="gated")
        here.tell("gated", "slow")
        assert gated.begun.wait(DEADLINE)
        here.tell_many([("gated", number) for number in range(100)])
        dropped, kept = here.ask("gated", "dropped"), here.ask("gated", "kept")
        here.flush(DEADLINE)

        dropped.cancel()
        here.flush(DEADLINE)
        cancelled: Any = there.bus.transport._answers._cancelled  # type: ignore[attr-defined]
        until(lambda: cancelled)
        gated.gate.set()

        kept.get(DEADLINE)
        assert gated.heard == [*range(100), "kept"]
        statuses = [one.status for one in there.history.list()]
        assert statuses.count(Status.FAILED) == 1
        assert not cancelled

    def test_cancelling_an_ask_cancels_an_async_handler_and_what_that_asks(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        ended = threading.Event()

        class Patient(Agent):
            @handles
            async def wait(self, text: str) -> str:
                try:
                    return str(await self.ask("held", text))
                except (asyncio.CancelledError, Cancelled):
                    # It is interrupted, or first hears that what it waits for was cancelled.
                    ended.set()
                    raise

        held = here.spawn(Held, gate, name="held")
        there.spawn(Patient, name="patient")
        reply = here.ask("patient", "please")
        assert gate.entered.wait(DEADLINE)

        reply.cancel()

        assert ended.wait(DEADLINE)
        assert state_of(held).saw_cancel.wait(DEADLINE)

    def test_a_cancelled_ask_that_still_waits_is_never_begun(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        held = there.spawn(Held, gate, name="held")
        here.tell("held", "first")
        assert gate.entered.wait(DEADLINE)
        reply = here.ask("held", "never")
        until(lambda: len(held._cell.mailbox) == 1)  # type: ignore[union-attr]

        reply.cancel()
        until(lambda: not there.bus.transport._answers._open)  # type: ignore[attr-defined]
        gate.opened.set()

        assert here.ask("held", "last").get(DEADLINE) == "last"
        assert state_of(held).handled == ["first", "last"]
        until(lambda: any(one.reason == "cancelled" for one in there.history))

    def test_a_name_that_no_node_has_is_an_error_at_once_with_those_that_come_close(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()
        there.spawn(Clerk, name="counter")

        with pytest.raises(UnknownRecipient, match="Did you mean 'counter'"):
            here.tell("conter", "a")
        with pytest.raises(UnknownRecipient, match="Did you mean 'counter'"):
            here.ask("conter", "a").get(DEADLINE)

    def test_what_is_told_to_an_agent_that_has_stopped_comes_back_and_its_name_is_forgotten(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()
        stopped = there.spawn(Clerk, name="clerk")
        ref = here.ref("clerk")
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]

        stopped.stop()
        until(lambda: log.known(["clerk"]) == [None])
        ref.tell("too late")

        (letter,) = letters(here)
        assert (letter.reason, letter.message.payload) == ("no-such-agent", "too late")
        with pytest.raises(UnknownRecipient):
            here.ref("clerk")

    def test_a_name_of_another_node_is_taken_and_that_node_is_named(
        self, deployment: Deployment
    ) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")

        with pytest.raises(NameTaken, match="there"):
            here.spawn(Clerk, name="clerk")
        with pytest.raises(NameTaken, match="there"):
            here.mailbox("clerk")

        assert here.ask("clerk", "a").get(DEADLINE) == "A"

    def test_bytes_that_are_no_message_become_a_letter_and_the_next_is_handled(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()
        listener = there.spawn(Listener, name="listener")
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]

        log.send("stranger", [Outgoing("listener", 1, 2, b"i" * 16, b"\xc1 no message")])
        here.tell("listener", "next")

        assert heard_by(listener, 1) == ["next"]
        (letter,) = letters(there)
        assert (letter.reason, letter.recipient) == ("undecodable", "listener")
        until(log.letters)
        (kept,) = log.letters()
        assert (kept["agent"], kept["reason"]) == ("listener", "undecodable")

    def test_a_payload_that_cannot_be_rebuilt_ends_its_message_and_its_asker_hears_why(
        self, anywhere: Deployment
    ) -> None:
        @dataclass
        class Sized:
            width: int

        narrow = Sized

        @dataclass
        class Sized:  # type: ignore[no-redef]
            width: int
            height: int

        class Fitter(Agent):
            @handles
            def fit(self, one: Sized) -> int:
                return one.width

        here, there = anywhere.pair()
        there.spawn(Fitter, name="fitter")
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]

        with pytest.raises(Undecodable, match="Sized"):
            here.ask("fitter", narrow(3)).get(DEADLINE)
        here.tell("fitter", narrow(3))

        (letter,) = letters(there)
        until(log.letters)
        (kept,) = log.letters()
        assert kept["id"] == letter.id.to_bytes(16, "big")
        assert (kept["reason"], letter.reason) == ("undecodable", "undecodable")

    def test_a_reply_that_is_passed_on_comes_from_the_third_node(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()
        third = anywhere.start("third")

        class Front(Agent):
            @handles
            def pass_on(self, text: str) -> Reply[Any]:
                return self.ask("faulty", text)

        there.spawn(Front, name="front")
        third.spawn(Faulty, name="faulty")

        assert here.ask("front", "fine").get(DEADLINE) == "fine"
        with pytest.raises(Rejected, match="not today"):
            here.ask("front", "refuse").get(DEADLINE)


class Fragile(Agent):
    """Fails at every "bad", and keeps the rest."""

    supervision = Supervision(retries=1, max_restarts=1, backoff=0.001)
    heard: ClassVar[list[Any]]
    attempts: ClassVar[list[int]]

    @handles
    def hear(self, message: Message[str | int]) -> None:
        if message.payload == "bad":
            self.attempts.append(message.attempt)
            raise ValueError("a bad one")
        self.heard.append(message.payload)


@pytest.fixture
def fragile() -> type[Fragile]:
    """A class whose instances keep what they got together."""
    return type("Fragile", (Fragile,), {"heard": [], "attempts": [], "__module__": __name__})


class Gated(Agent):
    """Waits for its gate to be open, if it is told "slow" or "bad"; then "bad" has it parked."""

    supervision = Supervision(retries=0, max_restarts=0)
    begun: ClassVar[threading.Event]
    gate: ClassVar[threading.Event]
    heard: ClassVar[list[Any]]

    @handles
    def hear(self, payload: str | int) -> None:
        if payload in ("bad", "slow"):
            self.begun.set()
            assert self.gate.wait(DEADLINE)
            if payload == "bad":
                raise ValueError("a bad one")
        else:
            self.heard.append(payload)


@pytest.fixture
def gated() -> type[Gated]:
    events = {"begun": threading.Event(), "gate": threading.Event()}
    return type("Gated", (Gated,), {**events, "heard": [], "__module__": __name__})


class TestEndings:
    def test_what_fails_after_its_retries_is_a_letter_of_the_node_and_of_the_deployment(
        self, anywhere: Deployment, fragile: type[Fragile]
    ) -> None:
        here, there = anywhere.pair()
        there.spawn(fragile, name="fragile")

        here.tell("fragile", "bad")
        here.tell("fragile", "good")

        (letter,) = letters(there)
        until(lambda: fragile.heard == ["good"])
        until(here.bus.transport.log.letters)  # type: ignore[attr-defined]
        (kept,) = here.bus.transport.log.letters()  # type: ignore[attr-defined]
        assert fragile.attempts == [1, 2]
        assert (letter.reason, letter.attempts) == ("handler-error", 2)
        assert "a bad one" in (letter.error or "")
        assert (kept["agent"], kept["reason"], kept["attempts"]) == ("fragile", "handler-error", 2)
        assert "a bad one" in kept["error"]
        assert int.from_bytes(kept["id"], "big") == letter.id

    def test_a_restarted_agent_goes_on_with_what_waits(
        self, deployment: Deployment, fragile: type[Fragile]
    ) -> None:
        here, there = deployment.pair()
        there.spawn(fragile, name="fragile")

        here.tell_many([("fragile", one) for one in [0, "bad", *range(1, 60)]])

        until(lambda: len(fragile.heard) == 60)
        assert fragile.heard == list(range(60))

    def test_a_parked_agent_refuses_asks_keeps_tells_and_goes_on_when_unparked(
        self, deployment: Deployment, fragile: type[Fragile]
    ) -> None:
        here, there = deployment.pair()
        ref = there.spawn(fragile, name="fragile")
        here.tell_many([("fragile", "bad"), ("fragile", "bad")])
        until(lambda: ref._cell.parked)  # type: ignore[union-attr]

        here.tell_many([("fragile", number) for number in range(10)])
        with pytest.raises(AgentStopped, match="parked"):
            here.ask("fragile", 10).get(DEADLINE)
        assert fragile.heard == []
        there.unpark("fragile")

        until(lambda: len(fragile.heard) == 10)
        assert fragile.heard == list(range(10))

    @pytest.mark.parametrize("asks_itself", [False, True], ids=["from-afar", "from-its-node"])
    def test_asks_that_wait_behind_tells_hear_at_once_that_their_agent_was_parked(
        self, anywhere: Deployment, gated: type[Gated], *, asks_itself: bool
    ) -> None:
        here, there = anywhere.pair()
        there.spawn(gated, name="gated")
        asker = there if asks_itself else here
        asker.tell("gated", "bad")
        assert gated.begun.wait(DEADLINE)
        asker.tell_many([("gated", number) for number in range(150)])
        replies = [asker.ask("gated", "asked", priority=one) for one in Priority]
        asker.tell("gated", 150)
        asker.flush(DEADLINE)

        gated.gate.set()

        for reply in replies:
            with pytest.raises(AgentStopped, match="is parked"):
                reply.get(DEADLINE)
        assert gated.heard == []
        ends = [one.status for one in there.history.list()]
        assert ends.count(Status.FAILED) == 4
        there.unpark("gated")
        until(lambda: len(gated.heard) == 151)
        assert gated.heard == list(range(151))
        until(lambda: there.bus.transport.log.depth("gated") == 0)  # type: ignore[attr-defined]

    def test_an_ask_from_who_has_not_heard_yet_that_an_agent_is_parked_is_answered_too(
        self, deployment: Deployment, gated: type[Gated], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = deployment.pair()
        ref = there.spawn(gated, name="gated")
        here.tell_many([("gated", "bad"), *(("gated", number) for number in range(50))])
        gated.gate.set()
        until(lambda: ref._cell.parked)  # type: ignore[union-attr]
        monkeypatch.setattr(here._runtime.registry, "standing", lambda _: AgentStatus.IDLE)

        reply = here.ask("gated", "asked")

        with pytest.raises(AgentStopped, match="is parked"):
            reply.get(DEADLINE)

    def test_a_requeued_letter_is_a_new_message_whose_cause_is_the_old(
        self, deployment: Deployment, fragile: type[Fragile]
    ) -> None:
        here, there = deployment.pair()
        there.spawn(fragile, name="fragile")
        here.tell("fragile", "bad")
        (letter,) = letters(there)

        again = there.dead_letters.requeue(letter.id)

        until(lambda: len(there.dead_letters) == 1)
        (second,) = there.dead_letters.list()
        assert second.id == again != letter.id
        assert second.message.causation_id == letter.id
        assert fragile.attempts == [1, 2, 1, 2]

    @pytest.mark.parametrize("overflow", ["reject", "drop-newest"])
    def test_a_full_inbox_that_waits_for_nobody_sends_back_letters_and_errors(
        self, anywhere: Deployment, gate: Gate, overflow: Any
    ) -> None:
        class Small(Listener):
            mailbox = MailboxPolicy(capacity=3, overflow=overflow)

        here, there = anywhere.pair()
        small = there.spawn(Small, gate, name="small")
        here.tell("small", "hold")
        assert gate.entered.wait(DEADLINE)

        for number in range(5):
            here.tell("small", number)
        refused = here.ask("small", 5)
        with pytest.raises(MailboxFull, match="small"):
            refused.get(DEADLINE)
        found = letters(here, 3)
        gate.opened.set()

        assert {one.reason for one in found} == {"mailbox-full"}
        assert sorted(one.message.payload for one in found) == [2, 3, 4]
        assert heard_by(small, 2) == [0, 1]

    def test_an_inbox_never_holds_more_than_its_capacity_and_senders_wait(
        self, anywhere: Deployment, gate: Gate
    ) -> None:
        class Small(Listener):
            mailbox = MailboxPolicy(capacity=3)

        here, there = anywhere.pair()
        small = there.spawn(Small, gate, name="small")
        log: InboxLog = there.bus.transport.log  # type: ignore[attr-defined]
        here.tell("small", "hold")
        assert gate.entered.wait(DEADLINE)

        for number in range(10):
            here.tell("small", number)
        until(lambda: log.depth("small") == 3)
        with pytest.raises(NotFlushed):
            here.flush(0.1)
        assert log.depth("small") == 3
        gate.opened.set()

        assert heard_by(small, 10) == list(range(10))

    def test_what_finds_no_room_in_time_is_a_letter_of_its_sender(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        class Small(Listener):
            mailbox = MailboxPolicy(capacity=1)

        here, there = deployment.start("here", send_timeout=0.1), deployment.start("there")
        there.spawn(Small, gate, name="small")
        here.tell("small", "hold")
        assert gate.entered.wait(DEADLINE)

        here.tell("small", "too many")

        (letter,) = letters(here)
        assert (letter.reason, letter.message.payload) == ("mailbox-full", "too many")

    def test_a_mailbox_that_drops_its_oldest_is_refused_with_what_can_be_had(
        self, deployment: Deployment
    ) -> None:
        class Forgetful(Agent):
            mailbox = MailboxPolicy(overflow="drop-oldest")

        node = deployment.start("node")

        with pytest.raises(InvalidSettings, match="drop-newest"):
            node.spawn(Forgetful, name="forgetful")

        assert node.spawn(Clerk, name="forgetful").ask("a").get(DEADLINE) == "A"

    def test_a_full_outbox_says_that_redis_is_away_and_all_arrives_once_it_is_back(
        self, crashing: tuple[Deployment, RedisProcess]
    ) -> None:
        deployment, server = crashing
        here = deployment.start("here", send_timeout=1.0)
        listener = deployment.start("there").spawn(Listener, name="listener")
        here.bus.transport._sender._outbox._limit = 100  # type: ignore[attr-defined]
        ref = here.ref("listener")
        ref.tell(0)
        here.flush(DEADLINE)
        server.kill()

        for number in range(1, 101):
            ref.tell(number)
        began = time.monotonic()
        with pytest.raises(TransportUnavailable, match="refused"):
            ref.tell(101)
        took = time.monotonic() - began
        server.start()
        here.flush(DEADLINE)
        ref.tell(102)

        assert took < 1.0
        assert heard_by(listener, 102) == [*range(101), 102]


class Traveller(Agent):
    """Moves between nodes; its instances, of one process here, keep what they got together."""

    failover = True
    heard: ClassVar[list[Any]]
    gate: ClassVar[Gate]
    made: ClassVar[list[str]]

    def __init__(self, greeting: str = "") -> None:
        self.greeting = greeting
        self.made.append(greeting)

    @handles
    def hear(self, number: int) -> str:
        self.gate.hold()
        self.heard.append(number)
        return f"{self.greeting} {number}"


@pytest.fixture
def traveller(gate: Gate) -> type[Traveller]:
    gate.opened.set()
    own = {"heard": [], "made": [], "gate": gate, "__module__": __name__}
    return type("Traveller", (Traveller,), own)


class TestLife:
    def test_leaving_a_node_handles_first_what_is_still_on_its_way_to_its_agents(
        self, anywhere: Deployment
    ) -> None:
        heard: list[int] = []

        @agent
        def keep(number: int) -> None:
            heard.append(number)

        with anywhere.make("node") as node:
            node.spawn(keep, name="keep")
            for number in range(500):
                node.tell("keep", number)

        assert heard == list(range(500))

    def test_leaving_a_node_handles_first_what_others_sent_to_its_agents(
        self, deployment: Deployment
    ) -> None:
        heard: list[int] = []

        @agent
        def keep(number: int) -> None:
            heard.append(number)

        here = deployment.start("here")
        with deployment.make("there") as there:
            there.spawn(keep, name="keep")
            ref = here.ref("keep")
            for number in range(500):
                ref.tell(number)
            here.flush(DEADLINE)

        assert heard == list(range(500))

    def test_flushing_says_how_many_are_not_accepted_while_redis_is_away(
        self, crashing: tuple[Deployment, RedisProcess]
    ) -> None:
        deployment, server = crashing
        here, there = deployment.pair()
        listener = there.spawn(Listener, name="listener")
        ref = here.ref("listener")
        server.kill()

        ref.tell(1)
        ref.tell(2)
        with pytest.raises(NotFlushed) as left:
            here.flush(0.1)
        server.start()
        here.flush(DEADLINE)

        assert left.value.count == 2
        assert heard_by(listener, 2) == [1, 2]

    def test_what_waits_for_agents_of_a_node_that_stops_ends_with_it_and_names_are_free(
        self, deployment: Deployment, gate: Gate
    ) -> None:
        here, there = deployment.pair()
        there.spawn(Held, gate, name="held")
        here.tell("held", "in hand")
        assert gate.entered.wait(DEADLINE)
        here.tell_many([("held", str(number)) for number in range(40)])
        asked = here.ask("held", "asked")
        here.flush(DEADLINE)

        stopping = threading.Thread(target=there.stop)
        stopping.start()
        until(lambda: there.bus.closed)
        gate.opened.set()
        stopping.join(DEADLINE)

        with pytest.raises(AgentStopped, match="held"):
            asked.get(DEADLINE)
        assert [one.reason for one in there.dead_letters.list()] == ["stopped"] * 40
        assert here.spawn(Held, gate, name="held").ask("new").get(DEADLINE) == "new"
        assert {one["reason"] for one in here.bus.transport.log.letters()} == {"stopped"}  # type: ignore[attr-defined]

    def test_an_agent_marked_failover_moves_with_all_that_waits_and_runs_nothing_twice(
        self, anywhere: Deployment, traveller: type[Traveller], gate: Gate
    ) -> None:
        here, there = anywhere.pair()
        third = anywhere.start("third")
        third.spawn(traveller, name="makes it known there").stop()
        there.spawn(traveller, "hello", name="traveller")
        gate.opened.clear()
        here.tell_many([("traveller", number) for number in range(100)])
        here.flush(DEADLINE)
        assert gate.entered.wait(DEADLINE)

        stopping = threading.Thread(target=there.stop)
        stopping.start()
        until(lambda: there._runtime.cells["traveller"].mailbox.closed)
        gate.opened.set()
        stopping.join(DEADLINE)

        assert here.ask("traveller", 100).get(DEADLINE) == "hello 100"
        assert traveller.heard == list(range(101))
        assert "traveller" in third._runtime.cells
        assert traveller.made == ["", "hello", "hello"]
        assert len(there.dead_letters) == 0

    def test_an_agent_moves_in_the_midst_of_traffic_in_order_and_runs_nothing_twice(
        self, deployment: Deployment, traveller: type[Traveller]
    ) -> None:
        here = deployment.start("here")
        nodes = [deployment.start(f"node-{number}") for number in range(4)]
        nodes[0].spawn(traveller, "hello", name="traveller")
        for node in nodes[1:]:
            node.spawn(traveller, name=f"makes it known on {node.name}").stop()
        ref = here.ref("traveller")

        for number in range(2_000):
            ref.tell(number)
            if number % 500 == 499 and len(nodes) > 1:
                here.flush(DEADLINE)
                owner = owner_of("traveller", *nodes)
                nodes.remove(owner)
                threading.Thread(target=owner.stop).start()
                until(lambda: any("traveller" in node._runtime.cells for node in nodes))

        until(lambda: len(traveller.heard) >= 2_000)
        assert traveller.heard == list(range(2_000))

    def test_agents_of_a_dead_node_are_owned_once_and_go_on_with_their_events(
        self, deployment: Deployment, traveller: type[Traveller], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        traveller.subscriptions = ("numbers",)
        here, there = deployment.start("here", **HASTY), deployment.start("there", **HASTY)
        here.spawn(traveller, name="makes it known").stop()
        refs = [there.spawn(traveller, name=f"traveller {number}") for number in range(50)]
        refs[0].subscribe("more")
        here.topic("numbers").publish(1)
        here.flush(DEADLINE)
        until(lambda: len(traveller.heard) == 50)
        transport: Any = here.bus.transport
        asked: list[str] = []
        acquire = transport.log.acquire_and_ask

        def count_and_acquire(name: str, *rest: Any, **how: Any) -> Any:
            asked.append(name)
            return acquire(name, *rest, **how)

        monkeypatch.setattr(transport.log, "acquire_and_ask", count_and_acquire)

        silence(there, monkeypatch)
        until(lambda: len(here._runtime.cells) == 50)
        here.topic("numbers").publish(2)
        here.topic("more").publish(3)
        here.ask("traveller 7", 4).get(DEADLINE)
        here.flush(DEADLINE)

        until(lambda: traveller.heard.count(2) >= 50 and 3 in traveller.heard)
        assert asked == []

    def test_events_are_not_missed_where_the_answer_to_taking_an_agent_over_was_lost(
        self, deployment: Deployment, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard: dict[str, list[int]] = {"listener": [], "reader": []}

        class Reader(Agent):
            failover = True
            subscriptions = ("numbers",)

            @handles
            def hear(self, number: int) -> None:
                cell: Any = self._cell
                if cell.runtime is there._runtime:
                    gate.hold()
                else:
                    heard[self.name].append(number)

        here, there = deployment.start("here", **HASTY), deployment.start("there", **HASTY)
        here.spawn(Reader, name="listener")
        there.spawn(Reader, name="reader")
        here.topic("numbers").publish(1)
        assert gate.entered.wait(DEADLINE)
        here.topic("numbers").publish(2)
        until(lambda: heard["listener"] == [1, 2])
        log: Any = here.bus.transport.log  # type: ignore[attr-defined]
        acquire = log.acquire_many
        lost: list[list[str]] = []

        def lose_the_first_answer(agents: list[str], *rest: Any, **how: Any) -> Any:
            told = acquire(agents, *rest, **how)
            if not lost:
                lost.append(agents)
                raise TransportUnavailable("the answer was lost")
            return told

        monkeypatch.setattr(log, "acquire_many", lose_the_first_answer)

        silence(there, monkeypatch)

        until(lambda: heard["reader"] == [1, 2])
        assert lost == [["reader"]]
        gate.opened.set()

    def test_an_agent_that_cannot_be_made_here_goes_on_elsewhere_where_it_was(
        self, deployment: Deployment, traveller: type[Traveller]
    ) -> None:
        traveller.subscriptions = ("numbers",)
        here, there = deployment.pair()
        here.spawn(traveller, name="makes it known").stop()
        there.spawn(traveller, name="traveller")
        transport: Any = here.bus.transport
        crew, failures = transport.crew, []

        class Unable:
            spec, can_make = crew.spec, crew.can_make

            def make(self, name: str, spec: bytes) -> None:
                here.topic("numbers").publish(1)  # who is made later is to get it
                here.flush(DEADLINE)
                failures.append(name)
                raise RuntimeError("no room for it")

        transport.crew = Unable()
        there.stop()
        until(lambda: failures)
        transport.crew = crew
        third = deployment.start("third")
        third.spawn(traveller, name="makes it known there").stop()

        until(lambda: "traveller" in third._runtime.cells)
        until(lambda: traveller.heard == [1])

    def test_agents_of_a_node_that_was_about_to_take_them_are_left_to_others(
        self, deployment: Deployment, traveller: type[Traveller]
    ) -> None:
        here, there = deployment.pair()
        third = deployment.start("third")
        there.spawn(traveller, "hello", name="traveller")
        there.stop()
        transport: Any = here.bus.transport

        # The node begins to stop right after it became the owner.
        owned = transport.log.acquire("traveller", transport.node, ttl=10.0)
        transport._stays.leaving = True
        transport._adopter.make([owned])
        third.spawn(traveller, name="makes it known there")

        assert third.ask("traveller", 1).get(DEADLINE) == "hello 1"

    def test_an_agent_that_was_made_while_its_node_began_to_stop_is_given_up_with_the_others(
        self, deployment: Deployment, traveller: type[Traveller]
    ) -> None:
        here, there = deployment.pair()
        third = deployment.start("third")
        there.spawn(traveller, "hello", name="traveller")
        there.stop()
        transport: Any = here.bus.transport
        transport.crew.know(traveller)
        make = transport.crew.make

        def stop_meanwhile(name: str, spec: bytes) -> None:
            make(name, spec)
            raise BusClosed("the node is not running")

        owned = transport.log.acquire("traveller", transport.node, ttl=10.0)
        transport.crew.make = stop_meanwhile
        transport._adopter.make([owned])

        # Given up now, what it has done and not acknowledged would be done again.
        assert transport.log.known(["traveller"])[0].node == transport.node
        assert third.ask("traveller", 1).get(DEADLINE) == "hello 1"

    def test_an_agent_that_was_not_made_because_redis_was_away_is_made_soon(
        self, deployment: Deployment, traveller: type[Traveller]
    ) -> None:
        here, there = deployment.pair()
        there.spawn(traveller, "hello", name="traveller")
        transport: Any = here.bus.transport
        make = transport.crew.make
        failures = iter([TransportUnavailable("the server is away")])

        def make_or_fail(name: str, spec: bytes) -> None:
            for failure in failures:
                raise failure
            make(name, spec)

        transport.crew.make = make_or_fail
        transport.crew.know(traveller)
        there.stop()

        assert here.ask("traveller", 1).get(DEADLINE) == "hello 1"

    def test_an_agent_that_nobody_can_make_waits_for_a_node_that_can(
        self, deployment: Deployment, traveller: type[Traveller]
    ) -> None:
        here, there = deployment.pair()
        there.spawn(traveller, "hello", name="traveller")

        there.stop()
        asked = here.ask("traveller", 1)
        here.tell("traveller", 2)
        later = deployment.start("later")
        later.spawn(traveller, name="makes it known there")

        assert asked.get(DEADLINE) == "hello 1"
        until(lambda: traveller.heard == [1, 2])

    def test_a_name_can_be_had_again_right_after_its_agent_stopped(
        self, anywhere: Deployment
    ) -> None:
        here, there = anywhere.pair()

        for _ in range(5):
            ref = there.spawn(Clerk, name="clerk")
            assert here.ask("clerk", "a").get(DEADLINE) == "A"
            ref.stop()
            until(lambda: "clerk" not in there._runtime.cells)

        there.stop()
        assert here.spawn(Clerk, name="clerk").ask("b").get(DEADLINE) == "B"

    def test_agents_that_stop_while_redis_is_away_are_gone_once_it_is_back(
        self, crashing: tuple[Deployment, RedisProcess]
    ) -> None:
        deployment, server = crashing
        here, there = deployment.pair()
        events: list[Any] = []
        there.telemetry.listen(events.append)
        refs = [there.spawn(Clerk, name=f"clerk-{number}") for number in range(3)]
        far = here.ref("clerk-1")
        server.kill()

        for ref in refs:
            ref.stop()
        until(lambda: not there._runtime.cells)
        until(lambda: any(isinstance(one, TransportAway) for one in events))
        server.start()

        until(lambda: here.bus.transport.log.known(["clerk-1"]) == [None])  # type: ignore[attr-defined]
        with pytest.raises((UnknownRecipient, AgentStopped)):
            far.ask("a").get(DEADLINE)

    def test_a_name_is_not_had_again_before_its_last_agent_is_buried(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = deployment.start("node")
        node.spawn(Clerk, name="clerk").stop()
        until(lambda: not node._runtime.cells)
        transport: Any = node.bus.transport
        transport._stays.await_burial("clerk")
        monkeypatch.setattr("actorbus.bus.transports.redis.stays.BURIAL", 0.01)
        transport._stays._graves["clerk"] = True

        with pytest.raises(NameTaken, match="node"):
            node.spawn(Clerk, name="clerk")

        transport._stays.buried(["clerk"])
        assert node.spawn(Clerk, name="clerk").ask("a").get(DEADLINE) == "A"

    def test_starting_while_redis_is_away_fails_within_seconds_and_works_later(
        self, crashing: tuple[Deployment, RedisProcess]
    ) -> None:
        deployment, server = crashing
        node = deployment.make("node")
        server.kill()

        began = time.monotonic()
        with pytest.raises(TransportUnavailable):
            node.start()
        took = time.monotonic() - began
        server.start()
        node.start()

        assert took < 5.0
        assert node.spawn(Clerk).ask("a").get(DEADLINE) == "A"

    def test_the_first_message_to_an_agent_waits_for_it_where_the_server_forgot_everything(
        self, start_redis: Callable[..., RedisProcess], gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = start_redis()
        with ExitStack() as stack:
            deployment = Deployment(server.url, stack)
            here, there = deployment.pair()
            there.spawn(Clerk, name="clerk")
            owner: Any = there.bus.transport
            acquire = owner.log.acquire

            def acquire_later(*args: Any, **how: Any) -> Any:
                gate.opened.wait(DEADLINE)
                return acquire(*args, **how)

            monkeypatch.setattr(owner.log, "acquire", acquire_later)
            sender: Any = here.bus.transport
            server.kill()
            until(lambda: sender._sender.doubts)
            server.start()

            asked = here.ask("clerk", "a")
            until(sender._sender._outbox._lanes.wakes_at)
            gate.opened.set()

            assert asked.get(DEADLINE) == "A"

    def test_a_name_that_nobody_has_is_an_error_again_soon_after_the_server_is_back(
        self, crashing: tuple[Deployment, RedisProcess]
    ) -> None:
        deployment, server = crashing
        node = deployment.start("node")
        transport: Any = node.bus.transport
        server.kill()
        until(lambda: transport._sender.doubts)

        server.start()
        until(lambda: not transport._sender.doubts)

        with pytest.raises(UnknownRecipient):
            node.tell("nobody", "a")

    def test_a_node_starts_on_a_full_server_and_runs_agents_once_there_is_room(
        self, start_redis: Callable[..., RedisProcess]
    ) -> None:
        server = start_redis("--maxmemory-policy", "noeviction")
        client = RedisServer(server.url)
        with ExitStack() as stack:
            stack.callback(client.close)
            deployment = Deployment(server.url, stack)
            deployment.start("early")
            client.client.config_set("maxmemory", 1)

            node = deployment.start("late")
            clerk = node.spawn(Clerk, name="clerk")
            asked = clerk.ask("a")
            found = node.registry.get("clerk")
            with pytest.raises(NotFlushed):
                node.flush(0.2)
            client.client.config_set("maxmemory", 0)

            assert asked.get(DEADLINE) == "A"
            assert found is not None
            assert found.node == "late"

    def test_agents_that_came_and_went_leave_no_keys_but_their_names_for_a_while(
        self, deployment: Deployment, redis_url: str
    ) -> None:
        server = RedisServer(redis_url)

        def keys() -> set[str]:
            found = server.client.scan_iter(f"*{deployment.namespace}*", count=1_000)
            return {one.decode() for one in found}

        node = deployment.start("node")
        log: InboxLog = node.bus.transport.log  # type: ignore[attr-defined]
        nodes_own = log.names()
        node.spawn(Clerk, name="first").stop()
        until(lambda: log.names() == nodes_own)
        first = keys()

        refs = [node.spawn(Clerk, name=f"clerk-{number}") for number in range(200)]
        for reply in [ref.ask("a") for ref in refs]:
            reply.get(DEADLINE)
        for ref in refs:
            ref.stop()
        until(lambda: not node._runtime.cells)
        until(lambda: log.names() == nodes_own)

        left = keys() - first
        assert {key.rpartition(":")[0] for key in left} <= {f"{{{deployment.namespace}.p0}}:a"}
        assert all(0 < int(server.client.ttl(key)) <= 600 for key in left)
        server.close()

    def test_a_stopped_node_leaves_no_thread_and_may_be_stopped_again(
        self, deployment: Deployment
    ) -> None:
        before = set(threading.enumerate())
        node = deployment.start("node")
        node.spawn(Clerk).ask("a").get(DEADLINE)

        node.stop()
        node.stop()
        node.bus.transport.close()

        until(lambda: set(threading.enumerate()) <= before)
        with pytest.raises(BusClosed):
            node.tell("clerk", "a")

    async def test_nodes_of_an_event_loop_ask_and_await_each_other(
        self, anywhere: Deployment
    ) -> None:
        heard: list[str] = []

        class Echo(Agent):
            @handles
            async def echo(self, text: str) -> str:
                heard.append(text)
                return text

        async with anywhere.make("here") as here, anywhere.make("there") as there:
            there.spawn(Echo, name="echo")

            answers = [await here.ask("echo", str(number)) for number in range(20)]
            here.tell("echo", "last")
            await asyncio.to_thread(here.flush, DEADLINE)

        assert answers == [str(number) for number in range(20)]
        assert heard == [*answers, "last"]

    def test_a_second_node_of_a_name_is_refused_and_leaves_nothing_running(
        self, deployment: Deployment
    ) -> None:
        first = deployment.start("node")
        second = deployment.make("node")
        before = set(threading.enumerate())

        with pytest.raises(NameTaken, match="node"):
            second.start()

        until(lambda: set(threading.enumerate()) <= before)
        assert first.spawn(Clerk).ask("a").get(DEADLINE) == "A"

    def test_a_node_that_never_started_can_be_stopped(self, deployment: Deployment) -> None:
        node = deployment.make("node")

        node.stop()

        with pytest.raises(BusClosed):
            node.start()

    def test_nothing_is_lost_or_out_of_order_when_redis_is_restarted_mid_traffic(
        self, crashing: tuple[Deployment, RedisProcess]
    ) -> None:
        deployment, server = crashing
        here, there = deployment.pair()
        listener = there.spawn(Listener, name="listener")
        ref = here.ref("listener")

        for number in range(3_000):
            ref.tell(number)
            if number == 1_000:
                server.kill()
            if number == 2_000:
                server.start()

        assert heard_by(listener, 3_000) == list(range(3_000))
        assert len(here.dead_letters) == len(there.dead_letters) == 0


LAZY = """
from actorbus import Agent, handles

class Counter(Agent):
    def __init__(self):
        self.count = 0

    @handles
    def add(self, number: int) -> int:
        self.count += number
        return self.count

class Shouter(Agent):
    failures = {failures}

    def __init__(self):
        if Shouter.failures:
            Shouter.failures -= 1
            raise OSError("no voice")

    @handles
    def shout(self, text: str) -> str:
        return text.upper()
"""


def owner_of(name: str, *nodes: Node) -> Node:
    """Which of these nodes runs the agent, and it alone."""
    (owner,) = [node for node in nodes if name in node._runtime.cells]
    return owner


class TestLazyAgents:
    @pytest.fixture
    def load(self, tmp_path: Path) -> Callable[..., None]:
        def load(*nodes: Node, failures: int = 0) -> None:
            (tmp_path / "lazy.py").write_text(LAZY.replace("{failures}", str(failures)))
            for node in nodes:
                loaded = node.load(tmp_path)
                assert loaded.broken == ()
                assert set(loaded.agents) == {"counter", "shouter"}

        return load

    def test_a_folder_that_two_nodes_load_is_no_conflict_and_each_agent_is_made_once(
        self, anywhere: Deployment, load: Callable[..., None]
    ) -> None:
        here, there = anywhere.pair()
        third = anywhere.start("third")
        load(here, there)

        sums = [node.ask("counter", 1) for node in (third, here, there, third)]
        found = [reply.get(DEADLINE) for reply in sums]

        assert sorted(found) == [1, 2, 3, 4]
        assert third.ask("shouter", "a").get(DEADLINE) == "A"
        assert owner_of("counter", here, there, third) is not third

    def test_nobody_makes_an_agent_before_it_is_needed(
        self, deployment: Deployment, load: Callable[..., None]
    ) -> None:
        here, there = deployment.pair()
        third = deployment.start("third")

        load(here, there)
        third.ask("shouter", "a").get(DEADLINE)

        assert all("counter" not in node._runtime.cells for node in (here, there, third))

    def test_what_is_told_to_a_lazy_agent_wakes_it(
        self, deployment: Deployment, load: Callable[..., None]
    ) -> None:
        here, there = deployment.pair()
        third = deployment.start("third")
        load(here, there)

        third.tell_many([("counter", 1)] * 10)

        assert third.ask("counter", 0).get(DEADLINE) == 10

    def test_another_node_takes_over_when_the_owner_stops(
        self, anywhere: Deployment, load: Callable[..., None]
    ) -> None:
        here, there = anywhere.pair()
        third = anywhere.start("third")
        load(here, there)
        third.ask("counter", 1).get(DEADLINE)
        owner = owner_of("counter", here, there)
        other = there if owner is here else here

        owner.stop()

        until(lambda: "counter" in other._runtime.cells)
        assert third.ask("counter", 5).get(DEADLINE) == 5

    def test_an_agent_that_cannot_be_made_here_is_left_to_others_and_reported(
        self, deployment: Deployment, load: Callable[..., None]
    ) -> None:
        here, there = deployment.pair()
        third = deployment.start("third")
        events: list[Any] = []
        here.telemetry.listen(events.append)
        there.telemetry.listen(events.append)
        load(here, there, failures=1)

        answer = third.ask("shouter", "a")

        assert answer.get(DEADLINE) == "A"
        (trouble,) = [one for one in events if isinstance(one, TransportTrouble)]
        assert "no voice" in str(trouble.error)

    def test_what_waits_for_an_agent_goes_on_waiting_where_a_node_could_not_take_it_in(
        self,
        deployment: Deployment,
        traveller: type[Traveller],
        monkeypatch: pytest.MonkeyPatch,
        gate: Gate,
    ) -> None:
        here, there = deployment.pair()
        third = deployment.start("third")
        there.spawn(traveller, "hello", name="traveller")
        there.stop()
        gate.opened.clear()
        third.tell_many([("traveller", number) for number in range(5)])
        third.flush(DEADLINE)

        def refuse(cell: Any) -> None:
            until(lambda: len(cell.mailbox) > 0 or gate.entered.is_set())
            raise NameTaken(cell.name, "there")

        with monkeypatch.context() as patch:
            patch.setattr(here.registry, "register", refuse)
            with pytest.raises(NameTaken):
                here.spawn(traveller, "hello", name="traveller")
        gate.opened.set()
        third.spawn(traveller, name="makes it known there")

        until(lambda: len(traveller.heard) >= 5)
        assert list(dict.fromkeys(traveller.heard)) == list(range(5))
        assert len(here.dead_letters) == 0


SHARED = """
from actorbus import Agent, handles

made = []

class _Shared(Agent):
    def __init__(self):
        made.append(type(self).__name__)

    @handles
    def take(self, text: str) -> str:
        return text
"""
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class TestStrays:
    def test_an_agent_that_a_node_owns_and_does_not_have_runs_there_soon(
        self, anywhere: Deployment, traveller: type[Traveller]
    ) -> None:
        quick = {"beat": 0.1, "suspect_after": 0.3, "dead_after": 0.5}
        here, there = anywhere.start("here", **quick), anywhere.start("there", **quick)
        there.spawn(traveller, "hello", name="traveller")
        transport: Any = there.bus.transport
        stay = transport._stays.here["traveller"]
        lost: InboxLog = transport.log
        there.ref("traveller").stop()
        until(lambda: not transport._stays.is_known("traveller"))

        lost.acquire("traveller", transport.node, ttl=0.5, terms=stay.terms)

        until(lambda: "traveller" in there._runtime.cells)
        assert "traveller" not in here._runtime.cells


class TestSharing:
    """Nodes that start together and load the same each run a share of it."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        agents = [
            f"class Agent{word.title()}(_Shared):\n    capabilities = ({'ab'[at % 2]!r},)\n"
            for at, word in enumerate(WORDS)
        ]
        subscriber = "class AgentTen(_Shared):\n    subscriptions = ('news',)\n"
        page = "\n\n".join([SHARED, *agents[:-1], subscriber])
        (tmp_path / f"shared_{uuid4().hex}.py").write_text(page)
        return tmp_path

    @staticmethod
    def running(node: Node) -> set[str]:
        return set(node._runtime.cells)

    @staticmethod
    def made(node: Node) -> list[str]:
        """The agents of which an instance was made in this process, on whatever node."""
        cls = next(iter(node._runtime.cells.values())).agent_class
        found: list[str] = sys.modules[cls.__module__].made
        return found

    def test_each_runs_as_many_of_all_and_of_each_capability_and_keeps_them(
        self, anywhere: Deployment, folder: Path
    ) -> None:
        nodes = [anywhere.start(name) for name in ("a", "b", "c")]
        for node in nodes:
            node.load(folder, lazily=True)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda node: node.run_loaded(together=0.5), nodes))
        shares = [self.running(node) for node in nodes]
        for node in nodes:
            node.run_loaded()

        assert sorted(map(len, shares)) == [3, 3, 4]
        assert len(set.union(*shares)) == len(self.made(nodes[0])) == 10
        for capability, most in (("a", 2), ("b", 2)):
            of_it = [
                sum(capability in cell.capabilities for cell in node._runtime.cells.values())
                for node in nodes
            ]
            assert max(of_it) <= most
        assert [self.running(node) for node in nodes] == shares

    def test_what_another_should_have_run_and_did_not_is_run_by_who_calls_again(
        self, anywhere: Deployment, folder: Path
    ) -> None:
        here, dying = anywhere.pair()
        for node in (here, dying):
            node.load(folder, lazily=True)
        dying._runtime.crew.muster(dying._runtime.standby.digest(), 0.2)  # type: ignore[union-attr]

        share = here.run_loaded(together=0.2)
        everything = here.run_loaded()

        assert len(share) == 5
        assert len(everything) == 10

    def test_one_that_comes_later_stands_by_and_makes_no_instance(
        self, anywhere: Deployment, folder: Path
    ) -> None:
        here, there = anywhere.pair()
        here.load(folder, lazily=True)
        first = here.run_loaded(together=0.01)
        there.load(folder, lazily=True)

        second = there.run_loaded(together=0.01)

        assert (len(first), second) == (10, [])
        assert len(self.made(here)) == 10
        assert there.ask("agent-one", "a").get(DEADLINE) == "a"


class TestAcknowledgement:
    """What a handler sends is in the inboxes of others before its own message is over."""

    class Relay(Agent):
        @handles
        def pass_on(self, number: int) -> int:
            self.tell("listener", number)
            return number

    class Held:
        """Sends of one node, held back while the rest of it goes on."""

        def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
            self.reached = threading.Event()
            self.gate = threading.Event()
            log: InboxLog = node.bus.transport.log  # type: ignore[attr-defined]
            ship = log.ship

            def held(*arguments: Any, **options: Any) -> Any:
                self.reached.set()
                assert self.gate.wait(DEADLINE)
                return ship(*arguments, **options)

            monkeypatch.setattr(log, "ship", held)

    def settle(self, node: Node) -> None:
        """See that what `node` acknowledged meanwhile has come to the server."""
        ref = node.spawn(Listener, name="settled")
        log: InboxLog = node.bus.transport.log  # type: ignore[attr-defined]
        other = InboxLog(log._server, namespace=node.settings.namespace)
        other.send("stranger", [Outgoing("settled", 1, 2, b"i" * 16, b"\xc1")])
        until(lambda: len(node.dead_letters) == 1 and log.depth("settled") == 0)
        ref.stop()

    def test_a_message_is_over_once_what_its_handler_told_others_has_arrived(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = deployment.pair()
        listener = here.spawn(Listener, name="listener")
        there.spawn(self.Relay, name="relay")
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]
        held = self.Held(there, monkeypatch)

        here.tell("relay", 1)
        assert held.reached.wait(DEADLINE)
        until(lambda: len(there.history) == 1)
        self.settle(there)
        before = log.depth("relay")
        held.gate.set()

        assert before == 1
        assert heard_by(listener, 1) == [1]
        until(lambda: log.depth("relay") == 0)

    def test_a_request_is_over_once_its_answer_has_arrived(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = deployment.pair()
        there.spawn(Clerk, name="clerk")
        log: InboxLog = here.bus.transport.log  # type: ignore[attr-defined]
        held = self.Held(there, monkeypatch)

        answer = here.ask("clerk", "a")
        assert held.reached.wait(DEADLINE)
        self.settle(there)
        before = log.depth("clerk")
        held.gate.set()

        assert before == 1
        assert answer.get(DEADLINE) == "A"
        until(lambda: log.depth("clerk") == 0)

    def test_who_handled_and_could_not_tell_others_is_asked_to_again(
        self,
        deployment: Deployment,
        traveller: type[Traveller],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A node dies with the answer in its outbox: the next owner answers."""
        here = deployment.start("here", **HASTY)
        there = deployment.start("there", **HASTY)
        third = deployment.start("third", **HASTY)
        third.spawn(traveller, name="makes it known there").stop()
        there.spawn(traveller, "hello", name="traveller")
        held = self.Held(there, monkeypatch)
        answer = here.ask("traveller", 1)
        assert held.reached.wait(DEADLINE)

        silence(there, monkeypatch)

        assert answer.get(DEADLINE) == "hello 1"
        assert traveller.heard == [1, 1]
        held.gate.set()


def test_a_forked_child_is_told_to_make_a_node_of_its_own(deployment: Deployment) -> None:
    node = deployment.start("node")
    ref = node.spawn(Clerk, name="clerk")
    ref.ask("a").get(DEADLINE)
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        said = []
        for use in (
            lambda: ref.tell("b"),
            lambda: ref.ask("b").get(1.0),
            lambda: node.spawn(Clerk, name="second"),
            lambda: node.flush(1.0),
        ):
            try:
                said.append(repr(use()))
            except BaseException as error:
                said.append(f"{type(error).__name__}: {error}")
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read().splitlines()
    os.waitpid(child, 0)

    assert len(said) == 4
    assert all("make a new Node in the child" in line for line in said), said
    assert ref.ask("c").get(DEADLINE) == "C"
