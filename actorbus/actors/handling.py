"""How one message is handled: its handler is called, and what comes of that is made of it.

These functions run inside a turn of the cell they are given.
"""

from __future__ import annotations

import inspect
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from actorbus.actors import life
from actorbus.actors.commands import TryAgain
from actorbus.actors.lifecycle import State
from actorbus.actors.reply import Reply
from actorbus.actors.supervision import backoff
from actorbus.bus.history import HANDLED_REPLY, HANDLED_REQUEST, HANDLED_TELL
from actorbus.bus.middleware import Dead, Handled, Pending, Retry
from actorbus.errors import (
    ActorbusError,
    AgentFailed,
    AuditUnavailable,
    InvalidSettings,
    NoHandler,
    Reject,
    Rejected,
)
from actorbus.message import Message, MessageKind, Reason, envelope
from actorbus.telemetry import (
    MessageRetried,
)

if TYPE_CHECKING:
    from actorbus.actors.activation import Activation
    from actorbus.actors.cell import Cell
    from actorbus.bus.middleware import Outcome
    from actorbus.message import MessageId, PlainEntry

T = TypeVar("T")

_TRACEBACK_LIMIT: Final = 4_096
_LINE_LIMIT: Final = 500
_LEFT_OUT: Final = "\n…\n"


class Unhandled(NoHandler):
    """What the default ``on_message`` raises: no handler took this message."""

    def __init__(self, agent: str, message: Message[Any], handled: list[str]) -> None:
        super().__init__(agent, message.type, handled)
        self.message_id = message.id


def start(cell: Cell, message: Message[Any]) -> Outcome:
    deliver = cell.runtime.deliver
    return invoke(cell, message) if deliver is None else deliver(message)


def invoke(cell: Cell, message: Message[Any]) -> Outcome:
    """Call the handler for `message`: the innermost step of the deliver side."""
    payload = message.payload
    call = cell.table.get(payload.__class__)
    if call is None:
        found = cell.handlers.find(payload)
        if found is None:
            value = cell.agent.on_message(message)
            return Pending(value) if inspect.iscoroutine(value) else Handled(value)
        call, payload = found
    value = call(cell.agent, payload)
    return Pending(value) if inspect.iscoroutine(value) else Handled(value)


def is_over(cell: Cell, message: Message[Any], now: float) -> bool:
    """Whether it makes no sense any more to start `message`; then it is ended here."""
    if message.answer_to is not None and message.answer_to.settled:
        late = message.deadline is not None and message.deadline <= now
        reason = Reason.EXPIRED if late else Reason.CANCELLED
    elif message.deadline is not None and message.deadline <= now:
        reason = Reason.EXPIRED
    elif message.run_id is not None and message.run_id in cell.runtime.cancelled_runs:
        reason = Reason.CANCELLED
    else:
        return False
    cell.runtime.bus.fail(message, cell.name, reason)
    return True


def conclude(
    cell: Cell, message: Message[Any], outcome: Outcome, activation: Activation, started_at: float
) -> bool:
    """Do what the outcome says. False: the turn is over, the agent waits."""
    bus = cell.runtime.bus
    match outcome:
        case Retry(after):
            return wait_to_retry(cell, message, message.attempt, after, activation)
        case Dead(Reason.HANDLER_ERROR, _, error) if error is not None:
            return failed(cell, message, error, activation, started_at)
        case Dead(reason, why, error):
            refusal = error or Rejected(cell.name, why or reason)
            bus.fail(message, cell.name, reason, refusal, started_at=started_at)
        case Handled(value):
            succeeded(cell, message, value, started_at)
        case _:
            error = InvalidSettings(
                f"a deliver middleware returned {outcome!r}; it must return an Outcome"
            )
            return failed(cell, message, error, activation, started_at)
    return True


def succeeded(cell: Cell, message: Message[Any], value: Any, started_at: float) -> None:
    now = cell.runtime.clock.now()
    if message.answer_to is None:
        cell.runtime.bus.handled(message, cell.name, started_at, now)
    else:
        cell.runtime.bus.handled(message, cell.name, started_at, now)
        answer(cell, message, value, now)


def plain_succeeded(
    cell: Cell, entry: PlainEntry, value: Any, started_at: float, now: float
) -> None:
    """What the hot path of ``turn`` does in line, for a handler on the loop."""
    (
        message_id,
        sender,
        payload,
        priority,
        created_at,
        correlation_id,
        causation_id,
        run_id,
        _,
        _,
        answer_to,
        _,
    ) = entry
    bus = cell.runtime.bus
    append = bus.history.append
    ids = bus.ids
    append(
        (
            message_id,
            payload.__class__,
            sender,
            cell.name,
            priority,
            created_at,
            started_at,
            now,
            correlation_id,
            causation_id,
            run_id,
            HANDLED_TELL if answer_to is None else HANDLED_REQUEST,
        )
    )
    if bus.recorder is not None:
        bus.recorder.handled(message_id, started_at, now)
    if answer_to is None:
        return
    if bus.recorder is not None or isinstance(value, Reply):
        answer(cell, envelope(entry), value, now)
        return
    if now >= ids.until:
        ids.rebase(now)
    append(
        (
            ids.next(),
            value.__class__,
            cell.name,
            sender,
            priority,
            now,
            now,
            now,
            correlation_id,
            message_id,
            run_id,
            HANDLED_REPLY,
        )
    )
    answer_to.resolve(value)


def answer(cell: Cell, message: Message[Any], value: Any, now: float) -> None:
    """Give the asker what the handler returned, once that is written down."""
    bus = cell.runtime.bus
    answer_to = message.answer_to
    if isinstance(value, Reply):
        pass_on(cell, message, value)
        return
    try:
        bus.answered(message, cell.name, value, MessageKind.REPLY, now)
    except AuditUnavailable as error:
        answer_to.fail(error)
    else:
        answer_to.resolve(value)


def pass_on(cell: Cell, message: Message[Any], inner: Reply[Any]) -> None:
    """The handler returned a reply: the asker gets what it comes to."""
    # Written down before it is passed on, or not passed on.
    inner.then(partial(forwarded, cell, message, inner))
    message.answer_to.forward(inner)


def forwarded(cell: Cell, message: Message[Any], inner: Reply[Any]) -> None:
    value, error = inner.outcome()
    kind = MessageKind.REPLY if error is None else MessageKind.ERROR
    now = cell.runtime.clock.now()
    try:
        cell.runtime.bus.answered(message, cell.name, error or value, kind, now)
    except AuditUnavailable as unwritten:
        message.answer_to.fail(unwritten)


def failed(
    cell: Cell,
    message: Message[Any],
    error: BaseException,
    activation: Activation,
    started_at: float,
) -> bool:
    """A handler raised. False: the turn is over, the agent waits."""
    bus = cell.runtime.bus
    if isinstance(error, Reject):
        refusal: ActorbusError = Rejected(cell.name, error.why)
        bus.fail(message, cell.name, Reason.REJECTED, refusal, started_at=started_at)
        return True
    if isinstance(error, Unhandled) and error.message_id == message.id:
        refusal = NoHandler(cell.name, message.type, cell.handlers.types())
        bus.fail(message, cell.name, Reason.NO_HANDLER, refusal, started_at=started_at)
        return True
    if activation.stopped and type(error).__name__ == "CancelledError":
        bus.fail(message, cell.name, Reason.CANCELLED, started_at=started_at)
        return True
    details = describe_error(error)
    if message.answer_to is not None:
        failure = AgentFailed(cell.name, type(error).__name__, said(error), details)
        failure.__cause__ = error
        bus.fail(
            message,
            cell.name,
            Reason.HANDLER_ERROR,
            failure,
            details=details,
            started_at=started_at,
        )
        return True
    if message.attempt <= cell.supervision.retries:
        delay = backoff(cell.supervision, message.attempt, cell.runtime.random)
        cell.emit(MessageRetried(cell.name, message, error, delay))
        return wait_to_retry(cell, message, message.attempt + 1, delay, activation)
    bus.fail(
        message, cell.name, Reason.HANDLER_ERROR, error, details=details, started_at=started_at
    )
    if cell.state is not State.RUNNING:
        # Another handler of this agent failed first, and what becomes of it is decided.
        return False
    return life.supervise(cell, error, message, activation)


def wait_to_retry(
    cell: Cell, message: Message[Any], attempt: int, delay: float, activation: Activation
) -> bool:
    """Make `message` the next one again, after `delay` seconds. False: the agent waits.

    Its order is kept, where the agent handles one message at a time.
    """
    again = message.copy(attempt=attempt)
    clock = cell.runtime.clock
    if cell.mailbox.ended:
        # The node stopped and left this handler behind: there is no next one.
        life.end_waiting(cell, [again])
        return False
    if not cell.waits_in_turn:
        if cell._retries is None:
            cell._retries = {}
        cell._retries[again.id] = again
        clock.call_at(clock.now() + delay, partial(try_again, cell, again.id))
        return True
    cell.become(State.RETRYING)
    cell.mailbox.put_back(again)
    life.command_after(cell, delay, TryAgain(), activation)
    return False


def try_again(cell: Cell, message_id: MessageId) -> None:
    """The back-off of a message outside the mailbox is over; unless the agent ended it."""
    message = (cell._retries or {}).pop(message_id, None)
    if message is not None and not cell.mailbox.insist(message):
        life.end_waiting(cell, [message])


def said(error: BaseException) -> str:
    """What an error says of itself, even if it cannot."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the error's own code runs here
        return f"(str() of it raises {type(broken).__name__})"


def describe_error(error: BaseException) -> str:
    """The traceback as text. Of a long one its beginning and its end, so that it says where it
    was raised, and what, also where the error's own words are long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 - the error's own code runs here
        text = f"{type(error).__name__}, which cannot be shown: {type(broken).__name__}"
    if len(text) <= _TRACEBACK_LIMIT:
        return text
    lines = text.splitlines()
    text = "\n".join(one if len(one) <= _LINE_LIMIT else f"{one[:_LINE_LIMIT]}…" for one in lines)
    if len(text) <= _TRACEBACK_LIMIT:
        return text
    half = (_TRACEBACK_LIMIT - len(_LEFT_OUT)) // 2
    return f"{text[:half]}{_LEFT_OUT}{text[-half:]}"
