"""What the agents of a replay have still to send.

What an agent sends gets the next unmatched message that the record has of the same handling
and destination, if both say the same (``record.py`` tells the rule).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from actorbus.actors.runtime import kebab_case
from actorbus.bus.origin import CURRENT
from actorbus.replay.divergence import Difference
from actorbus.replay.record import first_to
from actorbus.replay.said import said

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from actorbus.persistence.answers import MessageView
    from actorbus.replay.course import Course
    from actorbus.replay.record import Handling, Record
    from actorbus.replay.said import Said
    from actorbus.replay.twins import Twins


class Script:
    """Strikes out what was sent; what is left of a handling it has still to send."""

    def __init__(self, record: Record, twins: Twins, course: Course) -> None:
        self._record = record
        self._twins = twins
        self._course = course
        self._left: dict[Handling, list[MessageView]] = {
            handling: list(sent) for handling, sent in record.sent.items()
        }

    def match(self, cause: MessageView, sender: str, says: Said) -> MessageView | None:
        """The recorded message that this one repeats; None where the replay differs, or where
        the record ends."""
        left = self._left.get((cause.id, sender), [])
        twin = first_to(left, says)
        if twin is not None:
            if said(twin).same_as(says):
                left.remove(twin)
                return twin
            if self._course.forked:
                left.remove(twin)
        if not left and twin is None and self._record.delivery(cause, sender) is None:
            return None  # the record ends within this handling
        expected = twin or (left[0] if left else None)
        difference = Difference.UNEXPECTED if expected is None else Difference.DIFFERENT
        self._course.differs(difference, expected, says, cause)
        return None

    def left_by(self, cause: MessageView, agent: str) -> list[MessageView]:
        """What `agent` has still to send with `cause` in hand."""
        return self._left.get((cause.id, agent), [])

    def left_here(self) -> list[MessageView]:
        """What the handler at work has still to send."""
        origin = CURRENT.get()
        message = None if origin is None else origin.message
        if origin is None or origin.name is None or message is None:
            return []
        twin = self._twins.of(message.id)
        return [] if twin is None else self.left_by(twin, origin.name)


class Choices:
    """What load or chance decided, and numbers that others counted: as in the record."""

    def __init__(self, record: Record, script: Script, given: Container[str]) -> None:
        self._record = record
        self._script = script
        self._given = given
        self._named: set[str] = set()

    def one(self, may_be: Callable[[str], bool]) -> str | None:
        """Whom the handler at work chose among those who may be chosen."""
        for view in self._script.left_here():
            if view.recipient is not None and may_be(view.recipient):
                return view.recipient
        return None

    def all(self, may_be: Callable[[str], bool]) -> list[str]:
        """Who got the same thing at once from the handler at work."""
        names: list[str] = []
        left = self._script.left_here()
        for view in left:
            if view.recipient is None or not _alike(view, left[0]):
                break
            names.append(view.recipient)
        return names if self.one(may_be) in names else []

    def name(self, cls: type[Any]) -> str | None:
        """What the next agent of that class is called, if it was not given a name."""
        numbered = re.compile(rf"{re.escape(kebab_case(cls.__name__))}-\d+")
        for name in self._record.names():
            if numbered.fullmatch(name) and name not in self._named and name not in self._given:
                self._named.add(name)
                return name
        return None


def _alike(one: MessageView, other: MessageView) -> bool:
    return (one.kind, one.type, one.payload) == (other.kind, other.type, other.payload)
