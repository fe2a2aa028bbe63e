"""What other threads, timers and children want of an agent: its next turn obeys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from actorbus.actors.cell import Cell
    from actorbus.message import Message

T = TypeVar("T")


@dataclass(slots=True)
class Stop:
    """End the agent: at once, or after what waits is handled."""

    drain: bool
    reason: str = "stopped"


@dataclass(slots=True)
class Restart:
    """Make a new instance: the back-off is over."""

    error: BaseException
    message: Message[Any] | None


@dataclass(slots=True)
class Continue:
    """Go on with the instance there is."""


@dataclass(slots=True)
class TryAgain:
    """Handle the message again that failed: the back-off is over."""


@dataclass(slots=True)
class AllReturned:
    """The last of several handlers has returned while the agent was to stop."""


@dataclass(slots=True)
class Unpark:
    """Go on after parking, with a clean record."""


@dataclass(slots=True)
class RefuseAsks:
    """Answer the asks that reached a parked agent's mailbox."""


@dataclass(slots=True)
class ChildFailed:
    """A child escalates its failure."""

    child: Cell
    error: BaseException


START: Final = Continue()

Command = Stop | Restart | Continue | TryAgain | AllReturned | Unpark | RefuseAsks | ChildFailed
