"""Asks that wait in the inbox of an agent which is parked: they are answered so where they lie.

Its mailbox holds a few messages that it does not handle, so nothing more is handed to it. Whoever
asks it later hears from the registry that it is parked; these were there before, or were sent
before the registry had told. They stay in the inbox, and are over when they are handed out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.items import LEVELS
from actorbus.bus.transports.redis.letters import UnreadablePayload
from actorbus.bus.transports.redis.ownership import Fenced
from actorbus.errors import AgentStopped, Undecodable, Untrusted
from actorbus.message import Reason

if TYPE_CHECKING:
    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.answers import Answers
    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.items import Item
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.mail import Mail
    from actorbus.bus.transports.redis.stays import Stay, Stays

_AGAIN: Final = (1.5, 3.0)
"""Seconds after which its inbox is looked at again. By the last, all nodes have heard of it."""
_AT_ONCE: Final = 64


class Parking:
    """Safe from any thread."""

    def __init__(
        self,
        log: InboxLog,
        home: Home,
        mail: Mail,
        answers: Answers,
        stays: Stays,
        errands: Errands,
    ) -> None:
        self._log = log
        self._home = home
        self._mail = mail
        self._answers = answers
        self._stays = stays
        self._errands = errands

    def put(self, inbox: Inbox) -> None:
        """The agent with that mailbox was parked."""
        stay = self._stays.here.get(inbox.name)
        if stay is None or stay.inbox is not inbox:
            return
        visit = _Visit(stay)
        clock = self._home.clock
        self._errands.put(self._look, visit)
        for seconds in _AGAIN:
            clock.call_at(clock.now() + seconds, partial(self._errands.put, self._look, visit))

    def _look(self, visits: list[_Visit]) -> None:
        for visit in visits:
            begin = visit.stay.consumer.begins(visit.stay.agent)
            if begin is None:
                continue
            try:
                for level in LEVELS:
                    self._look_at(visit, level, begin[level])
            except Fenced:
                continue  # its next owner has it running

    def _look_at(self, visit: _Visit, level: int, begin: int) -> None:
        """Answer the asks that wait on a level, behind what was handed out or looked at."""
        stay, position = visit.stay, max(begin, visit.positions[level])
        while stay.inbox.owner.parked:
            first, items = self._log.peek(stay.owned(), level, position, count=_AT_ONCE)
            if not items:
                return
            for item in items:
                self._answer(stay, item)
            position = visit.positions[level] = first + len(items)

    def _answer(self, stay: Stay, item: Item) -> None:
        now = int(self._mail.server_time() * 1_000)
        try:
            message, asker = self._mail.opened(stay.agent, item, now, again=True)
        except UnreadablePayload as problem:
            message, asker = problem.message, problem.asker
        except (Undecodable, Untrusted):
            return  # that is said once it is handed out
        if asker is None:
            return
        self._answers.end(item.id)
        begin = stay.consumer.begins(stay.agent)
        if (begin is None or begin[item.level] > item.position) and self._answers.has_ended(
            item.id
        ):
            return  # it was handed out meanwhile, and whoever got it has not seen that it ended
        message.answer_to = self._answers.owed(asker, message, None, stay.inbox)
        error = AgentStopped(stay.agent, "is parked after failing; node.unpark() goes on")
        self._home.fail(message, stay.agent, Reason.STOPPED, error)


class _Visit:
    """An agent that was parked, and up to where its inbox was looked at."""

    __slots__ = ("positions", "stay")

    def __init__(self, stay: Stay) -> None:
        self.stay = stay
        self.positions = [0 for _ in LEVELS]
