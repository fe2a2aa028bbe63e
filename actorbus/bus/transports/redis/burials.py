"""Agents that go: that ended for good, or that are left to whoever else can make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.log import Fenced
from actorbus.bus.transports.redis.stays import BURIAL
from actorbus.bus.transports.redis.unreadable import refuse
from actorbus.errors import AgentStopped, Undecodable, Untrusted
from actorbus.message import Reason

if TYPE_CHECKING:
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.answers import Answers
    from actorbus.bus.transports.redis.consumer import Consumer
    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.log import InboxLog, Item, Ownership
    from actorbus.bus.transports.redis.mail import Mail
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
        home: Home,
        stays: Stays,
        *,
        consumer: Consumer,
        topics: TopicReader,
        mail: Mail,
        answers: Answers,
        errands: Errands,
        trouble: Trouble,
    ) -> None:
        self._log = log
        self._home = home
        self._stays = stays
        self._consumer = consumer
        self._topics = topics
        self._mail = mail
        self._answers = answers
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
                self._end_waiting(by_name[name], ownership)
        for fenced in self._log.drop_many(list(ours.values()), Reason.STOPPED):
            self._trouble.report(fenced)
        # Not while Redis is away: a new agent of the name would be buried with the next try.
        self._stays.buried(names)

    def _end(self, ownerships: list[Ownership]) -> dict[str, Ownership]:
        told = self._log.end_many(ownerships)
        return {one.agent: one for one in told if not isinstance(one, Fenced)}

    def _end_waiting(self, stay: Stay, ownership: Ownership) -> None:
        """What lies in its inbox gets nobody to handle it: dead letters, and errors to askers."""
        cursors = ownership.cursors
        while True:
            fetched = self._log.fetch(ownership, cursors, count=500)
            if not fetched.items:
                return
            moved = list(cursors)
            for item in fetched.items:
                moved[item.level] = moved[item.level]._replace(
                    position=item.position + 1, id=item.id
                )
                self._end_one(stay, item)
            a, b, c, d = moved
            cursors = a, b, c, d

    def _end_one(self, stay: Stay, item: Item) -> None:
        name = stay.agent
        try:
            message, asker = self._mail.opened(name, item, int(self._mail.server_time() * 1_000))
        except (Undecodable, Untrusted) as error:
            refuse(self._home, item, name, error)
            return
        if asker is not None:
            message.answer_to = self._answers.owed(asker, message, None, stay.inbox)
        self._home.fail(message, name, Reason.STOPPED, AgentStopped(name))

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
