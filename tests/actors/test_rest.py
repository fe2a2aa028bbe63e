"""An agent at rest says when it goes to work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, Node, Ref, handles
from tests.waiting import until

if TYPE_CHECKING:
    from actorbus.actors.cell import Cell

DEADLINE = 10.0


class Worker(Agent):
    @handles
    def work(self, number: int) -> int:
        return number


class Several(Agent):
    dispatcher = "loop"
    concurrency = 2

    @handles
    async def work(self, number: int) -> int:
        return number


class OnLoop(Worker):
    dispatcher = "loop"


class OnThread(Worker):
    dispatcher = "thread"


def cell_of(ref: Ref) -> Cell:
    return ref._cell  # type: ignore[return-value]


@pytest.mark.parametrize("kind", [Worker, OnLoop, OnThread, Several])
def test_who_is_at_rest_tells_once_as_it_goes_to_work(node: Node, kind: type[Agent]) -> None:
    ref = node.spawn(kind)
    cell = cell_of(ref)
    until(lambda: cell.status == "idle")
    stirred: list[Any] = []

    assert cell.when_stirred(stirred.append)
    before = list(stirred)
    ref.ask(1).get(DEADLINE)
    ref.ask(2).get(DEADLINE)

    assert (before, stirred) == ([], [cell])
