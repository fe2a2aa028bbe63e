"""A node of this process, and what it wants the table to say of its agents."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

from actorbus.registry.directories.redis.records import Figures, worth_telling
from actorbus.registry.directories.redis.table import Departure, Joining

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.registry.entry import Entry, Member


class Own:
    """An agent of this process: the number that its node gave it, and what was told of it."""

    __slots__ = ("entry", "kind", "number", "told")

    def __init__(self, entry: Entry, number: int, kind: int, told: Figures) -> None:
        self.entry = entry
        self.number = number
        self.kind = kind
        self.told = told

    def joining(self) -> Joining:
        """As it stood when it was last told of: told twice, it is the same."""
        return Joining(self.entry.member.name, self.number, self.kind, self.told)


class Home:
    """One node. Its token is new each time it joins; numbers of agents and kinds never return.

    Whoever changes it holds the lock of the view.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = os.urandom(8).hex()
        self.agents: dict[int, Own] = {}
        self.lost = False
        """Whether the table may not have all agents (any more)."""
        self.untold: dict[int, float] = {}
        """Agents that the table was not told of yet, and since when they are here."""
        self._restless: dict[int, Own] = {}
        """Agents that may stand otherwise than was told. Those at rest say when they no longer
        are, on any thread and without the lock."""
        self._numbers: dict[str, int] = {}
        self._kinds: dict[bytes, int] = {}
        self._users: dict[int, int] = {}
        self._written: dict[int, bytes] = {}
        self._last = 0

    def own(self, name: str) -> Own | None:
        """The agent that has that name for certain."""
        number = self._numbers.get(name)
        return None if number is None else self.agents[number]

    def admit(self, entry: Entry, written: bytes) -> Joining:
        """A number for an agent that is to join; its name is ``settled`` later."""
        kind = self._kinds.get(written)
        if kind is None:
            kind = self._kinds[written] = self._next()
            self._written[kind] = written
            self._users[kind] = 0
        self._users[kind] += 1
        own = Own(entry, self._next(), kind, Figures.of(entry.member))
        self.agents[own.number] = self._restless[own.number] = own
        return own.joining()

    def take_in(self, entry: Entry, written: bytes, now: float) -> int:
        """The number of an agent that has its name already; the table is told later."""
        number = self.admit(entry, written).number
        self.settle(number)
        self.untold[number] = now
        return number

    def to_tell(self, most: int) -> list[Joining]:
        """Some that the table was not told of, the first ones first."""
        return [self.agents[number].joining() for number in islice(self.untold, most)]

    def settle(self, number: int) -> None:
        """That agent has its name, unless the name was lost again already."""
        own = self.agents.get(number)
        if own is not None:
            self._numbers[own.entry.member.name] = number

    def withdraw(self, number: int) -> Departure | None:
        """That agent is here no more: what to tell the table, if that was news."""
        own = self.agents.pop(number, None)
        if own is None:
            return None
        self.untold.pop(number, None)
        self._restless.pop(number, None)
        name = own.entry.member.name
        if self._numbers.get(name) == number:
            del self._numbers[name]
        self._users[own.kind] -= 1
        last = self._users[own.kind] == 0
        if last:
            del self._users[own.kind]
            del self._kinds[self._written.pop(own.kind)]
        return Departure(self.token, name, number, own.kind if last else None)

    def settled(self) -> list[Joining]:
        """All that the table was told of and that have their names, as they joined."""
        owns = [self.agents[one] for one in self._numbers.values() if one not in self.untold]
        return [one.joining() for one in owns]

    def leave(self) -> None:
        """All are gone."""
        self.agents.clear()
        self.untold.clear()
        self._restless.clear()

    def kinds(self, joining: Iterable[Joining]) -> dict[int, bytes]:
        """What is written of the kinds of those that join."""
        return {one.kind: self._written[one.kind] for one in joining if one.kind in self._written}

    def worth_telling(self) -> list[tuple[Own, Figures]]:
        """Those who stand otherwise than was told, by so much that it matters.

        Only those are looked at that went to work since they were last found at rest.
        """
        found = []
        for number, own in list(self._restless.items()):
            if number in self.untold:
                continue
            # In this order: whoever goes to work from here on is put back by ``_stirred``.
            del self._restless[number]
            if number not in self.agents:
                continue  # it was stirred as it left
            tells = own.entry.member.when_stirred(self._stirred)
            now = Figures.of(own.entry.member)
            if worth_telling(own.told, now):
                found.append((own, now))
            elif tells and now.at_rest:
                continue
            self._restless[number] = own
        return found

    def _stirred(self, member: Member) -> None:
        number = self._numbers.get(member.name)
        own = None if number is None else self.agents.get(number)
        if own is not None:
            self._restless[own.number] = own

    def _next(self) -> int:
        self._last += 1
        return self._last
