"""Cancellation, rings of asks, and blocking where nothing may block."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import (
    Agent,
    AgentFailed,
    AskTimeout,
    Cancelled,
    DeadlockDetected,
    MailboxFull,
    MailboxPolicy,
    Node,
    PoolExhausted,
    Reason,
    Settings,
    handles,
)
from actorbus.actors.waiting import ThreadWaiting
from actorbus.telemetry import Event, ReplyUnclaimed
from actorbus.testing import ManualClock, TestNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from actorbus import Ref

SOON = 20.0
"""Seconds that stand for a hang."""


class Link(Agent):
    """Passes a question on along a list of names."""

    @handles
    def pass_on(self, names: list) -> str:  # type: ignore[type-arg]
        if not names:
            return self.name
        answer: str = self.ask(names[0], names[1:]).get()
        return f"{self.name} {answer}"


class AsyncLink(Agent):
    @handles
    async def pass_on(self, names: list) -> str:  # type: ignore[type-arg]
        if not names:
            return self.name
        return f"{self.name} {await self.ask(names[0], names[1:])}"


class Wait(Agent):
    """Waits on the turned clock, and writes down how that ended."""

    def __init__(self, log: list[Any]) -> None:
        self.events = log

    @handles
    async def wait(self, seconds: int) -> int:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        self.events.append(seconds)
        return seconds


@pytest.fixture
def node() -> Iterator[TestNode]:
    with TestNode() as node:
        yield node


# -- rings


@pytest.mark.parametrize("kind", [Link, AsyncLink])
def test_a_ring_of_asks_fails_at_once_with_the_chain(node: TestNode, kind: type[Agent]) -> None:
    for name in ("a", "b", "c"):
        node.spawn(kind, name=name)

    with pytest.raises(AgentFailed) as failed:
        node.ask("a", ["b", "c", "a"]).get()

    assert "a -> b -> c -> a" in failed.value.traceback or "c -> a -> b -> c" in (
        failed.value.traceback
    )
    assert node.clock.monotonic() == 0


def test_the_error_of_a_ring_carries_its_chain(node: TestNode) -> None:
    caught: list[DeadlockDetected] = []

    class Selfish(Agent):
        @handles
        def ask_myself(self, word: str) -> None:
            try:
                self.ask(self.name, word).get()
            except DeadlockDetected as error:
                caught.append(error)

    node.spawn(Selfish, name="selfish").ask("x").get()

    assert [error.chain for error in caught] == [("selfish", "selfish")]


def test_a_ring_with_an_async_and_a_sync_agent_is_found(node: TestNode) -> None:
    node.spawn(Link, name="a")
    node.spawn(AsyncLink, name="b")

    with pytest.raises(AgentFailed, match=r"b -> a -> b|a -> b -> a"):
        node.ask("a", ["b", "a"]).get()


def test_a_ring_through_a_forwarded_reply_is_found(node: TestNode) -> None:
    class Forwarder(Agent):
        @handles
        def forward(self, word: str) -> Any:
            return self.ask("asker", word)

    class Asker(Agent):
        @handles
        def ask_on(self, word: str) -> Any:
            return self.ask("forwarder", word).get()

    node.spawn(Forwarder, name="forwarder")
    node.spawn(Asker, name="asker")

    with pytest.raises(AgentFailed, match="asker -> asker"):
        node.ask("asker", "x").get()


def test_sending_alone_closes_no_ring(node: TestNode) -> None:
    seen: list[str] = []

    class Echo(Agent):
        @handles
        def hear(self, word: str) -> None:
            seen.append(f"{self.name} {word}")
            if len(seen) < 6:
                self.tell("b" if self.name == "a" else "a", word)

    node.spawn(Echo, name="a")
    node.spawn(Echo, name="b")
    node.tell("a", "x")

    node.settle()

    assert seen == ["a x", "b x"] * 3


def test_a_long_chain_that_closes_no_ring_answers(node: TestNode) -> None:
    names = [f"link-{number}" for number in range(30)]
    for name in names:
        node.spawn(Link, name=name)

    answer = node.ask(names[0], names[1:]).get()

    assert answer == " ".join(names)


def test_an_agent_that_handles_several_at_a_time_closes_no_ring(node: TestNode) -> None:
    many = type("Many", (AsyncLink,), {"concurrency": 2})
    node.spawn(many, name="a")
    node.spawn(AsyncLink, name="b")

    assert node.ask("a", ["b", "a"]).get() == "a b a"


# -- cancellation


def test_a_cancelled_ask_that_waits_is_never_started(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Wait, log, name="wait")
    reply = ref.ask(5)

    first, second = reply.cancel(), reply.cancel()
    node.advance(10)

    assert (first, second) == (True, False)
    assert log == []
    with pytest.raises(Cancelled):
        reply.get()
    assert [ending.reason for ending in node.history] == [Reason.CANCELLED]


def test_an_async_handler_is_cancelled(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Wait, log, name="wait")
    reply = ref.ask(5)
    node.settle()

    reply.cancel()
    node.advance(10)

    assert log == ["cancelled"]
    second = ref.ask(3)
    node.advance(3)
    assert second.get() == 3


def test_cancelling_reaches_the_asks_that_the_handler_waits_for(node: TestNode) -> None:
    log: list[Any] = []

    class Front(Agent):
        @handles
        async def pass_on(self, seconds: int) -> Any:
            return await self.ask("wait", seconds)

    node.spawn(Wait, log, name="wait")
    reply = node.spawn(Front, name="front").ask(5)
    node.settle()

    reply.cancel()
    node.advance(10)

    assert log == ["cancelled"]


def test_cancelling_the_task_that_awaits_cancels_the_ask(node: TestNode) -> None:
    log: list[Any] = []

    class Impatient(Agent):
        @handles
        async def pass_on(self, seconds: int) -> str:
            try:
                async with asyncio.timeout(1):
                    await self.ask("wait", seconds)
            except TimeoutError:
                return "gave up"
            return "got it"

    node.spawn(Wait, log, name="wait")
    reply = node.spawn(Impatient, name="impatient").ask(5)

    node.advance(1)
    node.settle()

    assert reply.get() == "gave up"
    assert log == ["cancelled"]


def test_a_cancelled_run_takes_its_tells_along(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Wait, log, name="wait")
    with node.run("r1") as run:
        ref.tell(5)
        ref.tell(6)
        reply = ref.ask(7)
    ref.tell(1)
    node.settle()

    run.cancel()
    node.advance(20)

    assert log == ["cancelled", 1]
    assert {letter.reason for letter in node.dead_letters.list()} == {Reason.CANCELLED}
    with pytest.raises(Cancelled):
        reply.get()


def test_a_sync_handler_sees_that_it_was_cancelled() -> None:
    started = threading.Event()
    ended = threading.Event()

    class Long(Agent):
        @handles
        def work(self, word: str) -> None:
            started.set()
            while not self.cancelled:
                ended.wait(0.001)
            ended.set()

    with Node() as node:
        reply = node.spawn(Long).ask("x")
        assert started.wait(SOON)

        reply.cancel()

        assert ended.wait(SOON)


# -- where nothing may block


def test_get_on_the_loop_says_await(node: TestNode) -> None:
    class Wrong(Agent):
        @handles
        async def block(self, word: str) -> Any:
            return self.ask("other", word).get()

    node.spawn(Link, name="other")

    with pytest.raises(AgentFailed, match="await"):
        node.spawn(Wrong, name="wrong").ask("x").get()


def test_a_full_mailbox_never_blocks_a_loop(node: TestNode) -> None:
    class Narrow(Agent):
        mailbox = MailboxPolicy(capacity=1)

        @handles
        def work(self, number: int) -> None:
            """Takes its time."""

    class Sender(Agent):
        def __init__(self, narrow: Ref) -> None:
            self.narrow = narrow

        @handles
        async def flood(self, count: int) -> str:
            try:
                for number in range(count):
                    self.tell("narrow", number)
            except MailboxFull as full:
                return str(full)
            return "all sent"

        @handles
        async def flow(self, count: float) -> str:
            narrow = self.narrow
            for number in range(int(count)):
                await narrow.room()
                narrow.tell(number)
            return "all sent"

    narrow = node.spawn(Narrow, name="narrow")
    sender = node.spawn(Sender, narrow, name="sender")

    refused = sender.ask(5).get()
    node.settle()
    waited = sender.ask(5.0).get()

    assert "await ref.room()" in refused
    assert waited == "all sent"


def test_a_shorter_timeout_leaves_the_reply_usable() -> None:
    let_go = threading.Event()

    class Slow(Agent):
        @handles
        def work(self, word: str) -> str:
            let_go.wait(SOON)
            return word

    with Node() as node:
        reply = node.spawn(Slow).ask("x")

        with pytest.raises(AskTimeout, match="may still come"):
            reply.get(timeout=0.01)
        let_go.set()

        assert reply.get() == "x"
        assert reply.get() == "x"


def test_a_pool_whose_threads_all_wait_says_so() -> None:
    settings = Settings(pool_threads=2, pool_core=1)
    with Node(settings=settings) as node:
        for name in ("a", "b", "c"):
            node.spawn(Link, name=name)

        with pytest.raises(AgentFailed) as failed:
            node.ask("a", ["b", "c"]).get()

    assert PoolExhausted.__name__ in failed.value.traceback


def test_the_pool_makes_up_for_threads_that_wait() -> None:
    names = [f"link-{number}" for number in range(40)]
    with Node() as node:
        for name in names:
            node.spawn(Link, name=name)

        answer = node.ask(names[0], names[1:]).get()

    assert answer == " ".join(names)


def test_a_sender_waits_for_room_and_loses_nothing() -> None:
    seen: list[int] = []
    started = threading.Event()
    gate = threading.Event()

    class Narrow(Agent):
        mailbox = MailboxPolicy(capacity=3)

        @handles
        def work(self, number: int) -> None:
            started.set()
            gate.wait(SOON)
            seen.append(number)

    with Node() as node:
        ref = node.spawn(Narrow)
        ref.tell(0)
        assert started.wait(SOON)
        for number in range(1, 4):
            ref.tell(number)
        sender = threading.Thread(target=tell_all, args=(ref, range(4, 100)))
        sender.start()

        gate.set()
        sender.join(SOON)

        assert not sender.is_alive()
    assert seen == list(range(100))


def tell_all(ref: Ref, numbers: Iterable[int]) -> None:
    for number in numbers:
        ref.tell(number)


def test_a_send_that_finds_no_room_in_time_is_refused() -> None:
    gate = threading.Event()

    class Stuck(Agent):
        mailbox = MailboxPolicy(capacity=1)

        @handles
        def work(self, number: int) -> None:
            gate.wait(SOON)

    with Node(settings=Settings(send_timeout=0.05)) as node:
        ref = node.spawn(Stuck)
        ref.tell(0)
        with pytest.raises(MailboxFull, match="time to send was up"):
            tell_all(ref, range(1, 4))
        gate.set()


def test_an_error_that_nobody_fetched_is_told() -> None:
    told: list[Event] = []
    with Node(settings=Settings(log_level="off")) as node:
        node.telemetry.listen(told.append, every_message=False)
        node.spawn(Link, name="link")

        node.ask("link", 1)

    assert [event.recipient for event in told if isinstance(event, ReplyUnclaimed)] == ["link"]


class Awaited:
    """Something that is settled after it was looked at a few times, and calls meanwhile."""

    def __init__(self, looks: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._left = looks
        self._meanwhile = meanwhile

    @property
    def settled(self) -> bool:
        self._meanwhile()
        self._left -= 1
        return self._left < 0


class TestSpinning:
    def test_it_sees_what_is_settled_in_a_moment(self) -> None:
        assert ThreadWaiting(ManualClock()).spin(Awaited(looks=1))

    def test_it_gives_up_on_what_takes_longer(self) -> None:
        assert not ThreadWaiting(ManualClock()).spin(Awaited(looks=sys.maxsize))

    def test_one_thread_spins_at_a_time(self) -> None:
        waiting = ThreadWaiting(ManualClock())
        inner: list[bool] = []

        waiting.spin(Awaited(1, lambda: inner.append(waiting.spin(Awaited(0)))))

        assert inner == [False, False]
        assert waiting.spin(Awaited(0)), "the next one may"

    def test_where_no_thread_can_give_way_none_spins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "sched_yield", raising=False)

        assert not ThreadWaiting(ManualClock()).spin(Awaited(0))
