"""Whose turn it is: what a round trip acknowledges and fetches. Decisions only, no network.

Acknowledged is after 8 messages of an agent or 20 ms, 10 ms if it has none in hand. Fetched is
where there is room in an agent's window, of many agents at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from actorbus.bus.transports.redis.log import Wanted

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from actorbus.bus.transports.redis.consumer import Recipient
    from actorbus.bus.transports.redis.log import Done
    from actorbus.bus.transports.redis.ownership import Ownership
    from actorbus.bus.transports.redis.reading import Reading

_ACK_AFTER: Final = 0.02
_ACK_SOON: Final = 0.01
"""The same for an agent that has nothing in hand: another question may follow its answer."""
_URGENT: Final = 8
"""URGENT messages that wait, up to which more are fetched where there is no room for others."""
_AT_ONCE: Final = 64
_DONE_AT_ONCE: Final = 300
"""Messages that are acknowledged together, about: those of other agents are next, while what came
of these is handed out."""


class Due(NamedTuple):
    """What an agent has to acknowledge."""

    reading: Reading
    recipient: Recipient
    done: Done


class Fetch(NamedTuple):
    """What is wanted for an agent."""

    reading: Reading
    recipient: Recipient
    wanted: Wanted


class Rota:
    """The agents of one node. Not for several threads at once. Times are in seconds.

    Args:
        window: messages of one agent that are fetched ahead.
    """

    def __init__(self, window: int) -> None:
        self.readings: dict[str, tuple[Reading, Recipient]] = {}
        self._window = window
        self._hungry: dict[str, None] = {}
        """Agents that may have messages to fetch."""
        self._urgent: dict[str, None] = {}
        """Agents that may have URGENT ones, which are fetched where there is no room for others."""
        self._asked: dict[str, None] = {}
        """Agents that were fetched for, and may have had no answer."""
        self._owing: dict[str, float] = {}
        """Agents with something to acknowledge, and since when."""

    def reading(self, agent: str) -> Reading | None:
        found = self.readings.get(agent)
        return None if found is None else found[0]

    def reads(self, reading: Reading, asked: Ownership | None = None) -> bool:
        """Whether its agent is still read for with it; and as it was when something was asked."""
        ownership = reading.ownership
        same_token = asked is None or asked.token == ownership.token
        return same_token and self.reading(ownership.agent) is reading

    def forget(self, agent: str) -> None:
        self.readings.pop(agent, None)
        self._hungry.pop(agent, None)
        self._urgent.pop(agent, None)
        self._asked.pop(agent, None)
        self._owing.pop(agent, None)

    # -- fetching

    @property
    def is_hungry(self) -> bool:
        """Whether there is something to fetch."""
        return bool(self._urgent) or any(map(self._has_room, self._hungry))

    def look(self, agent: str) -> None:
        """It may have messages to fetch."""
        self._hungry[agent] = None

    def rang(self, agent: str) -> None:
        """It has new messages, URGENT ones among them perhaps."""
        self._hungry[agent] = self._urgent[agent] = None

    def look_at_all(self) -> None:
        self._hungry.update(dict.fromkeys(self.readings))

    def look_again(self) -> None:
        """Have what was fetched in vain fetched again."""
        for agent in list(self._asked):
            reading = self.reading(agent)
            if reading is not None and reading.owes_a_fetch:
                self._hungry[agent] = None
            else:
                del self._asked[agent]

    def to_fetch(self, besides: Container[str] = ()) -> list[Fetch]:
        """For whom to fetch, but for those of whom an answer is known that they were not told."""
        # Taken out before it is fetched, not after: a bell that rings meanwhile means more.
        hungry = [name for name in self._hungry if name not in besides and self._has_room(name)]
        counts = dict.fromkeys(hungry[:_AT_ONCE], self._window)
        for agent in counts:
            del self._hungry[agent]
        for agent in [name for name in self._urgent if name not in besides][:_AT_ONCE]:
            del self._urgent[agent]
            reading = self.reading(agent)
            if reading is not None and not self._has_room(agent) and reading.urgent <= _URGENT:
                counts[agent] = 0
        chosen = []
        for agent, count in counts.items():
            reading, recipient = self.readings[agent]
            reading.owes_a_fetch = True
            self._asked[agent] = None
            wanted = Wanted(reading.ownership, reading.cursors, count)
            chosen.append(Fetch(reading, recipient, wanted))
        return chosen

    def _has_room(self, agent: str) -> bool:
        reading = self.reading(agent)
        return reading is not None and reading.waiting * 2 <= self._window

    # -- acknowledging

    @property
    def owes(self) -> bool:
        return bool(self._owing)

    def owe(self, agent: str, now: float) -> None:
        """It has something to acknowledge."""
        self._owing.setdefault(agent, now)

    def hurry(self, agents: Iterable[str]) -> None:
        """Acknowledge at once what some agents have done, if they have."""
        self._owing.update(dict.fromkeys(agents, 0.0))

    def hurry_all(self) -> None:
        self.hurry(list(self._owing))

    def due(self, now: float, besides: Container[str] = ()) -> list[Due]:
        """Whose turn it is to acknowledge, but for those as above; who had it is behind the others.

        Not all of them: enough for a round trip.
        """
        chosen: list[Due] = []
        messages = 0
        for agent, since in list(self._owing.items()):
            if agent in besides:
                continue
            if messages >= _DONE_AT_ONCE:
                break
            found = self.readings.get(agent)
            if found is None or not found[0].owes:
                del self._owing[agent]
                continue
            reading, recipient = found
            patience = _ACK_AFTER if reading.in_hand else _ACK_SOON
            if reading.owes >= reading.enough or now - since >= patience:
                chosen.append(Due(reading, recipient, reading.to_acknowledge()))
                messages += reading.owes
        return chosen

    def acknowledged(self, agent: str, now: float) -> None:
        """The server has taken what an agent had to acknowledge; it may have more by now."""
        self._owing.pop(agent, None)
        if self.readings[agent][0].owes:
            self._owing[agent] = now

    def next_due(self, now: float) -> float:
        """When the first of them is due, as far as is known."""
        soon = float("inf")
        for since in self._owing.values():
            first = since + _ACK_SOON
            soon = min(soon, first if first > now else since + _ACK_AFTER)
        return soon
