"""Who is sending: the agent whose handler runs here, if one does."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from actorbus.message import Entry, Message


class Origin(Protocol):
    """What a message takes from the code that sends it."""

    name: str | None
    """The sender."""
    entry: Entry | None
    """The message in hand, as it was taken out of the mailbox: the cause of what is sent."""
    run_id: str | None
    """The run, where no message in hand says it."""

    @property
    def message(self) -> Message[Any] | None:
        """The message in hand."""


CURRENT: ContextVar[Origin | None] = ContextVar("actorbus_origin", default=None)
