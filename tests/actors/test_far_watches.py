"""Death watch over nodes: of one process, and over a real Redis."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus import Agent, Node, Terminated, handles
from actorbus.bus.transports.memory import MemoryTransport
from actorbus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[[str], Node]

DEADLINE = 15.0


class Watched(Agent):
    @handles
    def echo(self, text: str) -> str:
        return text


class Moving(Watched):
    failover = True


class Watcher(Agent):
    def __init__(self, told: queue.SimpleQueue[Terminated]) -> None:
        super().__init__()
        self.told = told

    @handles
    def begin(self, name: str) -> None:
        self.watch(name)

    @handles
    def ended(self, message: Terminated) -> None:
        self.told.put(message)


@pytest.fixture(params=["memory", "redis"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts nodes that share a bus."""
    bus: Any = MemoryTransport()
    if request.param == "redis":
        bus = request.getfixturevalue("redis_url")
    settings = Settings(namespace=uuid4().hex, beat=0.2, suspect_after=0.5, dead_after=1.0)
    nodes: list[Node] = []

    def start(name: str) -> Node:
        nodes.append(Node(bus, name=name, settings=settings).start())
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()


def watch(node: Node, name: str) -> queue.SimpleQueue[Terminated]:
    told: queue.SimpleQueue[Terminated] = queue.SimpleQueue()
    watcher = node.spawn(Watcher, told, name=f"watcher-{uuid4().hex}")
    watcher.ask(name).get(DEADLINE)
    return told


def test_an_agent_of_another_node_that_stops_is_told_of_once(start: Start) -> None:
    here, there = start("here"), start("there")
    watched = there.spawn(Watched, name="watched")
    here.ask("watched", "here?").get(DEADLINE)
    told = watch(here, "watched")

    watched.stop()

    assert told.get(timeout=DEADLINE) == Terminated("watched", "it has stopped")
    there.spawn(Watched, name="watched").stop()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.2)


def test_all_agents_of_a_node_that_stops_are_told_of(start: Start) -> None:
    here, there = start("here"), start("there")
    there.spawn(Watched, name="one")
    there.spawn(Watched, name="two")
    here.ask("two", "here?").get(DEADLINE)
    told = [watch(here, name) for name in ("one", "two")]

    there.stop()

    assert {one.get(timeout=DEADLINE).name for one in told} == {"one", "two"}


def test_who_runs_nowhere_is_told_of_at_once(start: Start) -> None:
    told = watch(start("here"), "nobody")

    assert told.get(timeout=DEADLINE) == Terminated("nobody", "it runs nowhere")


@pytest.mark.parametrize("start", ["redis"], indirect=True)
def test_an_agent_that_moves_has_not_stopped_until_nobody_runs_it(start: Start) -> None:
    here, first, second = start("here"), start("first"), start("second")
    second.spawn(Moving, name="makes it known there")
    first.spawn(Moving, name="moving")
    here.ask("moving", "here?").get(DEADLINE)
    told = watch(here, "moving")

    first.stop()
    here.ask("moving", "still there?").get(DEADLINE)
    with pytest.raises(queue.Empty):
        told.get(timeout=0.5)
    here.ref("moving").stop()

    assert told.get(timeout=DEADLINE) == Terminated("moving", "it has stopped")
