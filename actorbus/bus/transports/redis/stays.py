"""The agents that run on a node: a *stay* is an agent's time with it.

It begins when the agent becomes this node's, and ends when it ends, is left to others, or is
another's. One that left is in its *grave* until the server knows: its name is not to be had
here before that.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transports.redis.ownership import Fenced
from actorbus.bus.transports.redis.reading import ACK_BATCH
from actorbus.errors import NameTaken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.bus.transports.redis.consumer import Consumer
    from actorbus.bus.transports.redis.ownership import Ownership, Terms

BURIAL: Final = 5.0
"""Seconds that what an agent had in hand may take to end, once the agent has."""


class Stay:
    """One agent at this node.

    Args:
        inbox: its mailbox in this process.
        terms: on which it is owned.
        consumer: reads its messages.
    """

    __slots__ = ("agent", "consumer", "goes_on", "inbox", "making", "ownership", "terms")

    def __init__(self, inbox: Any, terms: Terms, consumer: Consumer) -> None:
        self.agent: str = inbox.name
        self.inbox = inbox
        self.terms = terms
        self.consumer = consumer
        self.ownership: Ownership | None = None
        """As of when it was last acquired."""
        self.goes_on = False
        """Whether what this node stops doing for it, another node will do."""
        self.making = threading.Lock()
        """Held while a delivery makes what several threads may want of it."""

    @property
    def moves(self) -> bool:
        """Whether another node may run it."""
        return bool(self.terms.spec)

    @property
    def most(self) -> int:
        """Messages that may be with it and are not acknowledged."""
        return min(ACK_BATCH, self.terms.capacity)

    def owned(self) -> Ownership:
        """
        Raises:
            Fenced: it never was.
        """
        if self.ownership is None:
            raise Fenced(self.agent)
        return self.ownership


class Stays:
    """Who is here. Safe from any thread.

    Args:
        node: this incarnation of the node.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self.here: dict[str, Stay] = {}
        self.leaving = False
        """Whether the node has begun to stop: it takes nobody over any more."""
        self._graves: dict[str, bool] = {}
        """By name of who left: whether it ended for good."""
        self._buried = threading.Condition()

    def begin(self, stay: Stay) -> None:
        """
        Raises:
            NameTaken: by another agent that is here.
        """
        with self._buried:
            if self.here.setdefault(stay.agent, stay) is not stay:
                raise NameTaken(stay.agent)

    def end(self, stay: Stay) -> bool:
        """It is not here any more. False: it was not."""
        with self._buried:
            if self.here.get(stay.agent) is not stay:
                return False
            del self.here[stay.agent]
            return True

    def die(self, agent: str, inbox: Any, *, gone: bool, now: bool) -> Stay | None:
        """Have the agent with that mailbox leave, for a grave if it was owned; None if it stays.

        Args:
            gone: it ended for good; else it goes on elsewhere, if it moves.
            now: even if it is to be given up with all others.
        """
        with self._buried:
            stay = self.here.get(agent)
            if stay is None or stay.inbox is not inbox:
                return None
            if stay.moves and not gone:
                stay.goes_on = True
            elif stay.goes_on and not now:
                return None
            del self.here[agent]
            if stay.ownership is not None:
                self._graves[agent] = not stay.goes_on
            return stay

    def leave(self) -> list[Stay]:
        """The node begins to stop; the agents that another node will run."""
        with self._buried:
            self.leaving = True
            moving = [stay for stay in self.here.values() if stay.moves]
            for stay in moving:
                stay.goes_on = True
            return moving

    def is_dead(self, agent: str) -> bool:
        """Whether it ended here for good, and is not buried yet."""
        return self._graves.get(agent, False)

    def dead(self) -> set[str]:
        with self._buried:
            return {agent for agent, for_good in self._graves.items() if for_good}

    def is_known(self, agent: str) -> bool:
        """Whether it is here, or has just left."""
        with self._buried:
            return agent in self.here or agent in self._graves

    def buried(self, agents: Iterable[str]) -> None:
        with self._buried:
            for agent in agents:
                self._graves.pop(agent, None)
            self._buried.notify_all()

    def await_burial(self, agent: str) -> None:
        """
        Raises:
            NameTaken: it takes too long.
        """
        with self._buried:
            if not self._buried.wait_for(lambda: agent not in self._graves, BURIAL):
                raise NameTaken(agent, self._node.rpartition("~")[0])
