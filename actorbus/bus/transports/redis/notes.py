"""The inbox of a node itself: what other nodes tell this one. See ``letters`` for what that is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.herald import read_ahead
from actorbus.bus.transports.redis.items import Item
from actorbus.bus.transports.redis.letters import (
    NOTE_LEVEL,
    Cancelled,
    Outcome,
    Refused,
    StopAgent,
    notes_of,
)
from actorbus.bus.transports.redis.ownership import Terms
from actorbus.bus.transports.redis.remembered import Remembered
from actorbus.bus.transports.redis.unreadable import refuse
from actorbus.errors import Rejected, Undecodable, Untrusted
from actorbus.message import MessageId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.answers import Answers
    from actorbus.bus.transports.redis.consumer import Consumer
    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.log import InboxLog, Letter
    from actorbus.bus.transports.redis.mail import Mail
    from actorbus.bus.transports.redis.ownership import Ownership
    from actorbus.bus.transports.redis.reading import Reading
    from actorbus.bus.transports.redis.requests import Requests
    from actorbus.bus.transports.redis.stays import Stays
    from actorbus.bus.transports.redis.trouble import Trouble

    Note = Outcome | Cancelled | Refused | StopAgent

_IN_HAND: Final = 1_000
"""Notes that are handed out and not acknowledged: the table knows an answer that comes twice."""
_MOST: Final = 1_000_000
_HEARD: Final = 10_000
"""Notes that were heard ahead, and are known when they come."""


class Notes:
    """Each is over once it is read.

    Args:
        node: this incarnation of the node.
        ttl: seconds without a sign of life after which a node is dead.
        requests: settled by the answers that come.
        answers: cancelled where nobody waits any more.
        thank: tells a node that a note of its was heard, by id.
    """

    def __init__(
        self,
        log: InboxLog,
        home: Home,
        stays: Stays,
        *,
        node: str,
        ttl: float,
        consumer: Consumer,
        mail: Mail,
        requests: Requests,
        answers: Answers,
        errands: Errands,
        trouble: Trouble,
        thank: Callable[[str, bytes], object],
    ) -> None:
        self._log = log
        self._home = home
        self._stays = stays
        self._node = node
        self._name = notes_of(node)
        self._ttl = ttl
        self._consumer = consumer
        self._mail = mail
        self._requests = requests
        self._answers = answers
        self._errands = errands
        self._trouble = trouble
        self._thank = thank
        self._ownership: Ownership | None = None
        self._opening = threading.Lock()
        """Held so that nobody opens a note that another is just opening."""
        self._heard: Remembered[bytes] = Remembered(_HEARD)
        """Those that were heard, and have not come yet."""

    def open(self, after: Reading | None = None) -> None:
        """
        Raises:
            TransportUnavailable: the server did not answer.
        """
        self._ownership = self._log.acquire(
            self._name, self._node, ttl=self._ttl, terms=Terms(_MOST)
        )
        self._consumer.read(self._ownership, self, most=_IN_HAND, after=after)

    def is_there(self) -> bool:
        """Whether the server knows it (still).

        Raises:
            TransportUnavailable: the server did not answer.
        """
        return self._log.known([self._name]) != [None]

    def close(self) -> None:
        """What still comes is for nobody: who asked has an answer, or was told that there is none.

        Raises:
            TransportUnavailable: the server did not answer.
            Fenced: others have ended it, because they took this node for dead.
        """
        if self._ownership is not None:
            self._log.drop(self._ownership, reason="")

    def take(self, items: Sequence[Item], now: int) -> None:
        for item in items:
            # In this order: the last thing that is done is to wake who waits for an answer.
            self._consumer.done(self._name, item.id)
            with self._opening:
                was_heard = self._heard.forget(item.id)
            if not was_heard:
                self._take(item, now)

    def hear(self, what: bytes) -> None:
        """Take a note that will be in this inbox, unless who sends it hears that it is here."""
        try:
            node, note_id, blob = read_ahead(what)
        except Undecodable:
            return  # and nothing is lost: what is meant for us is in our inbox, too
        item = Item(NOTE_LEVEL, 0, note_id, 0, blob)
        now = int(self._mail.server_time() * 1_000)
        note: Note | None = None
        try:
            with self._opening:
                try:
                    note = self._opened(item, now)
                except Untrusted:
                    return  # so is this; who reads it there says what is wrong with it
                self._heard.add(note_id)
            self._thank(node, note_id)
            self._obey(note)
        except BaseException:
            self._errands.put(self._finish, (note_id, note))
            raise

    def _finish(self, interrupted: list[tuple[bytes, Note | None]]) -> None:
        """What a thread began that heard what it waits for, and was interrupted at it."""
        for note_id, note in interrupted:
            if isinstance(note, Outcome):
                self._requests.finish(note)
            else:
                self._heard.forget(note_id)  # and is read in the inbox

    def give_up(self, item: Item, letter: Letter, now: int) -> None:
        self._consumer.done(self._name, item.id, letter)

    def lost(self, reading: Reading) -> None:
        """It is not there any more, or another node took this one for dead."""
        self._errands.put(self._reopen, reading)

    def _reopen(self, lost: list[Reading]) -> None:
        self.open(lost[-1])

    def _take(self, item: Item, now: int) -> None:
        try:
            self._obey(self._opened(item, now))
        except Untrusted as error:
            refuse(self._home, item, None, error)

    def _opened(self, item: Item, now: int) -> Note | None:
        """None: it was no note, and that is said."""
        try:
            return self._mail.opened_note(self._name, item, now, self._requests.agent_of)
        except Undecodable as error:
            self._answer_undecodable(item, error)
            return None

    def _obey(self, note: Note | None) -> None:
        match note:
            case Outcome():
                self._requests.settle(note)
            case Cancelled(request):
                self._answers.cancel(request)
            case Refused(request, why):
                self._refused(request, why)
            case StopAgent(name, drain):
                stay = self._stays.here.get(name)
                if stay is not None and stay.inbox.owner is not None:
                    stay.inbox.owner.stop(drain=drain)

    def _refused(self, request: MessageId, why: str) -> None:
        """The asker hears at once, but where nodes sign: its request may be handled all the same,
        and a forged copy of it have been refused. Then the log says it, should no answer come."""
        agent = self._requests.agent_of(request)
        if not agent:
            return
        refused = Rejected(agent, why)
        if self._mail.signs:
            self._trouble.report(refused)
        else:
            self._requests.settle(Outcome(request, error=refused))

    def _answer_undecodable(self, item: Item, error: Undecodable) -> None:
        """The asker hears why; where not even that can be read, a letter is kept."""
        if len(item.blob) > 17:
            request = MessageId(int.from_bytes(item.blob[1:17], "big"))
            if self._requests.settle(Outcome(request, error=error)):
                return
        refuse(self._home, item, None, error)
