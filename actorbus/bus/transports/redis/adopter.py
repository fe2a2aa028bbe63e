"""Agents that come: those whose node died or gave them up, and that this node can make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from actorbus.bus.transports.redis.errands import Errands
from actorbus.bus.transports.redis.letters import is_notes
from actorbus.errors import BusClosed, NameTaken, TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.ownership import Known, Ownership, Terms
    from actorbus.bus.transports.redis.stays import Stays
    from actorbus.bus.transports.redis.topics.reader import TopicReader
    from actorbus.bus.transports.redis.trouble import Trouble

_MOMENT: Final = 0.5
_NO_TIME: Final = 0.0
_TO_MAKE: Final = 500
"""Agents that were taken over and are to be made, before others should take the next ones."""
_RETRY_MAKING: Final = 30.0
"""Seconds for which an agent that could not be made here is left to others."""


class Crew(Protocol):
    """The agents that a node could run: what the transport asks of those above it."""

    def spec(self, inbox: Inbox) -> bytes:
        """How another node makes the agent of `inbox`; nothing if none may."""

    def can_make(self, name: str, spec: bytes) -> bool:
        """Whether this node could run that agent. Quick."""

    def make(self, name: str, spec: bytes) -> None:
        """Run it here: its inbox will be attached."""


class NoCrew:
    def spec(self, inbox: Inbox) -> bytes:
        return b""

    def can_make(self, name: str, spec: bytes) -> bool:
        return False

    def make(self, name: str, spec: bytes) -> None:
        raise NotImplementedError


class Resumed(NamedTuple):
    """An agent that is ours and goes on with its events, and is to be attached."""

    ownership: Ownership
    terms: Terms


class Adopter:
    """Makes agents that became this node's, on a thread of its own. Safe from any thread.

    Args:
        crew: the agents that this node could run.
    """

    def __init__(
        self,
        log: InboxLog,
        topics: TopicReader,
        stays: Stays,
        *,
        crew: Callable[[], Crew],
        trouble: Trouble,
    ) -> None:
        self._log = log
        self._topics = topics
        self._stays = stays
        self._crew = crew
        self._trouble = trouble
        self._making = Errands("actorbus-adopter", trouble.report)
        self._before: dict[str, str] = {}
        """Which dead nodes agents were at that are not resumed yet."""
        self._adopted: set[str] = set()
        """Agents that became ours, and that we did not try to make yet."""
        self._resumed: dict[str, Resumed] = {}
        self._unmade: dict[str, float] = {}
        """Until when agents that could not be made are left to others."""

    def start(self) -> None:
        self._making.start()

    def close(self, timeout: float) -> None:
        self._making.close(timeout)

    def wants(self, names: list[str]) -> list[str]:
        """Which agents without an owner this node would run."""
        now = time.monotonic()
        if self._stays.leaving:
            return []
        names = [
            name
            for name in names
            if not is_notes(name)
            and name not in self._stays.here
            and name not in self._adopted
            and self._unmade.get(name, 0.0) <= now
        ]
        known = self._log.known(names) if names else []
        crew = self._crew()
        return [
            name
            for name, found in zip(names, known, strict=True)
            if found is not None and found.spec and crew.can_make(name, found.spec)
        ]

    def strays(self, names: list[str]) -> list[str]:
        """Which of these agents, this node's by what the server says, nobody here knows of."""
        here = self._stays.here
        return [
            name
            for name in names
            if name not in here  # as nearly all are, which takes no lock
            and not is_notes(name)
            and not self._stays.is_known(name)
            and name not in self._adopted
        ]

    def adopt(self, ownership: Ownership) -> None:
        """Make an agent that became this node's."""
        if ownership.before:
            self._before[ownership.agent] = ownership.before
        self._adopted.add(ownership.agent)
        self._making.put(self.make, ownership)

    def is_busy(self) -> bool:
        """Whether so many wait to be made that others should have the next ones."""
        return self._making.waiting > _TO_MAKE

    def resumed(self, agent: str) -> Resumed | None:
        """How the agent that is attached now was had already, if it was. Says so once."""
        return self._resumed.pop(agent, None)

    def before(self, agent: str) -> str | None:
        """The dead node at which the agent that is attached now was. Says so once."""
        return self._before.pop(agent, None)

    def make(self, ownerships: list[Ownership]) -> None:
        """Make agents that are ours now. Those that cannot be made are left to others."""
        try:
            self._make(ownerships)
        except TransportUnavailable:
            raise  # it is tried again
        except Exception as error:  # noqa: BLE001 - or these would be ours for ever, and run nowhere
            self._trouble.report(error)
            self._leave_unmade([(one, _RETRY_MAKING) for one in ownerships])
        self._adopted.difference_update(one.agent for one in ownerships)

    def _make(self, ownerships: list[Ownership]) -> None:
        ownerships = [one for one in ownerships if one.agent not in self._stays.here]
        known = self._log.known([one.agent for one in ownerships])
        self._resume(ownerships, known)
        unmade: list[tuple[Ownership, float]] = []
        for ownership, found in zip(ownerships, known, strict=True):
            if (pause := self._make_one(ownership.agent, found)) is not None:
                unmade.append((ownership, pause))
        self._topics.begin([one.agent for one in ownerships])
        self._leave_unmade(unmade)

    def _make_one(self, name: str, found: Known | None) -> float | None:
        """Seconds for which it is left to others; None: it runs here."""
        if found is None or self._stays.leaving:
            return _RETRY_MAKING
        try:
            self._crew().make(name, found.spec)
        except (NameTaken, BusClosed, TransportUnavailable):
            # By the dead, in the eyes of the registry; or this node has begun to stop; or
            # Redis is away, which is no fault of the agent.
            return _MOMENT
        except Exception as error:  # noqa: BLE001 - an agent's own code runs here
            self._trouble.report(error)
            return _RETRY_MAKING
        return None

    def _resume(self, ownerships: list[Ownership], known: list[Known | None]) -> None:
        """Have agents go on with broadcasts and events where they were, in few round trips."""
        resumed = {
            ownership.agent: Resumed(ownership, found.terms)
            for ownership, found in zip(ownerships, known, strict=True)
            if found is not None
        }
        self._topics.resume({name: self._before.get(name) for name in resumed}, begin=False)
        self._resumed.update(resumed)
        for ownership in ownerships:
            self._before.pop(ownership.agent, None)

    def _leave_unmade(self, unmade: list[tuple[Ownership, float]]) -> None:
        """Leave agents to others, where they are, and to this node after some seconds."""
        now = time.monotonic()
        left: dict[str, Ownership] = {}
        for ownership, seconds in unmade:
            self._unmade[ownership.agent] = now + seconds
            self._resumed.pop(ownership.agent, None)
            # Else it was made, and is given up once what it has done is acknowledged.
            if not self._stays.is_known(ownership.agent):
                left[ownership.agent] = ownership
        if left:
            self._topics.park(left, _NO_TIME)
            self._log.release_many(list(left.values()))
