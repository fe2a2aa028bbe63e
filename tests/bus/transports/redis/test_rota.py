"""Whose turn it is: nothing here waits, and no server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus.bus.transports.redis.items import Item
from actorbus.bus.transports.redis.ownership import Ownership
from actorbus.bus.transports.redis.reading import Reading
from actorbus.bus.transports.redis.rota import Rota

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.bus.transports.redis.rota import Due, Fetch

NOBODY: Any = None
WINDOW = 8


@pytest.fixture
def rota() -> Rota:
    return Rota(WINDOW)


def read(rota: Rota, *agents: str) -> None:
    for agent in agents:
        ownership = Ownership(agent, "n", "1", 0, (0, 0, 0, 0), (0, 0, 0, 0), True)
        rota.readings[agent] = Reading(ownership), NOBODY


def fetched(rota: Rota, agent: str, count: int, level: int = 2) -> None:
    reading = rota.readings[agent][0]
    first = reading.cursors[level].position
    reading.fetched([_item(level, first + at) for at in range(count)], 0)


def handled(rota: Rota, agent: str, count: int, now: float = 0.0) -> None:
    """Some messages come to an agent, which has the more in hand that it could have."""
    reading = rota.readings[agent][0]
    fetched(rota, agent, count)
    for item in reading.hand_out():
        reading.done(item.id)
    rota.owe(agent, now)


def taken(rota: Rota, due: Iterable[Due], now: float = 0.0) -> None:
    """The server has taken what was due."""
    for one in due:
        one.reading.acknowledged(one.done)
        rota.acknowledged(one.reading.ownership.agent, now)


def names(some: Iterable[Due | Fetch]) -> list[str]:
    return [one.reading.ownership.agent for one in some]


def _item(level: int, position: int) -> Item:
    key = f"{level}.{position}".encode().ljust(16)
    return Item(level, position, key, 0, b"")


class TestFetching:
    def test_a_bell_is_good_for_one_fetch(self, rota: Rota) -> None:
        read(rota, "a", "b")
        rota.look("b")

        found = rota.to_fetch()

        assert names(found) == ["b"]
        assert found[0].wanted.most == WINDOW
        assert rota.to_fetch() == []

    def test_who_has_no_room_waits_for_it(self, rota: Rota) -> None:
        read(rota, "a")
        fetched(rota, "a", WINDOW)
        rota.look("a")

        before = rota.is_hungry, names(rota.to_fetch())
        rota.readings["a"][0].hand_out()
        after = rota.is_hungry, names(rota.to_fetch())

        assert before == (False, [])
        assert after == (True, ["a"])

    def test_urgent_ones_are_looked_for_where_there_is_no_room(self, rota: Rota) -> None:
        read(rota, "a")
        fetched(rota, "a", WINDOW)
        rota.rang("a")

        found = rota.to_fetch()

        assert [one.wanted.most for one in found] == [0]

    def test_who_was_not_told_yet_what_came_has_its_turn_after_that(self, rota: Rota) -> None:
        read(rota, "a", "b")
        rota.rang("a")
        rota.rang("b")

        first = rota.to_fetch({"a"})

        assert names(first) == ["b"]
        assert rota.is_hungry
        assert names(rota.to_fetch()) == ["a"]

    def test_what_got_no_answer_is_fetched_again(self, rota: Rota) -> None:
        read(rota, "a", "b")
        rota.look("a")
        rota.to_fetch()

        rota.look_again()

        assert names(rota.to_fetch()) == ["a"]

    def test_who_was_not_fetched_for_is_not_looked_at_again(self) -> None:
        rota, looked = Rota(WINDOW), []

        class Seen(dict[str, Any]):
            def get(self, name: str, default: Any = None) -> Any:
                looked.append(name)
                return super().get(name, default)

            def items(self) -> Any:
                looked.extend(self)
                return super().items()

        rota.readings = Seen()
        read(rota, "a", "b")
        rota.look("a")
        rota.to_fetch()
        looked.clear()

        rota.look_again()
        fetched(rota, "a", 1)
        rota.look_again()
        rota.look_again()

        assert looked == ["a", "a"]

    def test_who_is_not_read_for_any_more_is_left_out(self, rota: Rota) -> None:
        read(rota, "a", "b")
        rota.look_at_all()
        rota.hurry(["a", "b"])

        rota.forget("a")

        assert names(rota.to_fetch()) == ["b"]
        assert rota.due(0.0) == []


class TestAcknowledging:
    def test_half_of_what_an_agent_may_have_is_enough(self, rota: Rota) -> None:
        read(rota, "few", "many")
        handled(rota, "few", 7)
        handled(rota, "many", 8)

        assert names(rota.due(0.0)) == ["many"]

    def test_less_than_that_is_due_after_a_while(self, rota: Rota) -> None:
        read(rota, "a")
        handled(rota, "a", 1)

        early = rota.due(0.009)
        due = rota.due(rota.next_due(0.009))

        assert early == []
        assert names(due) == ["a"]

    def test_who_has_more_in_hand_waits_longer_for_it(self, rota: Rota) -> None:
        read(rota, "a")
        handled(rota, "a", 1)
        fetched(rota, "a", 1)
        rota.readings["a"][0].hand_out()

        assert rota.due(0.011) == []
        assert names(rota.due(rota.next_due(0.011))) == ["a"]

    def test_what_is_hurried_is_due_at_once(self, rota: Rota) -> None:
        read(rota, "a")
        handled(rota, "a", 1, now=5.0)

        rota.hurry_all()

        assert names(rota.due(5.0)) == ["a"]

    def test_who_has_acknowledged_all_owes_nothing(self, rota: Rota) -> None:
        read(rota, "a")
        handled(rota, "a", 8)

        taken(rota, rota.due(0.0))

        assert not rota.owes
        assert rota.next_due(0.0) == float("inf")

    def test_what_is_done_meanwhile_is_owed_from_then_on(self, rota: Rota) -> None:
        read(rota, "a")
        handled(rota, "a", 8)
        due = rota.due(0.0)
        handled(rota, "a", 1)

        taken(rota, due, now=7.0)

        assert rota.owes
        assert rota.due(7.005) == []
        assert names(rota.due(7.011)) == ["a"]

    def test_who_was_not_told_yet_what_was_taken_has_its_turn_after_that(self, rota: Rota) -> None:
        read(rota, "a", "b")
        handled(rota, "a", 8)
        handled(rota, "b", 8)

        assert names(rota.due(0.0, {"a"})) == ["b"]
        assert names(rota.due(0.0)) == ["a", "b"]

    @pytest.mark.parametrize("pipelined", [False, True])
    def test_who_is_behind_others_has_its_turn_however_busy_they_are(
        self, rota: Rota, pipelined: bool
    ) -> None:
        agents = [f"a{number}" for number in range(200)]
        read(rota, *agents)
        for agent in agents:
            handled(rota, agent, 8)
        turns: list[str] = []

        before: list[Due] = []
        for _ in range(6):
            due = rota.due(0.0, names(before) if pipelined else ())
            if not pipelined:
                before = due
            turns += names(due)
            taken(rota, before)
            for agent in names(before):
                handled(rota, agent, 8)
            before = due

        assert turns[:200] == agents
        assert turns[200:] == agents[: len(turns) - 200]

    def test_a_round_trip_acknowledges_so_many_messages(self, rota: Rota) -> None:
        agents = [f"a{number}" for number in range(200)]
        read(rota, *agents)
        for agent in agents:
            handled(rota, agent, 8)

        due = rota.due(0.0)

        assert 300 <= sum(one.reading.owes for one in due) < 300 + 8
