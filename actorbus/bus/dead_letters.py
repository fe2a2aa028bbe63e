"""Messages that were accepted and could not be handled, kept with the reason."""

from __future__ import annotations

import builtins
import threading
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from actorbus.errors import InvalidArgument, UnknownMessage
from actorbus.message import Message, MessageId, Reason, format_id, parse_id
from actorbus.telemetry import DeadLetterForgotten

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from actorbus.telemetry import Telemetry


@dataclass(frozen=True, slots=True, eq=False)
class DeadLetter:
    """A message that was not handled. ``at`` is node time; ``error`` may hold a traceback."""

    message: Message[Any]
    recipient: str | None
    reason: Reason
    error: str | None
    attempts: int
    at: float

    @property
    def id(self) -> MessageId:
        """The message's id."""
        return self.message.id


class DeadLetters:
    """The dead letters of a node: at most `capacity`, the oldest is forgotten first.

    What is forgotten is counted in ``forgotten`` and said by telemetry. ``aio`` is the
    awaitable twin.
    """

    def __init__(
        self, capacity: int, telemetry: Telemetry, resend: Callable[[DeadLetter], MessageId]
    ) -> None:
        self.capacity = capacity
        self.forgotten = 0
        self._telemetry = telemetry
        self._resend = resend
        self._lock = threading.Lock()
        self._letters: deque[DeadLetter] = deque()

    @property
    def aio(self) -> AsyncDeadLetters:
        return AsyncDeadLetters(self)

    def add(self, letter: DeadLetter) -> None:
        """Keep `letter`, by its age; the oldest is forgotten if there are too many. For the bus."""
        forgotten = None
        with self._lock:
            position = bisect_right(self._letters, letter.at, key=attrgetter("at"))
            self._letters.insert(position, letter)
            if len(self._letters) > self.capacity:
                forgotten = self._letters.popleft()
                self.forgotten += 1
        if forgotten is not None and self._telemetry.active:
            self._telemetry.emit(
                DeadLetterForgotten(forgotten.message, forgotten.recipient, forgotten.reason)
            )

    def get(self, id: str | int | UUID) -> DeadLetter:
        """The letter of that message; of a broadcast, the newest of its letters.

        Raises:
            UnknownMessage: there is none.
        """
        with self._lock:
            return self._find(parse_id(id))

    def requeue(self, id: str | int | UUID) -> MessageId:
        """Send the message again, under a new id whose cause is the old one; its new id.

        A ttl it had is not started again. Whoever comes at the same time finds no letter, so it
        is sent once; a letter that could not be sent is kept.

        Raises:
            UnknownMessage: there is no such letter.
            UnknownRecipient: its recipient is still missing.
        """
        letter = self.discard(id)
        try:
            return self._resend(letter)
        except BaseException:
            self.add(letter)
            raise

    def discard(self, id: str | int | UUID) -> DeadLetter:
        """Forget the letter and return it.

        Raises:
            UnknownMessage: there is no such letter.
        """
        with self._lock:
            letter = self._find(parse_id(id))
            self._letters.remove(letter)
            return letter

    def __len__(self) -> int:
        return len(self._letters)

    def _find(self, message_id: MessageId) -> DeadLetter:
        for letter in reversed(self._letters):
            if letter.message.id == message_id:
                return letter
        raise UnknownMessage(
            f"no dead letter {format_id(message_id)}; {len(self._letters):,} are kept,"
            " list() shows them"
        )

    def list(
        self,
        *,
        reason: Reason | str | None = None,
        recipient: str | None = None,
        limit: int = 1000,
    ) -> builtins.list[DeadLetter]:
        """The newest letters, newest first.

        Raises:
            InvalidArgument: `reason` is no word at all, or `limit` no int of 1 or more.
        """
        if reason is not None and not isinstance(reason, str):
            raise InvalidArgument("a reason", reason, f"one of {', '.join(Reason)}")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidArgument("a limit", limit, "it must be an int of 1 or more")
        with self._lock:
            newest_first = builtins.list(reversed(self._letters))
        found = (
            letter
            for letter in newest_first
            if (reason is None or letter.reason == reason)
            and (recipient is None or letter.recipient == recipient)
        )
        return [letter for letter, _ in zip(found, range(limit), strict=False)]


class AsyncDeadLetters:
    """The awaitable twin of ``DeadLetters``: in memory nothing waits."""

    __slots__ = ("_letters",)

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def get(self, id: str | int | UUID) -> DeadLetter:
        return self._letters.get(id)

    async def requeue(self, id: str | int | UUID) -> MessageId:
        return self._letters.requeue(id)

    async def discard(self, id: str | int | UUID) -> DeadLetter:
        return self._letters.discard(id)

    async def list(
        self,
        *,
        reason: Reason | str | None = None,
        recipient: str | None = None,
        limit: int = 1000,
    ) -> builtins.list[DeadLetter]:
        return self._letters.list(reason=reason, recipient=recipient, limit=limit)
