"""The test kit itself."""

from __future__ import annotations

import asyncio

import pytest

from actorbus import (
    Agent,
    AskTimeout,
    InvalidHandler,
    InvalidSettings,
    Node,
    Priority,
    Reason,
    UnknownRecipient,
    UnsupportedPayload,
    handles,
)
from actorbus.testing import SimulatedCrash, TestNode


class Echo(Agent):
    @handles
    def echo(self, word: str) -> str:
        return word

    @handles
    async def nap(self, seconds: int) -> str:
        await asyncio.sleep(seconds)
        return f"slept {seconds}"


class Note(Agent):
    def __init__(self, order: list[str]) -> None:
        self.order = order

    @handles
    def note(self, number: int) -> None:
        self.order.append(f"{self.name}{number}")


def order_under(seed: int) -> list[str]:
    order: list[str] = []
    with TestNode(seed=seed) as node:
        refs = [node.spawn(Note, order, name=name) for name in "abcd"]
        for number in range(5):
            for ref in refs:
                ref.tell(number)
    return order


def test_nothing_runs_by_itself() -> None:
    with TestNode() as node:
        order: list[str] = []
        node.spawn(Note, order, name="a").tell(1)

        before = list(order)
        node.settle()

        assert (before, order) == ([], ["a1"])


def test_the_same_seed_gives_the_same_order() -> None:
    orders = {seed: order_under(seed) for seed in range(8)}

    assert all(order_under(seed) == orders[seed] for seed in orders)
    assert len({tuple(order) for order in orders.values()}) > 1
    assert all(
        [one for one in order if one[0] == "a"] == ["a0", "a1", "a2", "a3", "a4"]
        for order in orders.values()
    )


def test_async_handlers_sleep_on_the_turned_clock() -> None:
    with TestNode() as node:
        reply = node.spawn(Echo, name="echo").ask(30, timeout=60)

        node.advance(29.9)
        early = reply.done()
        node.advance(0.1)

        assert not early
        assert reply.get() == "slept 30"


def test_a_reply_that_cannot_come_is_not_waited_for() -> None:
    with TestNode() as node:
        reply = node.spawn(Echo, name="echo").ask(10)

        with pytest.raises(AskTimeout, match="may still come"):
            reply.get()
        node.advance(10)

        assert reply.get() == "slept 10"


def test_a_deadline_comes_when_the_clock_is_turned() -> None:
    with TestNode() as node:
        reply = node.spawn(Echo, name="echo").ask(100, timeout=2)

        node.advance(2)

        assert reply.done()
        with pytest.raises(AskTimeout):
            reply.get()


def test_what_was_sent_can_be_asserted() -> None:
    with TestNode() as node:
        node.spawn(Echo, name="echo").tell("hello", priority=Priority.HIGH)

        message = node.assert_sent("echo", "hello", type=str)

        assert message.priority is Priority.HIGH
        with pytest.raises(AssertionError, match="echo"):
            node.assert_sent("nobody")


def test_a_crash_fails_the_next_message() -> None:
    with TestNode() as node:
        ref = node.spawn(Echo, name="echo")
        node.crash("echo")
        ref.tell("lost")
        ref.tell("kept")

        node.advance(1)

        (letter,) = node.dead_letters.list(reason=Reason.HANDLER_ERROR)
        assert letter.message.payload == "lost"
        assert SimulatedCrash.__name__ in (letter.error or "")
        with pytest.raises(UnknownRecipient):
            node.crash("nobody")


def test_payloads_are_checked_as_on_a_wire() -> None:
    with TestNode() as node:
        ref = node.spawn(Echo, name="echo")

        with pytest.raises(UnsupportedPayload):
            ref.tell({"lock": object()})


def test_agents_that_need_a_thread_are_refused() -> None:
    own = type("Own", (Note,), {"dispatcher": "thread"})
    with TestNode() as node, pytest.raises(InvalidHandler, match="calling thread"):
        node.spawn(own, [])


def test_async_with_is_refused() -> None:
    async def main() -> None:
        async with TestNode():
            raise AssertionError("entered")

    with pytest.raises(InvalidSettings, match="with TestNode"):
        asyncio.run(main())


def test_it_is_a_node_with_the_same_face() -> None:
    public = {name for name in dir(Node) if not name.startswith("_")}

    assert public <= set(dir(TestNode))
    assert issubclass(TestNode, Node)


def test_work_without_end_is_found() -> None:
    class Restless(Agent):
        @handles
        def again(self, number: int) -> None:
            self.tell(self.name, number + 1)

    with TestNode() as node:
        ref = node.spawn(Restless, name="restless")
        ref.tell(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("actorbus.testing.turns._MANY_TURNS", 100)
            with pytest.raises(AssertionError, match="still at work"):
                node.settle()
        ref.stop()
