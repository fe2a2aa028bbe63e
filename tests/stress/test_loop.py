"""The event loop under agents that ask too much of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

import pytest

from actorbus import Agent, AgentFailed, Node, Settings, handles
from actorbus.testing import TestNode

SOON: Final = 10.0


class Restless(Agent):
    """Tells itself the next number until the test is done; its handler never suspends."""

    def __init__(self, done: threading.Event) -> None:
        self.done = done

    @handles
    async def count(self, number: int) -> None:
        if not self.done.is_set():
            self.ref.tell(number + 1)


class Sleepy(Agent):
    @handles
    async def work(self, job: str) -> str:
        await asyncio.sleep(0.001)
        return job


def test_an_agent_that_is_never_done_leaves_the_loop_to_others_too(node: Node) -> None:
    done = threading.Event()
    node.spawn(Restless, done).tell(1)

    try:
        assert node.spawn(Sleepy).ask("job").get(SOON) == "job"
    finally:
        done.set()


def test_on_a_loop_that_was_lent_its_own_coroutines_go_on_beside_a_busy_agent() -> None:
    async def beat() -> int:
        beats = 0
        async with Node(settings=Settings(log_level="off")) as node:
            done = threading.Event()
            node.spawn(Restless, done).tell(1)
            async with asyncio.timeout(SOON):
                while beats < 10:
                    await asyncio.sleep(0.001)
                    beats += 1
            done.set()
        return beats

    assert asyncio.run(beat()) == 10


def test_an_agent_that_is_never_done_does_not_hang_a_test() -> None:
    with TestNode() as node:
        done = threading.Event()
        node.spawn(Restless, done).tell(1)
        seen = node.spawn(Sleepy).ask("job")

        for _ in range(50):
            node._turned_loop.step()
        done.set()
        node.advance(1.0)

        assert seen.get() == "job"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_a_task_of_a_handler_raises_does_not_end_the_loop(
    node: Node, error: type[BaseException]
) -> None:
    class Splits(Agent):
        @handles
        async def work(self, job: str) -> str:
            async def fail() -> None:
                raise error

            if job == "fail":
                await asyncio.create_task(fail())
            return job

    ref = node.spawn(Splits)

    with pytest.raises(AgentFailed, match=error.__name__):
        ref.ask("fail").get(SOON)

    assert ref.ask("still here").get(SOON) == "still here"


def test_a_crowd_that_waited_leaves_no_crowd_of_tasks_behind(node: Node) -> None:
    replies = [node.spawn(Sleepy).ask("job") for _ in range(1_000)]

    for reply in replies:
        assert reply.get(SOON) == "job"
    node.drain(SOON)

    # A task that has ended leaves the set on the next round of its loop.
    assert node._wait_until(lambda: len(node._loop._tasks) <= 300, SOON)


def test_a_handler_that_blocks_the_loop_leaves_other_threads_to_others(node: Node) -> None:
    begun, release = threading.Event(), threading.Event()

    class Rude(Agent):
        @handles
        async def work(self, job: str) -> str:
            begun.set()
            assert release.wait(SOON)
            return job

    class Echo(Agent):
        @handles
        def echo(self, text: str) -> str:
            return text

    late = node.spawn(Rude).ask("late")
    assert begun.wait(SOON)

    assert node.spawn(Echo).ask("in time").get(SOON) == "in time"
    release.set()
    assert late.get(SOON) == "late"
