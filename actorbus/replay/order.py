"""The order in which each agent gets its messages.

So that agents with a state come to the same state, each is given its messages in the order in
which it began to handle their twins: a message whose turn has not come is held, at longest
until the moment (on the turned clock) at which its twin was begun.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from actorbus.errors import ActorbusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.message import Message, MessageId
    from actorbus.persistence.answers import MessageView
    from actorbus.replay.course import Course
    from actorbus.replay.record import Handling, Record
    from actorbus.replay.twins import Twins


class Order:
    """Holds messages back until it is their turn. `shift`: seconds from the record's time."""

    def __init__(
        self,
        record: Record,
        twins: Twins,
        course: Course,
        *,
        inside: Callable[[str | None], bool],
        shift: float,
    ) -> None:
        self._record = record
        self._twins = twins
        self._course = course
        self._inside = inside
        self._shift = shift
        self._orders: dict[str, deque[tuple[float, MessageId]]] = {}
        self._held: dict[Handling, tuple[float, Callable[[], object]]] = {}

    def in_turn(self, message: Message[Any], agent: str, pass_on: Callable[[], Any]) -> Any:
        """Pass `message` on when it is its turn; None if that is later."""
        twin = self._twins.of(message.id)
        if twin is None or not self._inside(agent):
            return pass_on()
        order = self._order_at(agent)
        began = next((when for when, message_id in order if message_id == twin.id), None)
        if began is None or order[0][1] == twin.id:
            return pass_on()
        self._held[twin.id, agent] = (began + self._shift, pass_on)
        return None

    def begun(self, twin: MessageView, agent: str) -> None:
        """`agent` has `twin` in hand: the next one may come."""
        order = self._order_at(agent)
        for entry in order:
            if entry[1] == twin.id:
                order.remove(entry)
                break
        if order and (order[0][1], agent) in self._held:
            self._pass_on((order[0][1], agent))

    def due(self) -> float:
        """When a message is held no longer."""
        return min((when for when, _ in self._held.values()), default=math.inf)

    def release(self) -> None:
        """Pass on the message that is due first."""
        self._pass_on(min(self._held, key=lambda held: self._held[held][0]))

    def _pass_on(self, held: Handling) -> None:
        _, pass_on = self._held.pop(held)
        try:
            pass_on()
        except ActorbusError as error:
            self._course.not_sent[held[0]] = str(error)

    def _order_at(self, agent: str) -> deque[tuple[float, MessageId]]:
        order = self._orders.get(agent)
        if order is None:
            order = self._orders[agent] = deque(self._record.order_at(agent))
        return order
