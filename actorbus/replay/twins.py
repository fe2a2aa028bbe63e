"""Which message of the sandbox repeats which message of the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.message import MessageId

if TYPE_CHECKING:
    from actorbus.message import Message
    from actorbus.persistence.answers import MessageView

REPLAY_OF: Final = "replay_of"
"""The header with the id of the message that this one repeats."""

_NOBODY: Final = MessageId(0)


class Twins:
    """Pairs of a message that was sent here and the recorded one that it repeats."""

    def __init__(self) -> None:
        self._twins: dict[MessageId, MessageView] = {}
        self._repeats: dict[MessageId, MessageId] = {}
        self._conversations: dict[MessageId, MessageId] = {}

    def pair(self, message: Message[Any], view: MessageView) -> None:
        self._twins[message.id] = view
        self._repeats[view.id] = message.id
        self._conversations.setdefault(view.correlation_id, message.correlation_id)

    def take(self, view: MessageView, message: Message[Any]) -> None:
        """`view` counts as repeated, but what `message` does is not compared with it."""
        self._repeats[view.id] = message.id

    def of(self, sent: MessageId | None) -> MessageView | None:
        """The recorded message that the one of this id repeats."""
        return self._twins.get(sent or _NOBODY)

    def repeat_of(self, recorded: MessageId | None) -> MessageId | None:
        """The id of the message here that repeats the recorded one of this id."""
        return self._repeats.get(recorded or _NOBODY)

    def conversation(self, recorded: MessageId, first: MessageId) -> MessageId:
        """The conversation here that repeats a recorded one; it begins with `first`."""
        return self._conversations.setdefault(recorded, first)
