"""Failures that come together, late, or in a shape of their own: none takes more than its due."""

from __future__ import annotations

import asyncio
import threading
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import (
    Agent,
    AgentFailed,
    AgentStopped,
    AuditUnavailable,
    Node,
    Reason,
    Settings,
    Supervision,
    handles,
)
from actorbus.bus.middleware import Deliver
from actorbus.message import Message, MessageKind
from actorbus.telemetry import AgentParked, AgentRestarting, Event, HookFailed
from actorbus.testing import TestNode

if TYPE_CHECKING:
    from actorbus.message import Entry

SOON: Final = 10.0


def reasons(node: Node) -> list[Reason]:
    return [letter.reason for letter in node.dead_letters.list()]


class Gate:
    """Holds async handlers until it is opened, from whatever thread."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self._open = threading.Event()

    async def wait(self) -> None:
        self.arrived.release()
        while not self._open.is_set():
            await asyncio.sleep(0.001)

    def await_arrivals(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=SOON)

    def open(self) -> None:
        self._open.set()


class Listener:
    """Remembers events, and waits for some."""

    def __init__(self, node: Node) -> None:
        self.events: list[Event] = []
        self._came = threading.Condition()
        node.telemetry.listen(self._note, every_message=False)

    def _note(self, event: Event) -> None:
        with self._came:
            self.events.append(event)
            self._came.notify_all()

    def wait_for(self, kind: type[Event], count: int = 1) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.of(kind)) >= count, SOON)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def pass_through_the_loop(node: Node) -> None:
    """Have the event loop do what is queued on it."""
    assert node.spawn(AsyncFails).ask("passed").get(SOON) == "passed"


class Several(Agent):
    concurrency = 4
    supervision = Supervision(max_restarts=1, backoff=0.001)

    def __init__(self, gate: Gate, trail: list[str]) -> None:
        self.gate = gate
        self.trail = trail

    @handles
    async def work(self, job: str) -> str:
        await self.gate.wait()
        if job == "fail":
            raise ValueError(job)
        self.trail.append(job)
        return job

    def on_stop(self) -> None:
        self.trail.append("stop")


@pytest.mark.parametrize("asks", [2, 6])
@pytest.mark.parametrize("drain", [False, True])
def test_an_agent_of_several_handlers_stops_after_those_at_work(
    node: Node, drain: bool, asks: int
) -> None:
    gate, trail = Gate(), list[str]()
    ref = node.spawn(Several, gate, trail)
    replies = [ref.ask("job") for _ in range(asks)]
    gate.await_arrivals(min(asks, 4))

    ref.stop(drain=drain)
    pass_through_the_loop(node)
    gate.open()

    assert [reply.get(SOON) for reply in replies[:4]] == ["job"] * min(asks, 4)
    for reply in replies[4:]:
        if drain:
            assert reply.get(SOON) == "job"
        else:
            with pytest.raises(AgentStopped):
                reply.get(SOON)
    node.stop()
    assert trail == ["job"] * (asks if drain else min(asks, 4)) + ["stop"]


def test_a_parked_agent_of_several_handlers_stops_after_those_at_work(node: Node) -> None:
    listener = Listener(node)
    first, second = Gate(), Gate()

    class Parks(Agent):
        concurrency = 2
        supervision = Supervision(max_restarts=0, on_failure="restart")

        @handles
        async def fail(self, _: int) -> None:
            await first.wait()
            raise ValueError

        @handles
        async def work(self, job: str) -> str:
            await second.wait()
            return job

    ref = node.spawn(Parks)
    ref.tell(1)
    reply = ref.ask("job")
    first.await_arrivals(1)
    second.await_arrivals(1)
    first.open()
    listener.wait_for(AgentParked)

    ref.stop()
    pass_through_the_loop(node)
    second.open()

    assert reply.get(SOON) == "job"
    node.stop()


def test_handlers_of_one_agent_that_fail_together_are_one_failure(node: Node) -> None:
    gate, trail = Gate(), list[str]()
    listener = Listener(node)
    ref = node.spawn(Several, gate, trail)
    for _ in range(4):
        ref.tell("fail")
    gate.await_arrivals(4)

    gate.open()

    assert ref.ask("job").get(SOON) == "job"
    assert reasons(node) == [Reason.HANDLER_ERROR] * 4
    assert len(listener.of(AgentRestarting)) == 1
    assert not listener.of(AgentParked)


@pytest.mark.parametrize("how", ["agent", "node"])
def test_a_message_that_waits_to_be_retried_is_not_lost_when_its_agent_stops(
    node: Node, how: str
) -> None:
    failed = threading.Event()

    class Retries(Agent):
        concurrency = 2
        supervision = Supervision(retries=1, backoff=3600.0, backoff_limit=3600.0)

        @handles
        async def work(self, _: int) -> None:
            failed.set()
            raise ValueError

    ref = node.spawn(Retries)
    ref.tell(1)
    assert failed.wait(SOON)
    node.drain(SOON)

    if how == "agent":
        ref.stop()
    node.stop()

    assert reasons(node) == [Reason.STOPPED]


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Fails(Agent):
    supervision = Supervision(on_failure="resume")

    @handles
    def work(self, error: type[BaseException]) -> None:
        raise error

    @handles
    def echo(self, text: str) -> str:
        return text


class AsyncFails(Fails):
    @handles
    async def work(self, error: type[BaseException]) -> None:  # type: ignore[override]
        raise error


ANYTHING: Final = [
    Unsayable,
    SystemExit,
    KeyboardInterrupt,
    MemoryError,
    RecursionError,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
]


@pytest.mark.parametrize("agent", [Fails, AsyncFails])
@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: error.__name__)
def test_whatever_a_handler_raises_hurts_its_agent_only(
    node: Node, agent: type[Agent], error: type[BaseException]
) -> None:
    ref, other = node.spawn(agent), node.spawn(agent)

    with pytest.raises(AgentFailed) as failure:
        ref.ask(error).get(SOON)
    ref.tell(error)

    assert failure.value.error_type in (error.__name__, "RuntimeError")
    assert ref.ask("still here").get(SOON) == "still here"
    assert other.ask("untouched").get(SOON) == "untouched"
    assert reasons(node) == [Reason.HANDLER_ERROR]


def test_a_recursion_without_end_hurts_its_agent_only(node: Node) -> None:
    class Deep(Agent):
        @handles
        def work(self, depth: int) -> int:
            return self.work(depth + 1) + 1

    with pytest.raises(AgentFailed, match="RecursionError"):
        node.spawn(Deep).ask(0).get(SOON)
    assert node.spawn(Fails).ask("untouched").get(SOON) == "untouched"


@pytest.mark.parametrize("agent", [Fails, AsyncFails])
def test_a_middleware_that_returns_no_outcome_fails_the_message_and_not_the_agent(
    agent: type[Agent],
) -> None:
    def broken(_: Any) -> Any:
        return lambda message: "no outcome" if message.payload == "bad" else _(message)

    with Node(middleware=[Deliver(broken)], settings=Settings(log_level="off")) as node:
        ref = node.spawn(agent)

        with pytest.raises(AgentFailed, match="a deliver middleware returned 'no outcome'"):
            ref.ask("bad").get(SOON)

        assert ref.ask("good").get(SOON) == "good"


class RefusesReplies:
    """A strict history that cannot write down replies."""

    strict = True

    def sent(self, message: Entry) -> None:
        if isinstance(message, Message) and message.kind is MessageKind.REPLY:
            raise AuditUnavailable("the disk is full")

    def ended(self, *_: Any) -> None:
        pass

    def handled(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("agent", [Fails, AsyncFails])
def test_a_reply_that_cannot_be_written_down_fails_the_ask_and_not_the_agent(
    node: Node, agent: type[Agent]
) -> None:
    ref = node.spawn(agent)
    node.bus.record_to(RefusesReplies())

    with pytest.raises(AuditUnavailable, match="the disk is full"):
        ref.ask("lost").get(SOON)

    node.bus.record_to(None)
    assert ref.ask("still here").get(SOON) == "still here"


def test_a_forwarded_reply_that_cannot_be_written_down_hurts_nobody(node: Node) -> None:
    class Forwards(Agent):
        @handles
        def work(self, text: str) -> Any:
            return self.ask("inner", text)

    inner = node.spawn(Fails, name="inner")
    outer = node.spawn(Forwards)
    node.bus.record_to(RefusesReplies())

    with pytest.raises(AuditUnavailable):
        outer.ask("lost").get(SOON)

    node.bus.record_to(None)
    assert inner.ask("still here").get(SOON) == "still here"
    assert outer.ask("still here").get(SOON) == "still here"


class Escalates(Agent):
    supervision = Supervision(on_failure="escalate")

    @handles
    def work(self, _: int) -> None:
        raise ValueError


@pytest.mark.parametrize("on_failure", ["resume", "restart", "stop", "escalate"])
@pytest.mark.parametrize("state", ["parked", "retrying", "restarting"])
def test_a_child_may_fail_whatever_its_parent_is_waiting_for(on_failure: Any, state: str) -> None:
    numbers = count()

    class Parent(Agent):
        supervision = Supervision(
            on_failure=on_failure if state == "retrying" else "restart",
            max_restarts=0 if state == "parked" else 5,
            retries=1 if state == "retrying" else 0,
        )

        def on_start(self) -> None:
            for _ in range(3):
                self.spawn(Escalates, name=f"child-{next(numbers)}")

        @handles
        def fail(self, _: int) -> None:
            raise ValueError

        @handles
        def echo(self, text: str) -> str:
            return text

    for seed in range(10):
        with TestNode(seed=seed) as node:
            broke: list[HookFailed] = []
            node.telemetry.listen(
                lambda event, broke=broke: (
                    broke.append(event)  # type: ignore[misc]
                    if isinstance(event, HookFailed)
                    else None
                )
            )
            node.spawn(Parent, name="parent")
            node.settle()
            children = [name for name in node._runtime.cells if name != "parent"]

            node.tell("parent", 1)
            for child in children:
                node.tell(child, 1)
            node.advance(60.0)
            for _ in range(5):
                cell = node._runtime.cells.get("parent")
                if cell is not None and cell.parked:
                    node.unpark("parent")
                    node.advance(60.0)

            assert broke == []
            if cell is not None:
                assert node.ask("parent", "still here").get() == "still here"


def test_whoever_stops_an_agent_twice_hears_of_its_end_twice(node: Node) -> None:
    ended: list[int] = []
    rounds = 300

    class Idle(Agent):
        @handles
        def work(self, _: int) -> None: ...

    for number in range(rounds):
        cell = node._runtime.cells[node.spawn(Idle).name]
        both = threading.Barrier(2)

        def stop(cell: Any = cell, both: threading.Barrier = both, number: int = number) -> None:
            both.wait(SOON)
            cell.stop(then=lambda: ended.append(number))

        threads = [threading.Thread(target=stop) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
    node.stop()

    assert sorted(ended) == sorted([*range(rounds), *range(rounds)])
