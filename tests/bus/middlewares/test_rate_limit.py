"""No more than so many messages a second, on the clock of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus import (
    Agent,
    Deliver,
    Handled,
    InvalidSettings,
    Reason,
    Rejected,
    Retry,
    Send,
    handles,
)
from actorbus.bus.middleware import give_clock
from actorbus.bus.middlewares import rate_limit
from actorbus.testing.clock import ManualClock
from actorbus.testing.transport_contract import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Message, Node

    from ..conftest import ClockedNode

DEADLINE: Final = 10.0


class Keeper(Agent):
    def __init__(self) -> None:
        self.kept: list[int] = []

    @handles
    def keep(self, number: int) -> list[int]:
        self.kept.append(number)
        return list(self.kept)


class AsyncKeeper(Agent):
    def __init__(self) -> None:
        self.kept: list[int] = []

    @handles
    async def keep(self, number: int) -> list[int]:
        self.kept.append(number)
        return list(self.kept)


@pytest.mark.parametrize("side", [Send, Deliver])
@pytest.mark.parametrize("cls", [Keeper, AsyncKeeper])
class TestRefusing:
    def test_what_is_over_the_rate_is_a_dead_letter(
        self, make_node: Callable[..., ClockedNode], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(rate_limit(1, burst=2)))
        ref = node.spawn(cls, name="keeper")

        for number in range(4):
            ref.tell(number)
        node.drain(DEADLINE)
        node.clock.advance(1)

        assert ref.ask(4).get() == [0, 1, 4]
        dead = [(letter.message.payload, letter.reason) for letter in node.dead_letters.list()]
        assert dead == [(3, Reason.RATE_LIMITED), (2, Reason.RATE_LIMITED)]

    def test_who_asks_too_often_is_told_when_to_try_again(
        self, make_node: Callable[..., ClockedNode], side: Any, cls: type[Agent]
    ) -> None:
        node = make_node(middleware=side(rate_limit(0.5)))
        ref = node.spawn(cls, name="keeper")
        ref.ask(0).get()

        with pytest.raises(Rejected, match=r"more than 0\.5 messages a second; try again in 2 s"):
            ref.ask(1).get()
        node.clock.advance(2)

        assert ref.ask(2).get() == [0, 2]


class TestWaitingOnTheSendSide:
    def test_what_waits_is_delivered_when_its_turn_comes(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        node = make_node(middleware=Send(rate_limit(1, wait=10)))
        ref = node.spawn(Keeper, name="keeper")
        kept = []

        for number in range(4):
            ref.tell(number)
        for _ in range(4):
            node.drain(DEADLINE)
            kept.append([ending.recipient for ending in node.history].count("keeper"))
            node.clock.advance(1)

        assert kept == [1, 2, 3, 4]
        assert len(node.dead_letters) == 0

    def test_each_that_waits_has_a_turn_of_its_own_and_who_comes_later_is_behind(
        self, make_node: Callable[..., ClockedNode]
    ) -> None:
        node = make_node(middleware=Send(rate_limit(1, wait=2)))
        ref = node.spawn(Keeper, name="keeper")

        for number in range(4):
            ref.tell(number)
        node.clock.advance(1)
        ref.tell(4)
        node.clock.advance(2)
        node.drain(DEADLINE)
        node.clock.advance(1)

        assert ref.ask(5).get() == [0, 1, 2, 4, 5]
        [letter] = node.dead_letters.list()
        assert (letter.message.payload, letter.reason) == (3, Reason.RATE_LIMITED)

    def test_an_ask_that_waits_is_answered(self, make_node: Callable[..., ClockedNode]) -> None:
        node = make_node(middleware=Send(rate_limit(1, wait=5)))
        ref = node.spawn(Keeper, name="keeper")
        ref.tell(0)

        reply = ref.ask(1)
        early = reply.done()
        node.clock.advance(1)

        assert not early
        assert reply.get() == [0, 1]


@pytest.mark.parametrize("cls", [Keeper, AsyncKeeper])
def test_on_the_deliver_side_the_agent_waits_and_keeps_the_order(
    make_node: Callable[..., ClockedNode], cls: type[Agent]
) -> None:
    node = make_node(middleware=Deliver(rate_limit(1, by="recipient", wait=10)))
    ref = node.spawn(cls, name="keeper")
    replies = [ref.ask(number) for number in range(3)]

    first = replies[0].get()
    for reply in replies[1:]:
        node.clock.await_timer(1)
        assert not reply.done()
        node.clock.advance(1)
        reply.get()

    assert first == [0]
    assert replies[2].get() == [0, 1, 2]


class TestWhose:
    def test_each_sender_has_a_rate_of_its_own(self, make_node: Callable[..., Node]) -> None:
        class Scout(Agent):
            @handles
            def scout(self, number: int) -> list[int]:
                self.tell("keeper", number)
                return self.ask("keeper", number).get()  # type: ignore[no-any-return]

        node = make_node(middleware=Send(rate_limit(1, burst=2, by="sender")))
        node.spawn(Keeper, name="keeper")
        first, second = node.spawn(Scout), node.spawn(Scout)

        assert first.ask(1).get() == [1, 1]
        assert second.ask(2).get() == [1, 1, 2, 2]
        with pytest.raises(Rejected):
            first.ask(3).get()

    def test_each_recipient_has_a_rate_of_its_own(self, make_node: Callable[..., Node]) -> None:
        node = make_node(middleware=Send(rate_limit(1, by="recipient")))
        first, second = node.spawn(Keeper), node.spawn(Keeper)

        assert first.ask(1).get() == [1]
        assert second.ask(2).get() == [2]
        with pytest.raises(Rejected):
            first.ask(3).get()

    def test_a_function_says_whose_rate_it_is(self, make_node: Callable[..., Node]) -> None:
        def tenant(message: Message[Any]) -> str:
            return message.headers["tenant"]

        node = make_node(middleware=Send(rate_limit(1, by=tenant)))
        ref = node.spawn(Keeper, name="keeper")

        ref.ask(1, headers={"tenant": "a"}).get()
        ref.ask(2, headers={"tenant": "b"}).get()

        with pytest.raises(Rejected):
            ref.ask(3, headers={"tenant": "a"}).get()

    def test_who_was_silent_for_longest_is_forgotten(self, make_node: Callable[..., Node]) -> None:
        node = make_node(middleware=Send(rate_limit(1, by="recipient", capacity=2)))
        first, second, third = (node.spawn(Keeper) for _ in range(3))

        for ref in (first, second, third):
            ref.ask(1).get()

        with pytest.raises(Rejected):
            second.ask(2).get()
        assert first.ask(2).get() == [1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        {"per_second": 0},
        {"per_second": -1},
        {"per_second": float("inf")},
        {"per_second": float("nan")},
        {"per_second": 1, "burst": 0},
        {"per_second": 1, "wait": -1},
        {"per_second": 1, "capacity": 0},
        {"per_second": 1, "by": "tenant"},
    ],
    ids=str,
)
def test_a_rate_that_cannot_be_meant_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings, match="rate_limit: "):
        rate_limit(**arguments)


@given(
    rate=st.sampled_from([0.5, 1.0, 4.0]),
    burst=st.integers(1, 5),
    wait=st.sampled_from([0.0, 1.0, 3.0]),
    pauses=st.lists(st.integers(0, 24).map(lambda eighths: eighths / 8), max_size=60),
)
def test_it_decides_as_a_bucket_of_tokens_does(
    rate: float, burst: int, wait: float, pauses: list[float]
) -> None:
    clock = ManualClock()
    limited = rate_limit(rate, burst=burst, wait=wait)
    give_clock([limited], clock)
    handle = limited(lambda message: Handled())
    tokens = float(burst)

    for pause in pauses:
        clock.advance(pause)
        tokens = min(burst, tokens + pause * rate)
        due_after = (1 - tokens) / rate

        outcome = handle(tell("keeper", 1))

        if tokens >= 1 or due_after <= wait:
            tokens -= 1
        match outcome:
            case Handled():
                assert due_after <= 0
            case Retry(after):
                assert after == pytest.approx(due_after)
                assert 0 < after <= wait
            case _:
                assert due_after > wait
