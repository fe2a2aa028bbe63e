"""Spawning, watching and stopping at once: nobody is left over, and nobody is left waiting."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import (
    Agent,
    AgentStopped,
    AskTimeout,
    BusClosed,
    NameTaken,
    Node,
    Settings,
    Terminated,
    handles,
)
from actorbus.telemetry import AgentEnded
from actorbus.testing.transport_contract import run_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Reply
    from actorbus.message import MessageId
    from actorbus.telemetry import Event

SOON: Final = 10.0


class Echo(Agent):
    @handles
    def echo(self, number: int) -> int:
        return number

    @handles
    def act(self, what: str) -> None:
        if what == "stop yourself":
            self.ref.stop()
            self.ref.stop(drain=True)


class AsyncEcho(Agent):
    @handles
    async def echo(self, number: int) -> int:
        return number


class Watcher(Agent):
    def __init__(self, told: list[str], *names: str) -> None:
        self.told = told
        self.names = names

    def on_start(self) -> None:
        for name in self.names:
            self.watch(name)

    @handles
    def note(self, ended: Terminated) -> None:
        self.told.append(ended.name)

    @handles
    def look(self, name: str) -> None:
        self.watch(name)


def test_watchers_that_are_gone_are_forgotten_by_those_they_watched(node: Node) -> None:
    told: list[str] = []
    node.spawn(Echo, name="watched")
    for _ in range(20):
        node.spawn(Watcher, told, "watched").stop()
    node.drain(SOON)
    run_until(lambda: len(node._runtime.cells) == 1)

    assert not node._runtime._watched


def test_a_name_used_again_does_not_inherit_what_its_last_owner_watched(node: Node) -> None:
    told: list[str] = []
    node.spawn(Echo, name="watched")
    node.spawn(Watcher, told, "watched", name="watcher").stop()
    run_until(lambda: "watcher" not in node._runtime.cells)
    node.spawn(Watcher, told, name="watcher")

    node.ref("watched").stop()
    run_until(lambda: "watched" not in node._runtime.cells)
    node.drain(SOON)

    assert told == []


@pytest.mark.usefixtures("frequent_switches")
def test_a_watch_that_meets_the_end_is_told_of_it_once(node: Node) -> None:
    told: list[str] = []
    watcher = node.spawn(Watcher, told)
    names = [f"echo-{number}" for number in range(300)]

    for name in names:
        ref = node.spawn(Echo, name=name)
        watcher.tell(name)
        ref.stop()
    run_until(lambda: len(told) >= len(names))
    node.drain(SOON)

    assert sorted(told) == sorted(names)


def test_an_agent_that_ends_while_it_is_made_known_leaves_its_name_free(node: Node) -> None:
    register = node.registry.register

    def end_meanwhile(member: Any) -> None:
        node.registry.register = register  # type: ignore[method-assign]
        ended = threading.Event()
        member.stop(then=ended.set)
        assert ended.wait(SOON)
        register(member)

    node.registry.register = end_meanwhile  # type: ignore[method-assign]
    node.spawn(Echo, name="brief")

    assert node.registry.get("brief") is None
    assert node.spawn(Echo, name="brief").ask(1).get(SOON) == 1


def test_an_agent_spawned_while_its_node_stops_ends_with_it() -> None:
    node = Node(settings=Settings(log_level="off")).start()
    register = node.registry.register

    def stop_meanwhile(member: Any) -> None:
        # What node.stop() does first, on another thread.
        assert node._begin_stop()
        register(member)

    node.registry.register = stop_meanwhile  # type: ignore[method-assign]
    with pytest.raises(BusClosed):
        node.spawn(Echo, name="late")

    run_until(lambda: not node._runtime.cells)
    node._close_dispatchers(SOON)
    node._close_rest(SOON)


def test_a_child_spawned_while_its_parent_ends_ends_too(node: Node) -> None:
    parent = node.spawn(Echo)
    cell = node._runtime.cells[parent.name]
    ended = threading.Event()
    cell.stop(then=ended.set)
    assert ended.wait(SOON)

    node._runtime.spawn(Echo, name="orphan", parent=cell)

    run_until(lambda: "orphan" not in node._runtime.cells)


def test_one_name_is_taken_once_at_a_time_whoever_spawns_and_stops(node: Node) -> None:
    ends: list[Event] = []
    node.telemetry.listen(
        lambda event: ends.append(event) if isinstance(event, AgentEnded) else None,
        every_message=False,
    )
    spawned = [0] * 4

    def spawn_and_stop(number: int) -> None:
        for _ in range(200):
            try:
                ref = node.spawn(Echo, name="one")
            except NameTaken:
                continue
            spawned[number] += 1
            assert ref.ask(1).get(SOON) == 1
            ref.stop()

    run_in_threads(*(partial(spawn_and_stop, number) for number in range(4)))
    run_until(lambda: not node._runtime.cells)

    assert len(ends) == sum(spawned) > 0


def test_stop_before_the_start_after_the_stop_and_from_a_handler(node: Node) -> None:
    never = Node(settings=Settings(log_level="off"))
    never.stop()
    never.stop()
    with pytest.raises(BusClosed):
        never.start()

    ref = node.spawn(Echo)
    ref.ask("stop yourself").get(SOON)
    ref.stop()
    run_until(lambda: not node._runtime.cells)
    node.stop()
    node.stop()

    with pytest.raises(AgentStopped):
        ref.tell(1)
    with pytest.raises(AgentStopped):
        ref.ask(1).get(SOON)


@pytest.mark.parametrize("dispatcher", ["pool", "thread"])
def test_a_node_may_be_stopped_from_a_handler_of_its_own(dispatcher: str) -> None:
    before = set(threading.enumerate())
    node = Node(settings=Settings(log_level="off")).start()
    trail: list[str] = []

    class Last(Agent):
        @handles
        def stop_all(self, _: int) -> None:
            node.stop(timeout=SOON)
            # Longer than a turn may take, so that the agent goes back to the run queue.
            threading.Event().wait(0.01)
            trail.append("node")

        def on_stop(self) -> None:
            trail.append("agent")

    others = [node.spawn(cls) for cls in (Echo, AsyncEcho) for _ in range(5)]

    node.spawn(dispatched(Last, dispatcher)).tell(1)

    run_until(lambda: trail == ["node", "agent"])
    for ref in others:
        with pytest.raises(AgentStopped):
            ref.tell(1)
    run_until(lambda: set(threading.enumerate()) <= before)


def dispatched(agent: type[Agent], dispatcher: str) -> type[Agent]:
    return type(agent.__name__, (agent,), {"dispatcher": dispatcher})


def test_a_reply_settled_while_somebody_begins_to_wait_leaves_no_deadline(node: Node) -> None:
    release = threading.Event()

    class Holder(Agent):
        @handles
        def hold(self, _: int) -> bool:
            return release.wait(SOON)

    asking = node._runtime.asking
    ref = node.spawn(Holder)
    for timeout in (1.0, 30.0):
        release.clear()
        reply = ref.ask(1, timeout=timeout)
        asking.waiting = SettlesFirst(asking.waiting, reply)

        assert reply.get() is True

        asking.waiting = asking.waiting.real
        release.set()
    assert len(asking.deadlines) == 0


class SettlesFirst:
    """Has the reply settled after its deadline was noted and before anybody waits."""

    def __init__(self, real: Any, reply: Reply[Any]) -> None:
        self.real = real
        self.may_block = real.may_block
        self.spin = real.spin
        self._reply = reply

    def wait(
        self, arm: Callable[..., bool], until: float | None, *, answers: MessageId | None = None
    ) -> bool:
        self._reply.resolve(True)
        return bool(self.real.wait(arm, until))


def test_a_reply_whose_callback_raises_does_not_end_the_deadlines_of_others(node: Node) -> None:
    release = threading.Event()

    class Holder(Agent):
        @handles
        def hold(self, _: int) -> bool:
            return release.wait(SOON)

    def fail() -> None:
        raise ValueError("a callback")

    node.spawn(Holder).tell(1)
    deadlines = node._runtime.asking.deadlines
    for _ in range(2):
        reply = node.spawn(Holder).ask(1, timeout=6.0)
        reply.then(fail)
        reply.deadline = reply.asked_at

    patient = node.spawn(Holder).ask(1, timeout=6.0)
    patient.deadline = patient.asked_at + 1.0
    with pytest.raises(AskTimeout):
        patient.get()
    release.set()
    run_until(lambda: len(deadlines) == 0)


def run_until(holds: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(2_000):
        if holds():
            return
        waited.wait(0.005)
    raise AssertionError("it never came to that")


def test_ask_rings_of_two_threads_meet_as_a_deadlock_and_not_as_a_timeout(node: Node) -> None:
    class Asks(Agent):
        @handles
        def ask_other(self, names: tuple[str, ...]) -> Any:
            return self.ask(names[0], names[1:]).get() if names else "end"

    node.spawn(Asks, name="a")
    node.spawn(Asks, name="b")

    for _ in range(50):
        replies = [node.ask("a", ("b", "a")), node.ask("b", ("a", "b"))]
        errors = []
        for reply in replies:
            with pytest.raises(Exception, match="waiting for ever") as raised:
                reply.get(SOON)
            errors.append(raised.value)
        assert not any(isinstance(error, AskTimeout) for error in errors)
