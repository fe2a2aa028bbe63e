"""The same message once: repeats end as duplicates, failures may come again."""

from __future__ import annotations

import asyncio
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import (
    Agent,
    AgentFailed,
    Deliver,
    InvalidSettings,
    Reason,
    Rejected,
    Send,
    Status,
    Supervision,
    UnknownRecipient,
    agent,
    handles,
)
from actorbus.bus.middlewares import deduplicate
from actorbus.message import MessageKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Node

    from ..conftest import ClockedNode

DEADLINE: Final = 10.0
KEY: Final = "idempotency-key"


class Keeper(Agent):
    def __init__(self) -> None:
        self.kept: list[str] = []

    @handles
    def keep(self, text: str) -> list[str]:
        self.kept.append(text)
        return list(self.kept)


class AsyncKeeper(Agent):
    def __init__(self) -> None:
        self.kept: list[str] = []

    @handles
    async def keep(self, text: str) -> list[str]:
        await asyncio.sleep(0)
        self.kept.append(text)
        return list(self.kept)


@pytest.mark.parametrize("side", [Send, Deliver])
@pytest.mark.parametrize("cls", [Keeper, AsyncKeeper])
class TestByHeader:
    def test_a_repeat_is_a_dead_letter_that_says_of_what(
        self, make_node: Callable[..., Node], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(deduplicate(KEY)))
        ref = node.spawn(cls, name="keeper")

        for text in ("first", "again"):
            ref.tell(text, headers={KEY: "1"})

        assert ref.ask("other", headers={KEY: "2"}).get() == ["first", "other"]
        [letter] = node.dead_letters.list()
        assert (letter.reason, letter.message.payload) == (Reason.DUPLICATE, "again")
        assert "idempotency-key '1' came before" in str(letter.error)

    def test_who_asks_again_is_rejected(
        self, make_node: Callable[..., Node], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(deduplicate(KEY)))
        ref = node.spawn(cls, name="keeper")
        ref.ask("first", headers={KEY: "1"}).get()

        again = ref.ask("again", headers={KEY: "1"})

        with pytest.raises(Rejected, match="came before"):
            again.get()
        assert len(node.dead_letters) == 0

    def test_what_has_no_such_header_goes_through(
        self, make_node: Callable[..., Node], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(deduplicate(KEY)))
        ref = node.spawn(cls, name="keeper")

        ref.tell("first")

        assert ref.ask("second").get() == ["first", "second"]

    def test_the_same_key_to_another_agent_is_another_message(
        self, make_node: Callable[..., Node], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(deduplicate(KEY)))
        first, second = node.spawn(cls), node.spawn(cls)

        first.tell("one", headers={KEY: "1"})

        assert second.ask("two", headers={KEY: "1"}).get() == ["two"]

    def test_the_oldest_is_forgotten_first(
        self, make_node: Callable[..., Node], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(deduplicate(KEY, capacity=2)))
        ref = node.spawn(cls, name="keeper")

        for key in ("1", "2", "3", "2", "1"):
            ref.tell(key, headers={KEY: key})

        assert ref.ask("end").get() == ["1", "2", "3", "1", "end"]
        assert [one.message.payload for one in node.dead_letters.list()] == ["2"]


class TestById:
    def test_a_message_that_is_delivered_twice_is_handled_once(
        self, make_node: Callable[..., Node]
    ) -> None:
        node = make_node(middleware=Deliver(deduplicate()))
        ref = node.spawn(Keeper, name="keeper")
        message = node.bus.stamp(MessageKind.TELL, "keeper", "once")

        for _ in range(2):
            node.bus.send(message, node.bus.inbox("keeper"))

        assert ref.ask("end").get() == ["once", "end"]
        [letter] = node.dead_letters.list()
        assert (letter.id, letter.reason) == (message.id, Reason.DUPLICATE)

    def test_every_recipient_of_a_broadcast_gets_it(self, make_node: Callable[..., Node]) -> None:
        node = make_node(middleware=Deliver(deduplicate()))
        refs = [node.spawn(Keeper) for _ in range(3)]

        node.broadcast("halt")

        assert [ref.ask("end").get() for ref in refs] == [["halt", "end"]] * 3


class Flaky(Agent):
    """Fails at first."""

    supervision = Supervision(on_failure="resume", retries=1, backoff=1.0)
    attempts = 0

    @handles
    def work(self, text: str) -> int:
        type(self).attempts += 1
        if self.attempts == 1:
            raise RuntimeError("not yet")
        return self.attempts


class AsyncFlaky(Agent):
    supervision = Supervision(on_failure="resume", retries=1, backoff=1.0)
    attempts = 0

    @handles
    async def work(self, text: str) -> int:
        type(self).attempts += 1
        await asyncio.sleep(0)
        if self.attempts == 1:
            raise RuntimeError("not yet")
        return self.attempts


@pytest.fixture
def flaky(request: pytest.FixtureRequest) -> Any:
    base: Any = request.param
    return type(base.__name__, (base,), {"attempts": 0, "__module__": __name__})


@pytest.mark.parametrize("flaky", [Flaky, AsyncFlaky], indirect=True)
class TestFailures:
    def test_what_failed_may_come_again(self, make_node: Callable[..., Node], flaky: Any) -> None:
        node = make_node(middleware=Deliver(deduplicate(KEY)))
        ref = node.spawn(flaky, name="flaky")
        first = ref.ask("work", headers={KEY: "1"})
        with pytest.raises(AgentFailed):
            first.get()

        again = ref.ask("work", headers={KEY: "1"})

        assert again.get() == 2

    def test_a_retry_is_no_duplicate(
        self, make_node: Callable[..., ClockedNode], flaky: Any
    ) -> None:
        node = make_node(middleware=Deliver(deduplicate()))
        ref = node.spawn(flaky, name="flaky")
        ref.tell("work")

        node.clock.await_timer(within=1)
        node.clock.advance(1)

        node.drain(DEADLINE)
        assert flaky.attempts == 2
        assert [ending.status for ending in node.history] == [Status.HANDLED]


def test_a_repeat_is_one_while_the_first_is_still_in_hand(make_node: Callable[..., Node]) -> None:
    started: SimpleQueue[str] = SimpleQueue()
    gate = asyncio.Event()

    class Slow(Agent):
        concurrency = 2

        @handles
        async def work(self, text: str) -> str:
            if text == "open":
                gate.set()
                return text
            started.put(text)
            await gate.wait()
            return text

    node = make_node(middleware=Deliver(deduplicate(KEY)))
    ref = node.spawn(Slow, name="slow")
    first = ref.ask("first", headers={KEY: "1"})
    started.get(timeout=DEADLINE)

    again = ref.ask("again", headers={KEY: "1"})

    with pytest.raises(Rejected, match="came before"):
        again.get()
    ref.tell("open")
    assert first.get() == "first"


def test_what_was_cancelled_may_come_again(make_node: Callable[..., Node]) -> None:
    started: SimpleQueue[str] = SimpleQueue()

    async def slow(text: str) -> str:
        started.put(text)
        if text == "first":
            await asyncio.Event().wait()
        return text

    node = make_node(middleware=Deliver(deduplicate(KEY)))
    ref = node.spawn(agent(slow), name="slow")
    first = ref.ask("first", headers={KEY: "1"})
    started.get(timeout=DEADLINE)
    first.cancel()

    again = ref.ask("again", headers={KEY: "1"})

    assert again.get() == "again"


def test_what_was_not_accepted_may_be_sent_again(make_node: Callable[..., Node]) -> None:
    node = make_node(middleware=Send(deduplicate(KEY)))
    ref = node.spawn(Keeper, name="keeper")
    ref.stop()
    node.drain(DEADLINE)
    with pytest.raises(UnknownRecipient):
        ref.tell("first", headers={KEY: "1"})

    successor = node.spawn(Keeper, name="keeper")

    assert successor.ask("again", headers={KEY: "1"}).get() == ["again"]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_table_of_nothing_is_refused(capacity: int) -> None:
    with pytest.raises(InvalidSettings, match="capacity must be 1 or more"):
        deduplicate(capacity=capacity)
