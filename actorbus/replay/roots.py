"""What begins a conversation, or is said in it by somebody outside: it comes from history."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from actorbus.actors.reply import Reply
from actorbus.bus.origin import CURRENT
from actorbus.errors import ActorbusError
from actorbus.message import MessageKind, format_id
from actorbus.replay.said import said
from actorbus.replay.twins import REPLAY_OF

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.message import Message, MessageId
    from actorbus.persistence.answers import MessageView
    from actorbus.replay.course import Course
    from actorbus.replay.record import Record
    from actorbus.replay.said import Said
    from actorbus.replay.sandbox import Sandbox
    from actorbus.replay.twins import Twins


class Roots:
    """Sends again, each at its time, what no agent of the replay sends itself.

    Args:
        shift: seconds from the record's time.
        rebuild: a recorded message's payload, as an object.
        run_id: the run they belong to; None: the recorded one.
    """

    def __init__(
        self,
        record: Record,
        twins: Twins,
        course: Course,
        sandbox: Sandbox,
        *,
        shift: float,
        rebuild: Callable[[MessageView], Any],
        run_id: str | None,
    ) -> None:
        self._record = record
        self._twins = twins
        self._course = course
        self._sandbox = sandbox
        self._shift = shift
        self._rebuild = rebuild
        self._run_id = run_id
        self._to_come = deque(record.messages)
        self._adopted: set[MessageId] = set()
        self._asked: list[Reply[Any]] = []
        """Held to the end: an error in a reply that is let go counts as one nobody fetched."""

    def due(self) -> float:
        """When the next one comes."""
        if not self._to_come:
            return math.inf
        return self._to_come[0].created_at.timestamp() + self._shift

    def arrive(self) -> None:
        """Send the next one, unless an agent here sends it itself."""
        view = self._to_come.popleft()
        if not self._comes_from_history(view):
            return
        message = self._root(view)
        self._twins.pair(message, view)
        self._course.went(said(message), view)
        bus = self._sandbox.bus
        token = CURRENT.set(None)
        try:
            if message.recipient is None:
                bus.fan_out(message)
            else:
                bus.send(message, bus.inbox(message.recipient))
        except ActorbusError as error:
            self._course.not_sent[view.id] = str(error)
        finally:
            CURRENT.reset(token)

    def adopt(self, says: Said) -> MessageView | None:
        """For what an agent sends of its own accord (a hook, a timer): its twin is a root.

        It has no twin if the conversation does not tell of it; it is let go, and not compared.
        """
        for view in self._to_come:
            if (
                view.id not in self._adopted
                and view.causation_id not in self._record.by_id
                and view.sender is not None
                and said(view).same_as(says)
            ):
                self._adopted.add(view.id)
                return view
        return None

    def _comes_from_history(self, view: MessageView) -> bool:
        if view.id in self._adopted:
            return False
        if view.causation_id in self._record.by_id:
            if self._sandbox.inside(view.sender) and view.id not in self._record.outrun:
                return False
            if self._course.forked and self._twins.repeat_of(view.causation_id) is None:
                return False
        return view.recipient is None or self._sandbox.is_here(view.recipient)

    def _root(self, view: MessageView) -> Message[Any]:
        runtime = self._sandbox._runtime
        now = self._sandbox.clock.now()
        deadline = None
        if view.deadline is not None:
            deadline = now + (view.deadline - view.created_at).total_seconds()
        answer_to = None
        if view.kind is MessageKind.REQUEST:
            recipient = str(view.recipient)
            owner = runtime.ref(recipient)._cell
            ends = now + runtime.ask_timeout if deadline is None else deadline
            answer_to = Reply[Any](runtime.asking, recipient, now, ends, owner)
            self._asked.append(answer_to)
        message = self._sandbox.bus.stamp(
            view.kind,
            view.recipient,
            self._course.changed(view, "payload", lambda: self._rebuild(view)),
            view.priority,
            topic=view.topic,
            deadline=deadline,
            headers={**view.headers, REPLAY_OF: format_id(view.id)},
            answer_to=answer_to,
        )
        message.sender = view.sender
        message.hops = view.hops
        message.run_id = self._run_id or view.run_id
        message.causation_id = self._twins.repeat_of(view.causation_id)
        message.correlation_id = self._twins.conversation(view.correlation_id, message.id)
        return message
