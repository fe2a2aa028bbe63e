"""Who keeps the agents of dead nodes, on fakeredis and on a real server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.keeper import Keeper
from actorbus.bus.transports.redis.ownership import Ownership, Terms
from actorbus.errors import TransportUnavailable
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.bus.transports.redis.log import InboxLog

TTL = 30.0
"""Seconds. A node that left is dead at once."""
DEADLINE = 20.0


class Survivor:
    """A node that wants all agents, and runs at once what it adopts."""

    def __init__(self, log: InboxLog, **options: Any) -> None:
        self.node = f"survivor~{uuid4().hex}"
        self.adopted: dict[str, Ownership] = {}
        self.troubles: list[TransportUnavailable] = []
        self.keeper = Keeper(
            log,
            self.node,
            ttl=TTL,
            wants=lambda names: [name for name in names if name not in self.adopted],
            adopt=lambda one: self.adopted.update({one.agent: one}),
            failed=self.troubles.append,
            **options,
        )


@pytest.fixture
def survive(log: InboxLog) -> Iterator[Callable[..., Survivor]]:
    started: list[Survivor] = []

    def survive(**options: Any) -> Survivor:
        survivor = Survivor(log, **options)
        started.append(survivor)
        survivor.keeper.start()
        return survivor

    yield survive
    for one in started:
        one.keeper.close()


def leave_behind(log: InboxLog, count: int) -> None:
    """A node that ran so many agents and is dead."""
    log.beat("dead", ttl=TTL)
    log.acquire_many([f"a{number}" for number in range(count)], "dead", ttl=TTL)
    log.leave("dead", ttl=TTL)


def test_all_agents_of_a_dead_node_are_claimed_at_once_however_many(
    log: InboxLog, survive: Callable[..., Survivor]
) -> None:
    leave_behind(log, 1_200)
    beats: list[float] = []

    survivor = survive(beaten=lambda: beats.append(time.monotonic()))

    until(lambda: len(survivor.adopted) == 1_200)
    assert {one.before for one in survivor.adopted.values()} == {"dead"}
    assert len(beats) < 1_200 / 500
    assert log.owned("dead") == []


def test_two_survivors_share_and_each_agent_has_one_of_them(
    log: InboxLog, survive: Callable[..., Survivor]
) -> None:
    leave_behind(log, 1_200)

    one, two = survive(), survive()

    until(lambda: len(one.adopted) + len(two.adopted) >= 1_200)
    assert one.adopted.keys().isdisjoint(two.adopted)
    assert len(one.adopted) + len(two.adopted) == 1_200


def test_who_is_busy_leaves_agents_to_others(
    log: InboxLog, survive: Callable[..., Survivor]
) -> None:
    leave_behind(log, 600)

    busy, free = survive(is_busy=lambda: True), survive()

    until(lambda: len(free.adopted) == 600)
    assert busy.adopted == {}


def test_an_agent_that_is_ours_and_not_here_for_two_looks_is_adopted(log: InboxLog) -> None:
    here = {"runs"}
    survivor = Survivor(log, strays=lambda names: [one for one in names if one not in here])
    for name in ("runs", "strayed"):
        log.acquire(name, survivor.node, ttl=TTL, terms=Terms(10, spec=b"how"))

    survivor.keeper.look_for_strays()
    first = list(survivor.adopted)
    survivor.keeper.look_for_strays()

    assert first == []
    assert list(survivor.adopted) == ["strayed"]


def test_one_that_was_on_its_way_when_it_was_looked_for_is_left_alone(log: InboxLog) -> None:
    here: set[str] = set()
    survivor = Survivor(log, strays=lambda names: [one for one in names if one not in here])
    log.acquire("coming", survivor.node, ttl=TTL, terms=Terms(10, spec=b"how"))

    survivor.keeper.look_for_strays()
    here.add("coming")
    survivor.keeper.look_for_strays()

    assert survivor.adopted == {}


def test_an_agent_that_became_ours_by_a_call_whose_answer_was_lost_is_adopted(
    log: InboxLog, survive: Callable[..., Survivor], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.release(log.acquire("given-up", "gone", ttl=TTL, terms=Terms(10, spec=b"how")))
    acquire = log.acquire_many
    lost: list[Sequence[str]] = []

    def lose_the_first_answer(agents: Sequence[str], node: str, *, ttl: float) -> Any:
        told = acquire(agents, node, ttl=ttl)
        if not lost:
            lost.append(agents)
            raise TransportUnavailable("the answer was lost")
        return told

    monkeypatch.setattr(log, "acquire_many", lose_the_first_answer)

    survivor = survive()

    until(lambda: lost)
    until(lambda: "given-up" in survivor.adopted)
