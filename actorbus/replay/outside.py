"""Whoever is not on the stage: stand-ins that answer what history says they answered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from actorbus.actors.agent import Agent
from actorbus.errors import (
    ActorbusError,
    AgentFailed,
    AgentStopped,
    AskTimeout,
    Cancelled,
    MailboxFull,
    NoHandler,
    Rejected,
)
from actorbus.message import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.message import Message
    from actorbus.persistence.answers import Delivery, MessageView

_RAISED: Final = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<said>.*))?\Z", re.DOTALL)
_REFUSED: Final = " refused the message: "


def stand_in_class(answer: Callable[[Message[Any], str], Any]) -> type[Agent]:
    """An agent that gives every message to `answer`, with its own name."""

    class Outside(Agent):
        stands_in: ClassVar[bool] = True

        def on_message(self, message: Message[Any]) -> Any:
            return answer(message, self.name)

    return Outside


def error_of(request: MessageView, agent: str, ending: Delivery) -> ActorbusError:
    """The error that the asker of `request` got when it ended so, as near as history has it."""
    text = ending.error or ""
    match ending.reason:
        case Reason.HANDLER_ERROR:
            error_type, said = _raised(text)
            return AgentFailed(agent, error_type, said, text)
        case Reason.EXPIRED:
            waited = (request.deadline or ending.ended_at) - request.created_at
            return AskTimeout(agent, waited.total_seconds())
        case Reason.NO_HANDLER:
            return NoHandler(agent, request.type, ())
        case Reason.STOPPED | Reason.NO_SUCH_AGENT:
            return AgentStopped(agent)
        case Reason.CANCELLED:
            return Cancelled(f"the message to {agent!r} was cancelled")
        case Reason.MAILBOX_FULL:
            return MailboxFull(agent, 0, "the message was dropped")
        case _:
            return Rejected(agent, text.partition(_REFUSED)[2] or text or str(ending.reason))


def error_passed_on(reply: MessageView, agent: str) -> ActorbusError:
    """The error that was passed on to the asker as a message of its own."""
    text = reply.payload.get("$repr") if isinstance(reply.payload, dict) else None
    return AgentFailed(agent, reply.type, str(text or reply.payload), "")


def _raised(traceback: str) -> tuple[str, str]:
    """The type and the words of the exception that a traceback ends with."""
    lines = traceback.rstrip().splitlines()
    for start in range(len(lines) - 1, -1, -1):
        found = _RAISED.match("\n".join(lines[start:]))
        if found and not lines[start].startswith("Traceback "):
            return found["type"].rpartition(".")[2], found["said"] or ""
    return "Exception", traceback[-200:]
