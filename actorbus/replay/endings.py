"""How handlings end: as they did in the record?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.bus.middleware import Dead, Handled
from actorbus.message import MessageKind, Reason, Status
from actorbus.replay.divergence import Difference
from actorbus.replay.outside import error_of
from actorbus.replay.record import ANSWERS
from actorbus.replay.said import said

if TYPE_CHECKING:
    from actorbus.bus.middleware import Outcome
    from actorbus.message import Ending, Message
    from actorbus.persistence.answers import Delivery, MessageView
    from actorbus.replay.course import Course
    from actorbus.replay.record import Handling, Record
    from actorbus.replay.sandbox import Sandbox
    from actorbus.replay.script import Script
    from actorbus.replay.twins import Twins


class Endings:
    """Compares how each handling ended, what it answered, and whether it was at all."""

    def __init__(
        self, record: Record, twins: Twins, course: Course, script: Script, sandbox: Sandbox
    ) -> None:
        self._record = record
        self._twins = twins
        self._course = course
        self._script = script
        self._sandbox = sandbox
        self._handled: set[Handling] = set()

    def foretold(self, twin: MessageView, agent: str) -> Outcome | None:
        """How the handling of `twin` ends before its handler begins; None if it shall begin.

        So ends what a fork answers otherwise, and what the record has as decided by time, by
        load or by a middleware.
        """
        if self._course.changes(twin, "answer"):
            return Handled(self._course.changed(twin, "answer", lambda: None))
        ending = self._record.delivery(twin, agent)
        if self._course.forked or not self._sandbox.inside(agent):
            return None
        if ending is None and twin.kind is MessageKind.BROADCAST and twin.deliveries:
            return Handled()  # it was not there yet when that was said
        if ending is None or not _never_begun(ending):
            return None
        reason = ending.reason or Reason.REFUSED
        return Dead(reason, ending.error or "", error_of(twin, agent, ending))

    def answered(self, reply: Message[Any]) -> None:
        """An agent gave an answer: is it the recorded one?"""
        request = self._twins.of(reply.causation_id)
        expected = None if request is None else self._record.answers.get(request.id)
        says = said(reply)
        compared = (
            request is not None
            and expected is not None
            and self._sandbox.inside(reply.sender)
            and not self._course.changes(request, "answer")
        )
        if compared and expected is not None and not said(expected).same_as(says):
            self._course.differs(Difference.DIFFERENT, expected, says, request)
            expected = None
        if self._course.over:
            return
        self._course.went(says, expected)
        if expected is not None:
            self._twins.pair(reply, expected)

    def ended(self, ending: Ending) -> None:
        """A delivery ended: as it did in the record, with all that was to be sent?"""
        twin = self._twins.of(ending.id)
        agent = ending.recipient
        if twin is None or agent is None or ending.kind in ANSWERS:
            return
        self._handled.add((twin.id, agent))
        expected = self._record.delivery(twin, agent)
        if expected is None or _never_begun(expected) or not self._sandbox.inside(agent):
            return
        if self._course.changes(twin, "answer"):
            return
        if (ending.status, ending.reason) != (expected.status, expected.reason):
            note = (
                f"{agent} is to end it as {_ended_as(expected.status, expected.error)},"
                f" and ended it as {_ended_as(ending.status, ending.error)}"
            )
            self._course.differs(Difference.ENDING, twin, None, twin, note)
        elif left := self._script.left_by(twin, agent):
            note = f"{agent} ended without sending it"
            self._course.differs(Difference.MISSING, left[0], None, twin, note)

    def check_all_handled(self) -> None:
        """What was sent and was handled in the record must have been handled here."""
        if self._course.over or self._course.forked:
            return
        for view in self._record.messages:
            if self._twins.repeat_of(view.id) is None:
                continue
            for one in view.deliveries:
                agent = one.recipient
                if (
                    agent is not None
                    and one.status is Status.HANDLED
                    and self._sandbox.is_here(agent)
                    and (view.id, agent) not in self._handled
                ):
                    not_sent = self._course.not_sent
                    note = not_sent.get(view.id, f"{agent} did not handle it to the end")
                    self._course.differs(Difference.UNHANDLED, view, None, view, note)
                    return


def _never_begun(ending: Delivery) -> bool:
    """Whether it was decided without the handler: by time, by load, by a middleware."""
    return ending.started_at is None and ending.status in (Status.FAILED, Status.DEAD)


def _ended_as(status: Status, error: str | None) -> str:
    last = (error or "").rstrip().rpartition("\n")[2]
    return f"{status} ({last[:200]})" if last else str(status)
