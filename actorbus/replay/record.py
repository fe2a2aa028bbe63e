"""A stored conversation, arranged by what caused what.

The rule of comparison. An actor is a function of its messages in their order, so what can be
compared is what one handling did: the messages that an agent sent while it had one message in
hand, in order for each destination, and how that handling ended. Between handlings, and between
two destinations, the bus promises no order, and an interleaving alone is no difference.

A message that its agent handled again, because the node died that did it first, is handled once
here, as the run that ended last did it. What an earlier run had sent comes from history: others
got it, and it moved them.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from actorbus.errors import NotReplayable
from actorbus.message import MessageKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actorbus.message import MessageId
    from actorbus.persistence.answers import Delivery, MessageView
    from actorbus.replay.said import Said

Handling = tuple["MessageId", str]
"""A message in the hands of an agent."""

ANSWERS: Final = frozenset({MessageKind.REPLY, MessageKind.ERROR})
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class Record:
    """What history holds of a conversation.

    Raises:
        NotReplayable: that is nothing.
    """

    def __init__(self, views: Iterable[MessageView]) -> None:
        ordered = sorted(views, key=lambda view: (view.created_at, view.id))
        self.by_id: Mapping[MessageId, MessageView] = {view.id: view for view in ordered}
        if not self.by_id:
            raise NotReplayable("there is no message to replay: history has none of that id")
        self.views = tuple(self.by_id.values())
        self.position = {view.id: number for number, view in enumerate(self.views, 1)}
        self.answers: dict[MessageId, MessageView] = {}
        """Replies by the request they answer."""
        self.sent: dict[Handling, list[MessageView]] = defaultdict(list)
        """What each handling sent, replies apart."""
        self.outrun: set[MessageId] = set()
        """What was sent by runs that another run of the same handling came after."""
        for view in self.views:
            cause = view.causation_id
            if cause is None or cause not in self.by_id:
                continue
            if self._is_outrun(view, self.by_id[cause]):
                self.outrun.add(view.id)
            elif view.kind in ANSWERS:
                self.answers[cause] = view
            elif view.sender is not None:
                self.sent[cause, view.sender].append(view)
        self.starts = self.views[0].created_at.timestamp()
        self.ends = max(
            moment.timestamp()
            for view in self.views
            for moment in (view.created_at, view.ended_at)
            if moment is not None
        )

    @property
    def messages(self) -> list[MessageView]:
        """All but the replies, in the order they were sent."""
        return [view for view in self.views if view.kind not in ANSWERS]

    def names(self) -> list[str]:
        """Everybody who got a message, in the order of the first."""
        names: dict[str, None] = {}
        for view in self.messages:
            if view.recipient is not None:
                names[view.recipient] = None
            names.update(dict.fromkeys(one.recipient for one in view.deliveries if one.recipient))
        return list(names)

    def delivery(self, view: MessageView, agent: str) -> Delivery | None:
        """How `view` ended at `agent`; None where history does not know."""
        found = [one for one in view.deliveries if one.recipient == agent]
        return found[-1] if found else None

    def _is_outrun(self, view: MessageView, cause: MessageView) -> bool:
        """Whether the run that sent `view` is not the one of which history knows the ending."""
        ending = None if view.sender is None else self.delivery(cause, view.sender)
        if ending is None or ending.started_at is None:
            return False
        if view.node != ending.node:
            return True
        return ending.attempt == 1 and view.created_at < ending.started_at

    def order_at(self, agent: str) -> list[tuple[float, MessageId]]:
        """The messages that `agent` began to handle, in that order, and when."""
        found = [
            (min(starts), view.id)
            for view in self.messages
            if (
                starts := [
                    one.started_at.timestamp()
                    for one in view.deliveries
                    if one.recipient == agent and one.started_at is not None
                ]
            )
        ]
        return sorted(found)

    def chain(self, view: MessageView | None) -> tuple[MessageView, ...]:
        """`view` and what caused it, the first cause first."""
        chain: list[MessageView] = []
        while view is not None and view not in chain:
            chain.insert(0, view)
            cause = view.causation_id
            view = None if cause is None else self.by_id.get(cause)
        return tuple(chain)

    def request(self, id: MessageId) -> MessageView | None:
        """The request of that id, or the one that the reply of that id answers."""
        view = self.by_id.get(id)
        if view is not None and view.kind in ANSWERS and view.causation_id is not None:
            view = self.by_id.get(view.causation_id)
        return view if view is not None and view.kind is MessageKind.REQUEST else None


def first_to(expected: Iterable[MessageView], got: Said) -> MessageView | None:
    """The next of the expected messages that goes where `got` goes."""
    for view in expected:
        if (view.recipient, view.topic) == (got.recipient, got.topic):
            return view
    return None
