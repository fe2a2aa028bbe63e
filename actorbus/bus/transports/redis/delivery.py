"""A message in this node's hands: told how it ends, and what its handler has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.log import Letter
from actorbus.message import Reason, Status

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.stays import Stay

_LONGEST_ERROR: Final = 4_096


class Delivery:
    """One message. It is acknowledged once it has ended here, and once what its handler has sent
    meanwhile, the answer too, is in the inboxes of others, or with them: who dies in between runs
    it again.

    Args:
        letter: why it will not be handled, where that is known before it is begun.
    """

    __slots__ = ("_id", "_letter", "_over", "_owed", "_stay")

    def __init__(self, stay: Stay, message_id: bytes, letter: Letter | None = None) -> None:
        self._stay = stay
        self._id = message_id
        self._letter = letter
        self._over = False
        self._owed: list[None] | None = None

    def owe(self, agent: str | None) -> None:
        """Something that belongs to its handling, by `agent`, is on its way."""
        if self._owed is None:
            # A list, because its append and pop are atomic: senders and the outbox share it.
            with self._stay.making:
                self._owed = [] if self._owed is None else self._owed
        self._owed.append(None)

    def settled(self, agent: str | None) -> None:
        """That has arrived, or will not."""
        if self._owed:
            self._owed.pop()
        if self._over and not self._owed:
            self._acknowledge()

    def goes_on(self, recipient: str | None, reason: Reason) -> bool:
        if reason is not Reason.STOPPED or not self._stay.goes_on:
            return False
        self._stay.consumer.returned(self._stay.agent, self._id)
        return True

    def over(
        self,
        recipient: str | None,
        status: Status,
        reason: Reason | None,
        error: str | None,
        attempt: int,
    ) -> None:
        if status is Status.DEAD and self._letter is None:
            why = (error or "")[:_LONGEST_ERROR]
            self._letter = Letter(0, 0, reason or Reason.HANDLER_ERROR, attempt, why)
        self.handled(recipient)

    def handled(self, recipient: str | None) -> None:
        self._over = True
        if not self._owed:  # as in _acknowledge, in line
            stay = self._stay
            stay.consumer.done(stay.agent, self._id, self._letter)

    def _acknowledge(self) -> None:
        # Two threads may find that they are last; the second is told that it is done already.
        self._stay.consumer.done(self._stay.agent, self._id, self._letter)
