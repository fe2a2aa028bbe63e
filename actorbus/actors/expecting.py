"""A reply that says which class its value must be of: ``ask(expect=Count)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.actors.reply import Reply
from actorbus.errors import UnexpectedReply

if TYPE_CHECKING:
    from actorbus.actors.reply import Asking


class ExpectingReply(Reply[Any]):
    """Fails with ``UnexpectedReply`` where the handler returned anything else.

    Subclasses will do; as for handlers, a bool is no int.
    """

    __slots__ = ("expected",)

    def __init__(
        self,
        asking: Asking,
        recipient: str,
        asked_at: float,
        deadline: float,
        target: Any,
        expected: type[Any],
    ) -> None:
        super().__init__(asking, recipient, asked_at, deadline, target)
        self.expected = expected
        """Who brings the value from another process must know this class to rebuild it."""

    def resolve(self, value: Any) -> bool:
        expected = self.expected
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            return self.fail(UnexpectedReply(self.recipient, expected, type(value)))
        return super().resolve(value)
