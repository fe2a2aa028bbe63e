"""What lies in an inbox that nobody will read: it ends without being handled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.letters import UnreadablePayload
from actorbus.bus.transports.redis.unreadable import refuse
from actorbus.errors import Undecodable, Untrusted

if TYPE_CHECKING:
    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.answers import Answers
    from actorbus.bus.transports.redis.items import Item
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.mail import Mail
    from actorbus.bus.transports.redis.ownership import Ownership
    from actorbus.errors import ActorbusError
    from actorbus.message import Reason

_AT_ONCE: Final = 500


class Leftovers:
    """Tells the bus of them, and who asked. They stay where they are until the inbox goes."""

    def __init__(self, log: InboxLog, home: Home, mail: Mail, answers: Answers) -> None:
        self._log = log
        self._home = home
        self._mail = mail
        self._answers = answers

    def end(
        self,
        ownership: Ownership,
        reason: Reason,
        error: ActorbusError,
        inbox: Inbox | None = None,
    ) -> None:
        """All that lies in the inbox of an agent, from where its owner is.

        `inbox`: the agent's mailbox here, from which answers go to those who ask; without it
        they know already.

        Raises:
            Fenced, Reset: it is not ours any more, or not what it was.
        """
        cursors = ownership.cursors
        while True:
            fetched = self._log.fetch(ownership, cursors, count=_AT_ONCE)
            if not fetched.items:
                return
            moved = list(cursors)
            for item in fetched.items:
                moved[item.level] = moved[item.level]._replace(
                    position=item.position + 1, id=item.id
                )
                self._end_one(ownership.agent, item, reason, error, inbox)
            a, b, c, d = moved
            cursors = a, b, c, d

    def _end_one(
        self, name: str, item: Item, reason: Reason, error: ActorbusError, inbox: Inbox | None
    ) -> None:
        try:
            message, asker = self._mail.opened(name, item, int(self._mail.server_time() * 1_000))
        except UnreadablePayload as problem:
            message, asker = problem.message, problem.asker
        except (Undecodable, Untrusted) as problem:
            refuse(self._home, item, name, problem)
            return
        if asker is not None and inbox is not None:
            message.answer_to = self._answers.owed(asker, message, None, inbox)
        self._home.fail(message, name, reason, error)
