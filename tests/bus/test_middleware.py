"""Middlewares: their sides, their order, and that they see how every message ended."""

from __future__ import annotations

import asyncio
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import (
    Accepted,
    Agent,
    Dead,
    Deliver,
    Handled,
    InvalidSettings,
    Node,
    Reason,
    Rejected,
    Retry,
    Send,
    agent,
    handles,
)
from actorbus.bus.middleware import Timed, chain, destination, sides, taker, then

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actorbus import Message
    from actorbus.bus.middleware import Handle, Middleware, Outcome

    from .conftest import ClockedNode

DEADLINE: Final = 10.0


def noting(notes: list[Any], note: Callable[[Message[Any]], Any]) -> Middleware:
    """A middleware that notes something about each message and lets it through."""

    def noted(handle: Handle) -> Handle:
        def handle_noted(message: Message[Any]) -> Outcome:
            notes.append(note(message))
            return handle(message)

        return handle_noted

    return noted


def upper(text: str) -> str:
    return text.upper()


async def upper_later(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


class TestSides:
    @pytest.mark.parametrize("wrong", [upper, [upper], "send", 7, None, [Send(), upper]])
    def test_a_middleware_that_does_not_say_its_side_is_refused(self, wrong: Any) -> None:
        with pytest.raises(InvalidSettings, match=r"wrap it in Send\(...\) or Deliver\(...\)"):
            Node(middleware=wrong)

    @pytest.mark.parametrize("side", [Send, Deliver])
    def test_what_cannot_be_called_is_no_middleware(self, side: Any) -> None:
        with pytest.raises(InvalidSettings, match="cannot be called"):
            Node(middleware=side("not callable"))

    def test_one_entry_needs_no_list(self) -> None:
        middleware = noting([], str)

        assert sides(Send(middleware)) == ([middleware], [])
        assert sides((Deliver(middleware),)) == ([], [middleware])

    def test_the_first_one_sees_a_message_first(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        notes: list[str] = []
        named = {name: noting(notes, partial(lambda name, _: name, name)) for name in "abcd"}
        node = make_node(
            middleware=[
                Send(named["a"], named["b"]),
                Deliver(named["c"]),
                Deliver(named["d"]),
            ]
        )

        node.spawn(agent(upper), name="upper").ask("text").get()

        assert notes == ["a", "b", "c", "d"]

    def test_both_sides_see_tells_asks_broadcasts_events_and_delayed_ones(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        sent: list[Any] = []
        delivered: list[Any] = []
        node = make_node(
            middleware=[
                Send(noting(sent, lambda message: message.payload)),
                Deliver(noting(delivered, lambda message: message.payload)),
            ]
        )
        ref = node.spawn(agent(upper), name="upper")
        ref.subscribe("news.*")

        ref.tell("told")
        ref.ask("asked").get()
        node.broadcast("broadcast")
        node.topic("news.today").publish("published")
        ref.tell("delayed", delay=5)
        node.clock.advance(5)

        node.drain(DEADLINE)
        assert sent == ["told", "asked", "broadcast", "published", "delayed"]
        assert delivered == sent


class TestTaker:
    def test_on_the_send_side_nobody_has_the_message_in_hand(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        notes: list[Any] = []
        look = noting(notes, lambda message: (taker(message), destination(message)))

        class Forwarder(Agent):
            @handles
            def forward(self, text: str) -> None:
                self.tell("upper", text)

        node = make_node(middleware=Send(look))
        node.spawn(agent(upper), name="upper")
        node.spawn(Forwarder, name="forwarder").tell("text")

        node.drain(DEADLINE)
        assert notes == [(None, "forwarder"), (None, "upper")]

    def test_on_the_deliver_side_it_is_the_agent_also_of_events(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        notes: list[Any] = []
        look = noting(notes, lambda message: (taker(message), destination(message)))
        node = make_node(middleware=Deliver(look))
        ref = node.spawn(agent(upper), name="upper")
        ref.subscribe("news.*")

        node.broadcast("all")
        node.topic("news.today").publish("some")
        ref.ask("one").get()

        assert notes == [("upper", "upper")] * 3

    def test_what_goes_to_many_is_for_its_topic_or_for_everyone(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        notes: list[str] = []
        node = make_node(middleware=Send(noting(notes, destination)))

        node.broadcast("all")
        node.topic("news.today").publish("some")

        assert notes == ["*", "news.today"]


class TestOutcomes:
    @pytest.mark.parametrize("handler", [upper, upper_later])
    def test_a_middleware_sees_and_changes_what_a_handler_returned(
        self, make_node: Callable[..., ClockedNode], handler: Any
    ) -> None:
        def doubling(handle: Handle) -> Handle:
            def double(outcome: Outcome) -> Outcome:
                return Handled(outcome.value * 2) if isinstance(outcome, Handled) else outcome

            return lambda message: then(handle(message), double)

        node = make_node(middleware=Deliver(doubling))

        assert node.spawn(agent(handler)).ask("ab").get() == "ABAB"

    def test_the_innermost_middleware_looks_first(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        looks: list[str] = []

        def looking(name: str) -> Middleware:
            def look(outcome: Outcome) -> Outcome:
                looks.append(name)
                return outcome

            return lambda handle: lambda message: then(handle(message), look)

        node = make_node(middleware=Deliver(looking("outer"), looking("inner")))
        node.spawn(agent(upper)).ask("a").get()
        node.spawn(agent(upper_later)).ask("a").get()

        assert looks == ["inner", "outer"] * 2

    def test_a_middleware_sees_that_an_async_handler_was_cancelled(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        seen: SimpleQueue[Outcome] = SimpleQueue()
        started: SimpleQueue[None] = SimpleQueue()

        def look(outcome: Outcome) -> Outcome:
            seen.put(outcome)
            return outcome

        async def sleeper(_: str) -> None:
            started.put(None)
            await asyncio.Event().wait()

        node = make_node(
            middleware=Deliver(lambda handle: lambda message: then(handle(message), look))
        )
        reply = node.spawn(agent(sleeper)).ask("sleep")
        started.get(timeout=DEADLINE)

        reply.cancel()

        outcome = seen.get(timeout=DEADLINE)
        assert isinstance(outcome, Dead)
        assert outcome.reason is Reason.CANCELLED

    @pytest.mark.parametrize("side", [Send, Deliver])
    @pytest.mark.parametrize("handler", [upper, upper_later])
    def test_a_refusal_says_why_to_the_asker_and_in_the_dead_letter(
        self, make_node: Callable[..., ClockedNode], side: Any, handler: Any
    ) -> None:
        node = make_node(
            middleware=side(lambda handle: lambda message: Dead(Reason.REFUSED, "it is Sunday"))
        )
        ref = node.spawn(agent(handler), name="upper")

        ref.tell("text")
        reply = ref.ask("text")

        with pytest.raises(Rejected, match="'upper' refused the message: it is Sunday"):
            reply.get()
        node.drain(DEADLINE)
        [letter] = node.dead_letters.list()
        assert (letter.reason, letter.recipient) == (Reason.REFUSED, "upper")
        assert "it is Sunday" in str(letter.error)

    def test_what_is_refused_before_it_is_accepted_is_in_the_written_history(
        self, make_node: Callable[..., ClockedNode], tmp_path: Path
    ) -> None:
        refuse = Send(lambda handle: lambda message: Dead(Reason.REFUSED, "it is Sunday"))
        node = make_node(middleware=refuse, audit=f"sqlite:///{tmp_path / 'history.db'}")
        ref = node.spawn(agent(upper), name="upper")

        ref.tell("text")
        with pytest.raises(Rejected):
            ref.ask("text").get()

        node.flush(DEADLINE)
        written = [(one.kind, one.status, one.reason) for one in node.audit.messages()]
        assert sorted(written) == [
            ("request", "failed", Reason.REFUSED),
            ("tell", "dead", Reason.REFUSED),
        ]

    def test_the_innermost_step_of_a_send_says_how_many_took_it(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        outcomes: list[Outcome] = []

        def keeping(handle: Handle) -> Handle:
            def keep(message: Message[Any]) -> Outcome:
                outcomes.append(handle(message))
                return outcomes[-1]

            return keep

        node = make_node(middleware=Send(keeping))
        for _ in range(3):
            node.spawn(agent(upper))

        reached = node.broadcast("all")

        assert reached == 3
        assert outcomes == [Accepted(3)]

    @pytest.mark.parametrize("delay", [None, 5.0])
    @pytest.mark.parametrize("afterwards", [Dead(Reason.REFUSED, "too late"), Retry(1.0)])
    def test_what_is_decided_once_a_message_was_accepted_changes_nothing(
        self, make_node: Callable[..., ClockedNode], afterwards: Outcome, delay: float | None
    ) -> None:
        handled: list[str] = []

        def regret(handle: Handle) -> Handle:
            def regretting(message: Message[Any]) -> Outcome:
                handle(message)
                return afterwards

            return regretting

        def hear(text: str) -> None:
            handled.append(text)

        node = make_node(middleware=Send(regret))

        node.spawn(agent(hear)).tell("text", delay=delay)
        node.clock.advance(10)

        node.drain(DEADLINE)
        assert handled == ["text"]
        assert node.dead_letters.list() == []
        assert [one.status for one in node.history.list()] == ["handled"]

    def test_what_is_decided_once_an_ask_was_accepted_leaves_its_reply_alone(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        def regret(handle: Handle) -> Handle:
            def regretting(message: Message[Any]) -> Outcome:
                handle(message)
                return Dead(Reason.REFUSED, "too late")

            return regretting

        node = make_node(middleware=Send(regret))

        assert node.spawn(agent(upper)).ask("text").get(DEADLINE) == "TEXT"
        assert node.broadcast("all") == 1


class TestTimed:
    def test_a_middleware_that_reads_time_gets_the_clock_of_its_node(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        class Stamping(Timed):
            def __call__(self, handle: Handle) -> Handle:
                return handle

        sending, delivering = Stamping(), Stamping()

        node = make_node(middleware=[Send(sending), Deliver(delivering)])

        assert sending.clock is node.clock
        assert delivering.clock is node.clock


def test_a_chain_of_nothing_is_the_handle_itself() -> None:
    def handle(message: Message[Any]) -> Outcome:
        return Handled()

    assert chain([], handle) is handle
