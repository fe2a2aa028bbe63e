"""Answers that this node owes others: to requests of theirs that agents here have in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transports.redis.letters import pack_error, pack_refused, pack_value
from actorbus.bus.transports.redis.remembered import Remembered
from actorbus.bus.transports.remote_answer import RemoteAnswer
from actorbus.errors import ActorbusError

if TYPE_CHECKING:
    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.transports.redis.delivery import Delivery
    from actorbus.bus.transports.redis.sender import Sender
    from actorbus.codec import Codec
    from actorbus.message import Message, MessageId

_ENDED: Final = 100_000
"""Messages that ended where they lay and are remembered, of all agents here."""
_CANCELLED: Final = 10_000
"""Cancelled requests that are remembered: some were over already, and never come."""


class Answers:
    """Safe from any thread."""

    def __init__(self, sender: Sender, codec: Codec) -> None:
        self._sender = sender
        self._codec = codec
        self._open: dict[MessageId, RemoteAnswer] = {}
        self.ended: Remembered[bytes] = Remembered(_ENDED)
        """Messages that are over before they are handed out, by id, and their askers know."""
        self._cancelled: Remembered[MessageId] = Remembered(_CANCELLED)
        """Requests for which nobody waits any more, and which were not handed out by then."""

    def owed(
        self, asker: str, message: Message[Any], delivery: Delivery | None, inbox: Inbox
    ) -> RemoteAnswer:
        """Where the answer to `message` goes. The delivery is not over before it is there.

        It is cancelled where nobody waits for it any more.
        """

        def value(answer: RemoteAnswer, value: Any) -> None:
            try:
                blob = pack_value(self._codec, answer.id, value)
            except ActorbusError as problem:
                blob = pack_error(answer.id, problem)
            over(answer)
            self._sender.note_ahead(asker, blob, delivery)

        def error(answer: RemoteAnswer, error: BaseException) -> None:
            over(answer)
            self._sender.note_ahead(asker, pack_error(answer.id, error), delivery)

        def dropped(answer: RemoteAnswer) -> None:
            over(answer)
            if delivery is not None:
                delivery.settled(inbox.name)

        def over(answer: RemoteAnswer) -> None:
            self._open.pop(answer.id, None)

        if delivery is not None:
            delivery.owe(inbox.name)
        answer = RemoteAnswer(message.id, inbox, value=value, error=error, dropped=dropped)
        self._open[message.id] = answer
        if self._cancelled and self._cancelled.forget(message.id):
            self.cancel(message.id)
        return answer

    def end(self, message_id: bytes) -> None:
        """A message that lies in an inbox is not to be handled: whoever says so answers it."""
        self.ended.add(message_id)

    def has_ended(self, message_id: bytes) -> bool:
        """Whether that was said. Says so once."""
        return self.ended.forget(message_id)

    def refuse(self, asker: str, request: MessageId, why: str, *, sealed: bool) -> None:
        """Tell a node that a request which is said to be its own was not trusted, if there is room.

        `sealed`: as the request was. A node that signs believes no note that is not, so nobody
        can have us break off a request of its by a forged one that is not signed.
        """
        self._sender.hint(asker, pack_refused(request, why), sealed=sealed)

    def cancel(self, request: MessageId) -> None:
        """Nobody waits for that answer any more; if it is not owed yet, it never will be."""
        # Remembered before it is looked for: who comes to owe it looks after that.
        self._cancelled.add(request)
        answer = self._open.pop(request, None)
        if answer is not None:
            self._cancelled.forget(request)
            answer.cancel()
