"""Agents that go: that ended for good, or that are left to whoever else can make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.ownership import Fenced
from actorbus.bus.transports.redis.stays import BURIAL
from actorbus.errors import AgentStopped
from actorbus.message import Reason

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.consumer import Consumer
    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.leftovers import Leftovers
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.ownership import Ownership
    from actorbus.bus.transports.redis.stays import Stay, Stays
    from actorbus.bus.transports.redis.topics.reader import TopicReader
    from actorbus.bus.transports.redis.trouble import Trouble

_LAST_BURIAL: Final = 0.5
"""What ``BURIAL`` is when the node stops: whoever did not return by then was left behind."""


class Burials:
    """Ends what agents leave behind, many in one round trip."""

    def __init__(
        self,
        log: InboxLog,
        stays: Stays,
        *,
        consumer: Consumer,
        topics: TopicReader,
        leftovers: Leftovers,
        errands: Errands,
        trouble: Trouble,
    ) -> None:
        self._log = log
        self._stays = stays
        self._consumer = consumer
        self._topics = topics
        self._leftovers = leftovers
        self._errands = errands
        self._trouble = trouble
        self._patience = BURIAL

    def hasten(self) -> None:
        """The node stops."""
        self._patience = _LAST_BURIAL

    def put(self, stay: Stay) -> None:
        """It has ended here."""
        self._errands.put(self._give_up if stay.goes_on else self._bury, stay)

    def _bury(self, ended: list[Stay]) -> None:
        """Agents ended for good: what waits for them ends with them, and their names are free.

        Those are left out that are another's by now, or were buried by a try whose answer was
        lost.
        """
        names = [one.agent for one in ended]
        ours = self._end([one.owned() for one in ended])
        self._topics.forget(ours)
        self._consumer.give_up(names, self._patience)
        ours = self._end(list(ours.values()))  # where they stand, now that all is acknowledged
        by_name = {one.agent: one for one in ended}
        for name, ownership in ours.items():
            if ownership.depth:
                stopped = AgentStopped(name)
                self._leftovers.end(ownership, Reason.STOPPED, stopped, by_name[name].inbox)
        for fenced in self._log.drop_many(list(ours.values()), Reason.STOPPED):
            self._trouble.report(fenced)
        # Not while Redis is away: a new agent of the name would be buried with the next try.
        self._stays.buried(names)

    def _end(self, ownerships: list[Ownership]) -> dict[str, Ownership]:
        told = self._log.end_many(ownerships)
        return {one.agent: one for one in told if not isinstance(one, Fenced)}

    def _give_up(self, leaving: list[Stay]) -> None:
        """Leave agents to whoever else can make them."""
        names = {one.agent for one in leaving}
        self._topics.park(names, _LAST_BURIAL)
        for ownership in self._consumer.give_up(names, _LAST_BURIAL):
            names.discard(ownership.agent)
            self._errands.put(self._release, ownership)
        self._stays.buried(names)

    def _release(self, ownerships: list[Ownership]) -> None:
        self._log.release_many(ownerships)
        self._stays.buried(one.agent for one in ownerships)
