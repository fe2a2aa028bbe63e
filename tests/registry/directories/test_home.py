"""What a node tells of its agents' loads, and whom it looks at for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from actorbus.registry.directories.redis.home import Home
from actorbus.registry.directories.redis.records import Figures, worth_telling
from actorbus.registry.entry import AgentStatus
from actorbus.testing.directory_contract import ListedAgent, entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.registry.entry import Member


class Telling(ListedAgent):
    """A member that tells when it goes to work, and counts who looks at it."""

    looks = 0
    as_it_is_looked_at: Callable[[Telling], object] = staticmethod(lambda _: None)
    _tell: Callable[[Member], object] | None = None

    def when_stirred(self, tell: Callable[[Member], object]) -> bool:
        self._tell = tell
        return True

    def __getattribute__(self, name: str) -> object:
        if name == "status":
            self.looks += 1
            self.as_it_is_looked_at(self)
        return super().__getattribute__(name)

    def begin(self) -> None:
        """A message comes, and is begun with."""
        tell, self._tell = self._tell, None
        self.status, self.load = AgentStatus.BUSY, 1
        if tell is not None:
            tell(self)

    def end(self) -> None:
        self.message_count += self.load
        self.status, self.load = AgentStatus.IDLE, 0


def lives_in(home: Home, *members: ListedAgent) -> None:
    for member in members:
        home.settle(home.admit(entry(member, home.name), b"kind").number)


def told(home: Home) -> dict[str, Figures]:
    """What is told in one look, and taken by the server."""
    found = {}
    for own, now in home.worth_telling():
        found[own.entry.member.name] = own.told = now
    return found


def test_who_is_at_rest_is_not_looked_at_before_it_goes_to_work() -> None:
    home = Home("a")
    idle, works = Telling("idle"), Telling("works")
    lives_in(home, idle, works)
    told(home)
    looks = idle.looks

    works.begin()

    assert told(home) == {"works": Figures(AgentStatus.BUSY, 1, 0)}
    assert told(home) == {}
    works.end()
    assert told(home) == {"works": Figures(AgentStatus.IDLE, 0, 1)}
    assert idle.looks == looks


def test_who_goes_to_work_just_as_it_is_found_at_rest_is_looked_at_again() -> None:
    home = Home("a")
    member = Telling("works")
    lives_in(home, member)

    def end_and_begin(_: Telling) -> None:
        del member.as_it_is_looked_at
        member.begin()
        member.status, member.load = AgentStatus.IDLE, 0  # what was read of it before

    member.as_it_is_looked_at = end_and_begin
    told(home)
    member.status, member.load = AgentStatus.BUSY, 1

    assert told(home) == {"works": Figures(AgentStatus.BUSY, 1, 0)}


def test_who_never_tells_is_looked_at_each_time() -> None:
    home = Home("a")
    member = ListedAgent("quiet")
    lives_in(home, member)
    told(home)

    member.load = 3

    assert told(home)["quiet"].load == 3


def test_what_the_server_did_not_take_is_told_again() -> None:
    home = Home("a")
    member = Telling("works")
    lives_in(home, member)
    told(home)
    member.begin()
    member.end()

    not_taken = home.worth_telling()

    assert told(home) == {"works": not_taken[0][1]}


def test_a_table_that_is_told_all_anew_has_everyone_as_they_stand_once_they_rest() -> None:
    home = Home("a")
    member = Telling("works", message_count=1_000)
    lives_in(home, member)
    told(home)
    member.begin()

    (anew,) = home.settled()
    member.end()
    last = told(home).get("works", anew.figures)

    assert (last.status, last.load) == (AgentStatus.IDLE, 0)


def test_who_left_is_not_told_of_though_it_works_on() -> None:
    home = Home("a")
    member = Telling("works")
    lives_in(home, member)
    told(home)
    (number,) = home.agents

    home.withdraw(number)
    member.begin()

    assert told(home) == {}


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["begin", "end", "look"]))))
def test_once_all_rest_what_was_told_last_is_how_they_stand(steps: list[tuple[int, str]]) -> None:
    home = Home("a")
    members = [Telling(f"agent-{number}") for number in range(3)]
    lives_in(home, *members)

    for at, step in steps:
        if step == "look":
            told(home)
        else:
            getattr(members[at], step)()
    for member in members:
        member.end()
    told(home)

    owns = home.agents.values()
    assert not any(worth_telling(own.told, Figures.of(own.entry.member)) for own in owns)
