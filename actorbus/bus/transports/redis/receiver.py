"""The way into a node: what was fetched goes into the mailboxes of its agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actorbus.bus.history import HANDLED_TELL
from actorbus.bus.mailbox import Refusal
from actorbus.bus.transports.redis.delivery import Delivery
from actorbus.bus.transports.redis.letters import UnreadablePayload
from actorbus.bus.transports.redis.log import Letter
from actorbus.bus.transports.redis.unreadable import reason_of, refuse
from actorbus.codec.signing.sealing import Distrust
from actorbus.errors import AgentStopped, OwnerLost, Undecodable, Untrusted
from actorbus.message import MessageKind, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.answers import Answers
    from actorbus.bus.transports.redis.items import Item
    from actorbus.bus.transports.redis.mail import Mail
    from actorbus.bus.transports.redis.reading import Reading
    from actorbus.bus.transports.redis.reclaims import Reclaims
    from actorbus.bus.transports.redis.stays import Stay

_TELL: Final = MessageKind.TELL  # Python takes long to look a member of an enum up
_TOLD: Final = frozenset(Distrust) - {Distrust.MISPLACED, Distrust.REPLAYED}
"""What a node may be wrong about that asks in good faith."""


class Receiver:
    """Receives for one node. Called on the consumer's thread: nothing here blocks."""

    def __init__(self, home: Home, mail: Mail, answers: Answers) -> None:
        self._home = home
        self._mail = mail
        self._answers = answers

    def deliver(self, stay: Stay, item: Item, now: int) -> None:
        """Put a message that was fetched into its mailbox. `now`: server time, milliseconds."""
        inbox, home = stay.inbox, self._home
        if self._answers.ended and self._answers.has_ended(item.id):
            stay.consumer.done(stay.agent, item.id)
            return
        try:
            message, asker = self._mail.opened(inbox.name, item, now)
        except UnreadablePayload as error:
            self._give_back(stay, item, error)
            return
        except (Undecodable, Untrusted) as error:
            self._refuse(stay, item, error)
            return
        delivery = message.delivery = Delivery(stay, item.id)
        if item.expiry:
            left = home.clock.now() + (item.expiry - now) / 1_000
            signed = None if self._mail.trust is None else message.deadline
            message.deadline = left if signed is None else min(left, signed)
        if asker is None:
            if message.kind is _TELL and message.attempt == 1:
                message.manner = HANDLED_TELL
        else:
            message.answer_to = self._answers.owed(asker, message, delivery, inbox)
        offered = inbox.offer(message)
        if (offered is Refusal.FULL or offered is message) and inbox.insist(message):
            # It was counted in Redis; here other things may wait: schedules, what Pykka sends.
            offered = None
        if offered is not None:
            home.fail(message, inbox.name, Reason.STOPPED, AgentStopped(inbox.name))
        elif asker is not None and getattr(inbox.owner, "parked", False):
            inbox.owner.refuse_asks()

    def give_up(self, stay: Stay, item: Item, letter: Letter, now: int) -> None:
        """End a message that was fetched without handling it, as `letter` says."""
        try:
            message, asker = self._mail.unopened(stay.agent, item, now)
        except (Undecodable, Untrusted) as error:
            self._refuse(stay, item, error)
            return
        message.attempt = letter.attempts
        delivery = message.delivery = Delivery(stay, item.id, letter)
        if asker is not None:
            message.answer_to = self._answers.owed(asker, message, delivery, stay.inbox)
        lost = OwnerLost(stay.agent, deaths=letter.attempts)
        self._home.fail(message, stay.agent, Reason.CRASHED_OWNER, lost)

    def _give_back(self, stay: Stay, item: Item, problem: UnreadablePayload) -> None:
        """Its sender meant it, and it cannot be read here: the record and the asker say so."""
        message, asker = problem.message, problem.asker
        delivery = message.delivery = Delivery(stay, item.id)
        if asker is not None:
            message.answer_to = self._answers.owed(asker, message, delivery, stay.inbox)
        self._home.fail(message, stay.agent, Reason.UNDECODABLE, Undecodable(str(problem)))

    def _refuse(self, stay: Stay, item: Item, error: Undecodable | Untrusted) -> None:
        if isinstance(error, Untrusted) and error.why in _TOLD:
            self._tell_asker(item, error)
        refuse(self._home, item, stay.agent, error)
        letter = Letter(item.level, item.position, reason_of(error), 1, str(error))
        stay.consumer.done(stay.agent, item.id, letter)

    def _tell_asker(self, item: Item, error: Untrusted) -> None:
        asked = self._mail.asked(item)
        if asked is not None:
            request, asker = asked
            sealed = error.why != Distrust.UNSIGNED
            self._answers.refuse(asker, request, str(error), sealed=sealed)


class Arrivals:
    """Where the messages of one agent go that runs here."""

    __slots__ = ("_receiver", "_reclaims", "stay")

    def __init__(self, stay: Stay, receiver: Receiver, reclaims: Reclaims) -> None:
        self.stay = stay
        self._receiver = receiver
        self._reclaims = reclaims

    def take(self, items: Sequence[Item], now: int) -> None:
        for item in items:
            self._receiver.deliver(self.stay, item, now)

    def give_up(self, item: Item, letter: Letter, now: int) -> None:
        self._receiver.give_up(self.stay, item, letter, now)

    def lost(self, reading: Reading) -> None:
        self._reclaims.put(self, reading)
