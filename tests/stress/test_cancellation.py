"""Cancelling reaches the message it means, and nothing beside it."""

from __future__ import annotations

import asyncio
import random
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import Agent, Cancelled, handles
from actorbus.testing.transport_contract import run_in_threads

if TYPE_CHECKING:
    from actorbus import Node, Reply

SOON: Final = 10.0


class Worker(Agent):
    """Waits in hand for "wait", and notes of each message whether it saw itself cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.seen: list[tuple[str, bool]] = []

    @handles
    def work(self, job: str) -> list[tuple[str, bool]]:
        if job == "wait":
            self.begun.set()
            assert self.go_on.wait(SOON)
        self.seen.append((job, self.cancelled))
        return self.seen


def test_a_cancelled_message_does_not_make_the_next_one_look_cancelled(node: Node) -> None:
    made: list[Worker] = []

    class Known(Worker):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    ref = node.spawn(Known)
    reply = ref.ask("wait")
    assert made[0].begun.wait(SOON)

    reply.cancel()
    made[0].go_on.set()

    assert ref.ask("next").get(SOON) == [("wait", True), ("next", False)]


def test_a_cancelled_async_handler_leaves_the_agent_and_its_loop_at_work(node: Node) -> None:
    begun = threading.Event()

    class Sleepy(Agent):
        @handles
        async def work(self, job: str) -> str:
            if job == "sleep":
                begun.set()
                await asyncio.sleep(3600)
            return job

    first, other = node.spawn(Sleepy), node.spawn(Sleepy)
    reply = first.ask("sleep")
    assert begun.wait(SOON)

    reply.cancel()

    assert first.ask("next").get(SOON) == "next"
    assert other.ask("next").get(SOON) == "next"


def test_a_handler_that_outlives_its_cancelling_leaves_no_trace_in_the_task_that_runs_it(
    node: Node,
) -> None:
    begun = threading.Event()

    class Stubborn(Agent):
        @handles
        async def work(self, job: str) -> int:
            task = asyncio.current_task()
            assert task is not None
            if job == "sleep":
                begun.set()
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    return -1
            return task.cancelling()

    ref = node.spawn(Stubborn)
    reply = ref.ask("sleep")
    assert begun.wait(SOON)

    reply.cancel()

    assert [ref.ask("next").get(SOON) for _ in range(3)] == [0, 0, 0]


class Echo(Agent):
    @handles
    def echo(self, number: int) -> tuple[int, bool]:
        return number, self.cancelled


class AsyncEcho(Agent):
    @handles
    async def echo(self, number: int) -> tuple[int, bool]:
        if number % 3 == 0:
            await asyncio.sleep(0)
        return number, self.cancelled


class Several(AsyncEcho):
    concurrency = 8


class Asks(Agent):
    """Waits for another agent's answer in its handler."""

    def __init__(self, to: str) -> None:
        self.to = to

    @handles
    def echo(self, number: int) -> Any:
        return self.ask(self.to, number).get()


class AsyncAsks(Agent):
    concurrency = 8

    def __init__(self, to: str) -> None:
        self.to = to

    @handles
    async def echo(self, number: int) -> Any:
        return await self.ask(self.to, number)


def cancel_some(node: Node, name: str, asks: int, seed: int) -> int:
    """Ask often from four threads and cancel about half from others; how many came through.

    Every reply must be settled, and none that came through may have seen itself cancelled.
    """
    answers: list[Any] = []

    def ask_and_cancel(choice: random.Random) -> None:
        open_asks: list[Reply[Any]] = []
        for number in range(asks):
            open_asks.append(node.ask(name, number))
            if choice.random() < 0.5:
                choice.choice(open_asks[-20:]).cancel()
        for number, reply in enumerate(open_asks):
            try:
                answered, looked_cancelled = reply.get(SOON)
            except Cancelled:
                continue
            assert answered == number
            assert not looked_cancelled
            answers.append(answered)

    run_in_threads(*(partial(ask_and_cancel, random.Random(seed + n)) for n in range(4)))
    return len(answers)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("asked", [Echo, AsyncEcho, Several])
@pytest.mark.parametrize("through", [None, Asks, AsyncAsks])
def test_in_a_storm_of_cancelling_every_ask_is_settled_and_no_other_is_hit(
    node: Node, asked: type[Agent], through: type[Agent] | None
) -> None:
    node.spawn(asked, name="asked")
    if through is not None:
        node.spawn(through, "asked", name="through")

    came_through = cancel_some(node, "asked" if through is None else "through", 150, seed=1)

    assert came_through > 0
    node.drain(SOON)
    assert node.ask("asked", 1).get(SOON) == (1, False)
