"""What somebody outside answers: what history says, as and when they did."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorbus.actors.reply import Reply
from actorbus.errors import AgentStopped
from actorbus.message import MessageKind, Status
from actorbus.replay.divergence import Difference
from actorbus.replay.outside import error_of, error_passed_on
from actorbus.replay.said import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.errors import ActorbusError
    from actorbus.message import Message
    from actorbus.persistence.answers import MessageView
    from actorbus.replay.course import Course
    from actorbus.replay.record import Record
    from actorbus.replay.said import Said
    from actorbus.replay.sandbox import Sandbox
    from actorbus.replay.twins import Twins

OVERTIME: Final = 600.0
"""Seconds that are waited beyond what the record tells, where somebody still waits or works."""


class Answers:
    """Answers in place of whoever is outside. `rebuild`: a recorded payload, as an object."""

    def __init__(
        self,
        record: Record,
        twins: Twins,
        course: Course,
        sandbox: Sandbox,
        *,
        rebuild: Callable[[MessageView], Any],
    ) -> None:
        self.missing: list[Said] = []
        """What a fork asked, and history has no answer to."""
        self._record = record
        self._twins = twins
        self._course = course
        self._sandbox = sandbox
        self._rebuild = rebuild

    def answer(self, message: Message[Any], agent: str) -> Any:
        """The reply of `agent`, or the promise of one."""
        if message.answer_to is None:
            return None
        request = self._twins.of(message.id) or self._asked_before(message)
        answer = None
        if request is not None:
            answer = self._course.guard(partial(self._recorded, request, agent))
        if answer is None:
            return self._none(message, agent)
        value, error, after = answer
        clock = self._sandbox.clock
        now = clock.now()
        reply = Reply[Any](self._sandbox._runtime.asking, agent, now, now + after + OVERTIME)
        settle = partial(reply.resolve, value) if error is None else partial(reply.fail, error)
        if after != math.inf:
            clock.call_at(now + after, settle)
        return reply

    def _recorded(
        self, request: MessageView, agent: str
    ) -> tuple[Any, ActorbusError | None, float] | None:
        """A value or an error, and after how many seconds; None if history has neither."""
        reply = self._record.answers.get(request.id)
        if reply is not None:
            after = (reply.created_at - request.created_at).total_seconds()
            if reply.kind is MessageKind.ERROR:
                return None, error_passed_on(reply, agent), after
            return self._rebuild(reply), None, after
        ending = self._record.delivery(request, agent)
        if ending is not None and ending.status in (Status.FAILED, Status.DEAD):
            after = (ending.ended_at - request.created_at).total_seconds()
            return None, error_of(request, agent, ending), after
        return (None, None, math.inf) if self._was_waited_out(request) else None

    def _was_waited_out(self, request: MessageView) -> bool:
        """Whether its asker went on without an answer, when the time for it was up."""
        if request.causation_id is None or request.sender is None or request.deadline is None:
            return False
        asker = self._record.by_id.get(request.causation_id)
        ending = None if asker is None else self._record.delivery(asker, request.sender)
        return ending is not None and ending.ended_at >= request.deadline

    def _asked_before(self, message: Message[Any]) -> MessageView | None:
        """A recorded request that says the same and was not repeated yet."""
        asked = said(message)
        for view in self._record.messages:
            if (
                view.kind is MessageKind.REQUEST
                and self._twins.repeat_of(view.id) is None
                and said(view).same_as(asked)
            ):
                self._twins.take(view, message)
                return view
        return None

    def _none(self, message: Message[Any], agent: str) -> Any:
        asked = said(message)
        if self._course.forked:
            self.missing.append(asked)
            reply = Reply[Any](self._sandbox._runtime.asking, agent, 0.0, math.inf)
            reply.fail(AgentStopped(agent, "is not in this replay, and history has no answer"))
            return reply
        cause = self._twins.of(message.id) or self._twins.of(message.causation_id)
        note = f"give an agent or a function for {agent!r}, and it will answer"
        self._course.differs(Difference.UNANSWERED, None, asked, cause, note)
        return None
