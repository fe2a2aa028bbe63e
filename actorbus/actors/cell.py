"""What runs an agent: its mailbox, its state, and its turns.

A cell outlives the instances of its agent: a restart puts a new one in. Everything that
happens to an agent happens in a *turn*, given by a dispatcher, one at a time; what other
threads want of an agent (stop, restart, unpark) they put into its mailbox as a command, and
the next turn obeys. So nothing here needs a lock.

A turn (the mailbox protocol of Pekko's dispatchers): obey commands; then take runs of messages
until the turn's share is used up (back to the end of the queue) or the mailbox is empty (idle,
until a message schedules the agent again).
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
from dataclasses import dataclass
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from actorbus.actors.activation import Activation
from actorbus.actors.lifecycle import State, may_become
from actorbus.actors.reply import Reply
from actorbus.actors.supervision import Directive, Supervision, backoff, decide, recent
from actorbus.bus.mailbox import Mailbox, MailboxPolicy
from actorbus.bus.middleware import Dead, Handled, Pending, Retry
from actorbus.bus.origin import CURRENT
from actorbus.errors import (
    ActorbusError,
    AgentFailed,
    AgentStopped,
    AuditUnavailable,
    InvalidHandler,
    InvalidSettings,
    NoHandler,
    Reject,
    Rejected,
)
from actorbus.message import Message, MessageKind, Reason, Status, envelope
from actorbus.registry.entry import AgentStatus
from actorbus.telemetry import (
    AgentEnded,
    AgentParked,
    AgentRestarting,
    AgentResumed,
    AgentStarted,
    AgentUnparked,
    HookFailed,
    MessageRetried,
)

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Mapping

    from actorbus.actors.agent import Agent
    from actorbus.actors.handlers import HandlerTable
    from actorbus.actors.pykka_side import PykkaSide
    from actorbus.actors.ref import Ref
    from actorbus.actors.runtime import Runtime
    from actorbus.bus.middleware import Outcome
    from actorbus.message import Entry, MessageId, PlainEntry
    from actorbus.telemetry import Event

T = TypeVar("T")

_HANDLED: Final = Status.HANDLED
_TELL: Final = MessageKind.TELL
_REQUEST: Final = MessageKind.REQUEST
_REPLY: Final = MessageKind.REPLY
_TRACEBACK_LIMIT: Final = 4_096


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


class Cell:
    """The runtime side of one agent."""

    __slots__ = (
        "__weakref__",
        "_drain",
        "_on_end",
        "_restarts",
        "_retries",
        "_stalled",
        "activation",
        "agent",
        "agent_class",
        "agent_type",
        "arguments",
        "children",
        "dispatcher",
        "failover",
        "handlers",
        "in_flight",
        "mailbox",
        "message_count",
        "name",
        "parent",
        "pykka_side",
        "ref",
        "runtime",
        "started_at",
        "state",
        "supervision",
        "table",
        "waits_in_turn",
        "watchers",
    )

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        agent_class: type[Agent],
        arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
        policy: MailboxPolicy,
        wake: Callable[[Cell], object],
        parent: Cell | None,
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.agent_class = agent_class
        self.agent_type = agent_class.agent_type
        self.arguments = arguments
        self.handlers: HandlerTable = agent_class.handler_table
        self.table = self.handlers.calls
        self.supervision: Supervision = agent_class.supervision
        self.waits_in_turn = agent_class.concurrency == 1
        self.failover = agent_class.failover
        self.parent = parent
        self.state = State.STARTING
        self.mailbox = Mailbox(name, policy, self, wake)
        self.dispatcher = wake
        self.message_count = 0
        self.started_at = 0.0
        self.agent: Agent
        self.ref: Ref
        self.activation: Activation | list[Activation] | None = None
        self.children: dict[str, Cell] | None = None
        self.watchers: set[str] | None = None
        self.pykka_side: PykkaSide | None = None
        self._restarts: list[float] | None = None
        self._drain: Stop | None = None
        self._on_end: list[Callable[[], object]] | None = None
        self._retries: dict[MessageId, Message[Any]] | None = None
        """What waits for another attempt outside the mailbox, where order does not matter."""
        self._stalled = False
        self.in_flight = 0
        """Handlers at work, where several may be at a time."""

    # -- what the registry sees

    @property
    def capabilities(self) -> tuple[str, ...]:
        return self.agent_class.capabilities

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.agent_class.metadata()

    @property
    def status(self) -> AgentStatus:
        match self.state:
            case State.RUNNING:
                return AgentStatus.BUSY if self.busy else AgentStatus.IDLE
            case State.STARTING:
                return AgentStatus.STARTING
            case State.PARKED:
                return AgentStatus.PARKED
            case State.STOPPED:
                return AgentStatus.STOPPED
            case _:
                return AgentStatus.BUSY

    @property
    def load(self) -> int:
        """Messages waiting and in hand."""
        return len(self.mailbox) + max(self.in_flight, not self.mailbox.idle)

    @property
    def busy(self) -> bool:
        """Whether there is work that a drain waits for. A parked agent has none.

        One that stops is busy until it is forgotten: what it had waiting must become dead letters.
        """
        if self.state is State.PARKED:
            return False
        return not self.mailbox.idle or self.in_flight > 0

    # -- from other threads

    def stop(
        self,
        *,
        drain: bool = False,
        reason: str = "stopped",
        then: Callable[[], object] | None = None,
    ) -> None:
        """Refuse messages from now on and end soon; `then` is called at the end."""
        if then is not None:
            with self.runtime.asking.lock:
                self._on_end = [*(self._on_end or ()), then]
        self.mailbox.refuse()
        if not self.mailbox.command(Stop(drain, reason)) and then is not None:
            self._call_at_end()

    def broke(self, error: BaseException) -> None:
        """A turn itself raised, which is a fault of ours: end the agent, and lose nothing of it."""
        self._emit(HookFailed(self.name, "turn", error))
        self.state = State.STOPPED
        self.abandon()
        self.runtime.forget(self, "its turn failed")
        self._call_at_end()

    def say_started(self) -> None:
        """It takes messages: there was no ``on_start`` to run."""
        self._emit(AgentStarted(self.name, self.agent_type))

    @property
    def parked(self) -> bool:
        return self.state is State.PARKED

    def abandon(self) -> None:
        """The node stops and the handler did not return: end what waits, and its asker's wait."""
        for activation in self.activations():
            message = activation.look()
            if message is None:
                continue
            activation.cancel(message)
            if message.answer_to is not None:
                message.answer_to.fail(
                    AgentStopped(self.name, "did not return and was left behind")
                )
        self._end_waiting(self.mailbox.close())

    def unpark(self) -> bool:
        """Go on after parking. False if the agent is not parked."""
        return self.state is State.PARKED and self.mailbox.command(Unpark())

    def refuse_asks(self) -> None:
        """An ask was sent to an agent that is parked: answer it."""
        self.mailbox.command(RefuseAsks())

    def cancel(self, reply: Reply[Any]) -> None:
        """The ask of `reply` was cancelled: reach its handler if it is in hand."""
        for activation in self.activations():
            message = activation.look()
            if message is not None and message.answer_to is reply:
                activation.cancel(message)

    def cancel_run(self, run_id: str) -> None:
        """Cancel what is in hand for a run, and drop what waits for it."""
        for activation in self.activations():
            message = activation.look()
            if message is not None and message.run_id == run_id:
                activation.cancel(message)

    def activations(self) -> list[Activation]:
        now = self.activation
        if now is None:
            return []
        return list(now) if isinstance(now, list) else [now]

    def waits_for_somebody(self) -> bool:
        """Whether a handler of this agent waits for a reply: the quick look."""
        now = self.activation
        if now.__class__ is Activation:
            return bool(now.waits)
        return bool(now)

    def waiting_for(self) -> list[Reply[Any]]:
        """The replies that this agent's handler waits for."""
        return [reply for one in self.activations() for reply in one.waits or ()]

    # -- a turn on a thread

    def turn(self) -> None:
        """Handle what waits, up to a turn's share. Called by one thread at a time.

        This loop is the hot path of the whole project: it does inline what ``_succeeded`` says
        in words, and leaves everything unusual to methods.
        """
        activation = self.activation
        if activation.__class__ is not Activation:
            activation = self.activation = Activation(self)
        if CURRENT.get() is not activation:
            CURRENT.set(activation)
        runtime = self.runtime
        bus = runtime.bus
        ids = bus.ids
        monotonic = ids.monotonic
        offset = ids.offset
        mailbox = self.mailbox
        append = bus.history.append
        name = self.name
        left = runtime.turn_messages
        now = monotonic() + offset
        end_of_turn = now + runtime.turn_seconds
        answered: Any = None
        value: Any = None
        while True:
            if mailbox.commands is not None or self.state is not State.RUNNING:
                if answered is not None:
                    answered.resolve(value)
                    answered = None
                if not finish(self._obey(activation)):
                    return
            if self._drain is not None and not len(mailbox):
                if answered is not None:
                    answered.resolve(value)
                finish(self._end(activation))
                return
            run, count = mailbox.run(left)
            if answered is not None:
                # The last asker of a run is woken when this thread is about to sleep: earlier,
                # it would only wake to wait for the interpreter's lock.
                answered.resolve(value)
                answered = None
            if count == 0:
                return
            if count < 0:
                continue
            table = self.table
            agent = self.agent
            inline = bus.plain and runtime.deliver is None and not runtime.cancelled_runs
            go_on = True
            popped = 0
            while popped < count and not mailbox.interrupted:
                try:
                    entry = run.popleft()
                except IndexError:
                    # The overflow policy dropped the rest of the run.
                    break
                popped += 1
                mailbox.taken += 1
                activation.entry = entry
                started_at = now
                if not inline or entry.__class__ is not tuple:
                    go_on = self._handle_here(envelope(entry, name), activation, started_at)
                    now = monotonic() + offset
                    if now > end_of_turn or not go_on:
                        break
                    continue
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
                    deadline,
                    answer_to,
                ) = entry
                try:
                    call = table[payload.__class__]
                except KeyError:
                    call = None
                if call is None or (
                    deadline is not None
                    and (deadline <= now or (answer_to is not None and answer_to.settled))
                ):
                    go_on = self._handle_here(envelope(entry, name), activation, started_at)
                    now = monotonic() + offset
                    if now > end_of_turn or not go_on:
                        break
                    continue
                try:
                    value = call(agent, payload)
                except BaseException as error:  # noqa: BLE001 - supervision decides
                    message = envelope(entry, name)
                    go_on = self._failed(message, error, activation, started_at)
                    now = monotonic() + offset
                    if go_on:
                        continue
                    break
                now = monotonic() + offset
                append(
                    (
                        message_id,
                        _TELL if answer_to is None else _REQUEST,
                        payload.__class__,
                        sender,
                        name,
                        None,
                        priority,
                        created_at,
                        started_at,
                        now,
                        correlation_id,
                        causation_id,
                        run_id,
                        1,
                        _HANDLED,
                        None,
                        None,
                        None,
                    )
                )
                if answer_to is not None:
                    if isinstance(value, Reply):
                        self._pass_on(envelope(entry, name), value)
                    else:
                        if now >= ids.until:
                            ids.rebase(now)
                        append(
                            (
                                ids.next(),
                                _REPLY,
                                value.__class__,
                                name,
                                sender,
                                None,
                                priority,
                                now,
                                now,
                                now,
                                correlation_id,
                                message_id,
                                run_id,
                                1,
                                _HANDLED,
                                None,
                                None,
                                None,
                            )
                        )
                        if popped < count:
                            answer_to.resolve(value)
                        else:
                            answered = answer_to
                if now > end_of_turn:
                    break
            activation.entry = None
            mailbox.ran(popped)
            self.message_count += popped
            if not go_on:
                mailbox.suspend()
                return
            left -= popped
            if left <= 0 or now > end_of_turn:
                if answered is not None:
                    answered.resolve(value)
                self.dispatcher(self)
                return

    def _handle_here(self, message: Message[Any], activation: Activation, now: float) -> bool:
        """Handle one message on this thread. False: the turn is over, the agent waits."""
        activation.entry = message
        if self._is_over(message, now):
            return True
        try:
            outcome = self._start(message)
        except BaseException as error:  # noqa: BLE001 - supervision decides
            return self._failed(message, error, activation, now)
        return self._conclude(message, outcome, activation, now)

    # -- a turn on an event loop

    async def turn_on_loop(self) -> None:
        """The same on the node's event loop, where a handler may be a coroutine."""
        if not self.waits_in_turn:
            await self._start_several()
            return
        activation = Activation(self)
        CURRENT.set(activation)
        self.activation = activation
        runtime = self.runtime
        clock = runtime.clock
        bus = runtime.bus
        ids = bus.ids
        mailbox = self.mailbox
        left = runtime.turn_messages
        end_of_turn = clock.now() + runtime.turn_seconds
        while True:
            if (
                mailbox.commands is not None or self.state is not State.RUNNING
            ) and not await self._obey(activation):
                return
            if self._drain is not None and not len(mailbox):
                await self._end(activation)
                return
            run, count = mailbox.run(left)
            if count == 0:
                return
            if count < 0:
                continue
            popped = 0
            go_on = True
            inline = bus.plain and runtime.deliver is None and not runtime.cancelled_runs
            while popped < count and go_on and not mailbox.interrupted:
                try:
                    entry = run.popleft()
                except IndexError:
                    break
                popped += 1
                mailbox.taken += 1
                activation.entry = entry
                started_at = ids.monotonic() + ids.offset
                call = None
                if inline and isinstance(entry, tuple) and not _is_late(entry, started_at):
                    call = self.table.get(entry[2].__class__)
                if call is None or not isinstance(entry, tuple):
                    go_on = await self._handle(envelope(entry, self.name), activation)
                    continue
                try:
                    value = call(self.agent, entry[2])
                    if value.__class__ is CoroutineType:
                        # Most handlers never suspend, and then cost no generator either.
                        try:
                            waits_for = value.send(None)
                        except StopIteration as done:
                            value = done.value
                        else:
                            value = await runtime.loop.drive_on(value, waits_for, activation)
                except BaseException as error:  # noqa: BLE001 - supervision decides
                    message = envelope(entry, self.name)
                    go_on = self._failed(message, error, activation, started_at)
                    continue
                self._plain_succeeded(entry, value, started_at)
            activation.entry = None
            mailbox.ran(popped)
            self.message_count += popped
            if not go_on:
                mailbox.suspend()
                return
            left -= popped
            if left <= 0 or clock.now() > end_of_turn:
                self.dispatcher(self)
                return

    def _next(self, run: deque[Entry]) -> Message[Any] | None:
        """The next message of a run; None if the overflow policy dropped the rest of it."""
        try:
            entry = run.popleft()
        except IndexError:
            return None
        self.mailbox.taken += 1
        return envelope(entry, self.name)

    async def _handle(self, message: Message[Any], activation: Activation) -> bool:
        """Handle one message on the loop. False: the turn is over, the agent waits."""
        activation.entry = message
        now = self.runtime.clock.now()
        if self._is_over(message, now):
            return True
        try:
            outcome = self._start(message)
            if isinstance(outcome, Pending):
                outcome = await self._await(outcome, activation)
        except BaseException as error:  # noqa: BLE001 - supervision decides
            return self._failed(message, error, activation, now)
        return self._conclude(message, outcome, activation, now)

    async def _await(self, pending: Pending, activation: Activation) -> Outcome:
        drive = self.runtime.loop.drive
        if not pending.looks:
            return Handled(await drive(pending.coroutine, activation))
        outcome: Outcome
        try:
            outcome = Handled(await drive(pending.coroutine, activation))
        except Exception as error:  # noqa: BLE001 - the middlewares see it as an outcome
            outcome = Dead(Reason.HANDLER_ERROR, str(error), error)
        except BaseException as error:
            # It was cancelled: they see that, and cannot change it.
            for look in pending.looks:
                look(Dead(Reason.CANCELLED, error=error))
            raise
        for look in pending.looks:
            outcome = look(outcome)
        return outcome

    async def _start_several(self) -> None:
        """Start as many handlers as the agent may have at a time, each as a task of its own."""
        activation = Activation(self)
        CURRENT.set(activation)
        while True:
            if (
                self.mailbox.commands is not None or self.state is not State.RUNNING
            ) and not await self._obey(activation):
                return
            free = self.agent_class.concurrency - self.in_flight
            if free <= 0:
                self._stalled = True
                return
            if self._drain is not None and not self.in_flight and not len(self.mailbox):
                await self._end(activation)
                return
            run, count = self.mailbox.run(free)
            if count == 0:
                return
            popped = 0
            while popped < count and not self.mailbox.interrupted:
                message = self._next(run)
                if message is None:
                    break
                popped += 1
                self.in_flight += 1
                self.runtime.loop.start_task(self._handle_apart(message))
            self.mailbox.ran(popped)

    async def _handle_apart(self, message: Message[Any]) -> None:
        activation = Activation(self)
        CURRENT.set(activation)
        others = self.activation if isinstance(self.activation, list) else []
        others.append(activation)
        self.activation = others
        try:
            await self._handle(message, activation)
        finally:
            others.remove(activation)
            self.message_count += 1
            self.in_flight -= 1
            if self._stalled:
                self._stalled = False
                self.dispatcher(self)
            elif self._drain is not None and not self.in_flight:
                self.mailbox.command(AllReturned())

    # -- one message

    def _start(self, message: Message[Any]) -> Outcome:
        deliver = self.runtime.deliver
        return self.invoke(message) if deliver is None else deliver(message)

    def invoke(self, message: Message[Any]) -> Outcome:
        """Call the handler for `message`: the innermost step of the deliver side."""
        payload = message.payload
        call = self.table.get(payload.__class__)
        if call is None:
            found = self.handlers.find(payload)
            if found is None:
                value = self.agent.on_message(message)
                return Pending(value) if inspect.iscoroutine(value) else Handled(value)
            call, payload = found
        value = call(self.agent, payload)
        return Pending(value) if inspect.iscoroutine(value) else Handled(value)

    def _is_over(self, message: Message[Any], now: float) -> bool:
        """Whether it makes no sense any more to start `message`; then it is ended here."""
        if message.answer_to is not None and message.answer_to.settled:
            late = message.deadline is not None and message.deadline <= now
            reason = Reason.EXPIRED if late else Reason.CANCELLED
        elif message.deadline is not None and message.deadline <= now:
            reason = Reason.EXPIRED
        elif message.run_id is not None and message.run_id in self.runtime.cancelled_runs:
            reason = Reason.CANCELLED
        else:
            return False
        self.runtime.bus.fail(message, self.name, reason)
        return True

    def _conclude(
        self, message: Message[Any], outcome: Outcome, activation: Activation, started_at: float
    ) -> bool:
        """Do what the outcome says. False: the turn is over, the agent waits."""
        bus = self.runtime.bus
        match outcome:
            case Retry(after):
                return self._wait_to_retry(message, message.attempt, after, activation)
            case Dead(Reason.HANDLER_ERROR, _, error) if error is not None:
                return self._failed(message, error, activation, started_at)
            case Dead(reason, why, error):
                refusal = error or Rejected(self.name, why or reason)
                bus.fail(message, self.name, reason, refusal, started_at=started_at)
            case Handled(value):
                self._succeeded(message, value, started_at)
            case _:
                error = InvalidSettings(
                    f"a deliver middleware returned {outcome!r}; it must return an Outcome"
                )
                return self._failed(message, error, activation, started_at)
        return True

    def _succeeded(self, message: Message[Any], value: Any, started_at: float) -> None:
        now = self.runtime.clock.now()
        if message.answer_to is None:
            self.runtime.bus.handled(message, self.name, started_at, now)
        else:
            self._answer(message, value, started_at, now)

    def _plain_succeeded(self, entry: PlainEntry, value: Any, started_at: float) -> None:
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
        ) = entry
        bus = self.runtime.bus
        append = bus.history.append
        ids = bus.ids
        now = ids.monotonic() + ids.offset
        append(
            (
                message_id,
                _TELL if answer_to is None else _REQUEST,
                payload.__class__,
                sender,
                self.name,
                None,
                priority,
                created_at,
                started_at,
                now,
                correlation_id,
                causation_id,
                run_id,
                1,
                _HANDLED,
                None,
                None,
                None,
            )
        )
        if answer_to is None:
            return
        if isinstance(value, Reply):
            self._pass_on(envelope(entry, self.name), value)
            return
        append(
            (
                ids.make(now),
                _REPLY,
                value.__class__,
                self.name,
                sender,
                None,
                priority,
                now,
                now,
                now,
                correlation_id,
                message_id,
                run_id,
                1,
                _HANDLED,
                None,
                None,
                None,
            )
        )
        answer_to.resolve(value)

    def _answer(self, message: Message[Any], value: Any, started_at: float, now: float) -> None:
        bus = self.runtime.bus
        answer_to = message.answer_to
        bus.handled(message, self.name, started_at, now)
        if isinstance(value, Reply):
            self._pass_on(message, value)
            return
        try:
            bus.answered(message, self.name, value, MessageKind.REPLY, now)
        except AuditUnavailable as error:
            answer_to.fail(error)
        else:
            answer_to.resolve(value)

    def _pass_on(self, message: Message[Any], inner: Reply[Any]) -> None:
        """The handler returned a reply: the asker gets what it comes to."""
        # Written down before it is passed on, or not passed on.
        inner.then(partial(self._forwarded, message, inner))
        message.answer_to.forward(inner)

    def _forwarded(self, message: Message[Any], inner: Reply[Any]) -> None:
        value, error = inner.outcome()
        kind = MessageKind.REPLY if error is None else MessageKind.ERROR
        now = self.runtime.clock.now()
        try:
            self.runtime.bus.answered(message, self.name, error or value, kind, now)
        except AuditUnavailable as unwritten:
            message.answer_to.fail(unwritten)

    # -- failure

    def _failed(
        self,
        message: Message[Any],
        error: BaseException,
        activation: Activation,
        started_at: float,
    ) -> bool:
        """A handler raised. False: the turn is over, the agent waits."""
        bus = self.runtime.bus
        if isinstance(error, Reject):
            refusal: ActorbusError = Rejected(self.name, error.why)
            bus.fail(message, self.name, Reason.REJECTED, refusal, started_at=started_at)
            return True
        if isinstance(error, Unhandled) and error.message_id == message.id:
            refusal = NoHandler(self.name, message.type, self.handlers.types())
            bus.fail(message, self.name, Reason.NO_HANDLER, refusal, started_at=started_at)
            return True
        if activation.stopped and type(error).__name__ == "CancelledError":
            bus.fail(message, self.name, Reason.CANCELLED, started_at=started_at)
            return True
        details = describe_error(error)
        if message.answer_to is not None:
            failure = AgentFailed(self.name, type(error).__name__, said(error), details)
            failure.__cause__ = error
            bus.fail(
                message,
                self.name,
                Reason.HANDLER_ERROR,
                failure,
                details=details,
                started_at=started_at,
            )
            return True
        if message.attempt <= self.supervision.retries:
            delay = backoff(self.supervision, message.attempt, self.runtime.random)
            self._emit(MessageRetried(self.name, message, error, delay))
            return self._wait_to_retry(message, message.attempt + 1, delay, activation)
        bus.fail(
            message, self.name, Reason.HANDLER_ERROR, error, details=details, started_at=started_at
        )
        if self.state is not State.RUNNING:
            # Another handler of this agent failed first, and what becomes of it is decided.
            return False
        return self._supervise(error, message, activation)

    def _wait_to_retry(
        self, message: Message[Any], attempt: int, delay: float, activation: Activation
    ) -> bool:
        """Make `message` the next one again, after `delay` seconds. False: the agent waits.

        Its order is kept, where the agent handles one message at a time.
        """
        again = message.copy(attempt=attempt)
        clock = self.runtime.clock
        if not self.waits_in_turn:
            if self._retries is None:
                self._retries = {}
            self._retries[again.id] = again
            clock.call_at(clock.now() + delay, partial(self._try_again, again.id))
            return True
        self._become(State.RETRYING)
        self.mailbox.put_back(again)
        self._command_after(delay, TryAgain(), activation)
        return False

    def _try_again(self, message_id: MessageId) -> None:
        """The back-off of a message outside the mailbox is over; unless the agent ended it."""
        message = (self._retries or {}).pop(message_id, None)
        if message is not None and not self.mailbox.insist(message):
            self._end_waiting([message])

    def _supervise(
        self, error: BaseException, message: Message[Any] | None, activation: Activation
    ) -> bool:
        """Decide about the agent after a failure. False: it waits."""
        self._run_failure_hook(error)
        runtime = self.runtime
        now = runtime.clock.now()
        match decide(self.supervision, self._restarts or (), now):
            case Directive.RESUME:
                self._emit(AgentResumed(self.name, error))
                return self._resumed()
            case Directive.RESTART:
                self._restart_later(error, message, now, activation)
            case Directive.STOP:
                self.stop(reason="failed")
                return True
            case Directive.ESCALATE if self.parent is not None:
                self._escalate(error, self.parent, activation)
            case Directive.ESCALATE | Directive.PARK:
                self._park(error, activation)
        return False

    def _resumed(self) -> bool:
        if self.state is not State.RUNNING:
            self._become(State.RUNNING)
        return True

    def _restart_later(
        self,
        error: BaseException,
        message: Message[Any] | None,
        now: float,
        activation: Activation,
    ) -> None:
        self._restarts = [*recent(self.supervision, self._restarts or (), now), now]
        attempt = len(self._restarts)
        delay = backoff(self.supervision, attempt, self.runtime.random)
        self._become(State.RESTARTING)
        self._stop_children()
        self._emit(AgentRestarting(self.name, error, attempt, delay))
        self._command_after(delay, Restart(error, message), activation)

    def _escalate(self, error: BaseException, parent: Cell, activation: Activation) -> None:
        self._become(State.ESCALATED)
        activation.entry = None
        if not parent.mailbox.command(ChildFailed(self, error)):
            self.stop(reason="its parent stopped")

    def _park(self, error: BaseException | None, activation: Activation) -> None:
        self._become(State.PARKED)
        activation.entry = None
        self._emit(AgentParked(self.name, error))
        self._refuse_asks()
        if self._drain is not None:
            self.mailbox.command(Stop(drain=False, reason=self._drain.reason))

    def _refuse_asks(self) -> None:
        for message in self.mailbox.extract(lambda message: message.answer_to is not None):
            error = AgentStopped(self.name, "is parked after failing; node.unpark() goes on")
            self.runtime.bus.fail(message, self.name, Reason.STOPPED, error)

    def _command_after(self, delay: float, command: Command, activation: Activation) -> None:
        activation.entry = None
        clock = self.runtime.clock
        clock.call_at(clock.now() + delay, partial(self.mailbox.command, command))

    def _run_failure_hook(self, error: BaseException) -> None:
        try:
            self.agent.on_failure(type(error), error, error.__traceback__)
        except BaseException as hook_error:  # noqa: BLE001 - a hook must not stop supervision
            self._emit(HookFailed(self.name, "on_failure", hook_error))

    # -- commands

    async def _obey(self, activation: Activation) -> bool:
        """Do what was commanded. True: go on with messages."""
        activation.entry = None
        if self.state is State.STARTING:
            await self._start_agent(activation)
        commands = self.mailbox.take_commands()
        for command in commands:
            await self._obey_one(command, activation)
            if self.state is State.STOPPED:
                return False
        if self.state is State.RUNNING:
            return True
        self.mailbox.suspend()
        return False

    async def _obey_one(self, command: Command, activation: Activation) -> None:
        match command:
            case Stop():
                self._drain = command
                await self._end_if_over(command, activation)
            case AllReturned() if self._drain is not None:
                await self._end_if_over(self._drain, activation)
            case Restart(error, message) if self.state is State.RESTARTING:
                await self._restart(error, message, activation)
            case TryAgain() if self.state is State.RETRYING:
                self._become(State.RUNNING)
            case Continue() if self.state is State.ESCALATED:
                self._become(State.RUNNING)
            case Unpark() if self.state is State.PARKED:
                self._restarts = None
                self._emit(AgentUnparked(self.name))
                await self._restart(None, None, activation)
            case RefuseAsks() if self.state is State.PARKED:
                self._refuse_asks()
            case ChildFailed(child, error):
                await self._decide_for(child, error, activation)
            case _:
                # A command that came too late: its moment has passed.
                return

    async def _start_agent(self, activation: Activation) -> None:
        try:
            await _hook(self.agent.on_start())
        except BaseException as error:  # noqa: BLE001 - supervision decides
            if self._supervise(error, None, activation) and self.state is State.STARTING:
                self._become(State.RUNNING)
            return
        self._become(State.RUNNING)
        self._emit(AgentStarted(self.name, self.agent_type))

    async def _restart(
        self, error: BaseException | None, message: Message[Any] | None, activation: Activation
    ) -> None:
        """Put a new instance in; its hooks run before it sees a message."""
        if self.state is State.PARKED:
            self._become(State.RESTARTING)
        try:
            self.agent = self.build()
            if self.pykka_side is not None:
                self.pykka_side.rebind(self.agent)
            await _hook(self.agent.on_restart(error, message))
            await _hook(self.agent.on_start())
        except BaseException as failure:  # noqa: BLE001 - supervision decides
            self._supervise(failure, message, activation)
            return
        self._become(State.RUNNING)

    async def _decide_for(self, child: Cell, error: BaseException, activation: Activation) -> None:
        """A child escalated: treat its failure as this agent's own."""
        if self.state not in (State.RUNNING, State.RETRYING):
            child.stop(reason="its parent failed")
            return
        self._run_failure_hook(error)
        now = self.runtime.clock.now()
        match decide(self.supervision, self._restarts or (), now):
            case Directive.RESUME:
                child.mailbox.command(Continue())
            case Directive.RESTART:
                self._restart_later(error, None, now, activation)
            case Directive.STOP:
                self.stop(reason="failed")
            case Directive.ESCALATE if self.parent is not None:
                child.stop(reason="its parent failed")
                self._escalate(error, self.parent, activation)
            case _:
                child.stop(reason="its parent parked")
                self._park(error, activation)

    def build(self) -> Agent:
        """A new instance from the recorded arguments, before its ``__init__`` has run."""
        args, kwargs = self.arguments
        agent = self.agent_class.__new__(self.agent_class, *args, **kwargs)
        agent._cell = self
        agent.__init__(*args, **kwargs)  # type: ignore[misc]
        return agent

    async def _end_if_over(self, stop: Stop, activation: Activation) -> None:
        """Stop, unless there is work that goes before: in hand, or waiting when draining."""
        if stop.drain and self.state not in (State.PARKED, State.ESCALATED):
            return
        if self.in_flight:
            self._end_waiting(self.mailbox.extract(lambda _: True))
            return
        await self._end(activation)

    async def _end(self, activation: Activation) -> None:
        """Stop for good."""
        activation.entry = None
        reason = "stopped" if self._drain is None else self._drain.reason
        left = self.mailbox.close()
        self._become(State.STOPPED)
        self._end_waiting(left)
        self._stop_children()
        try:
            await _hook(self.agent.on_stop())
        except BaseException as error:  # noqa: BLE001 - the end goes on
            self._emit(HookFailed(self.name, "on_stop", error))
        if self.pykka_side is not None:
            self.pykka_side.stopped.set()
        self.runtime.forget(self, reason)
        self._emit(AgentEnded(self.name, reason))
        self._call_at_end()

    def _end_waiting(self, waiting: list[Message[Any]]) -> None:
        """These will not be handled, nor will those that wait for another attempt."""
        while self._retries:
            with contextlib.suppress(KeyError):
                waiting.append(self._retries.popitem()[1])
        for message in waiting:
            self.runtime.bus.fail(message, self.name, Reason.STOPPED, AgentStopped(self.name))

    def _stop_children(self) -> None:
        for child in list((self.children or {}).values()):
            child.stop(reason="its parent stopped")

    def _call_at_end(self) -> None:
        if self._on_end is None:
            return
        with self.runtime.asking.lock:
            callbacks, self._on_end = self._on_end, None
        for callback in callbacks or ():
            callback()

    def _become(self, state: State) -> None:
        if not may_become(self.state, state):
            raise AssertionError(f"{self.name}: {self.state.value} -> {state.value}")
        self.state = state

    def _emit(self, event: Event) -> None:
        if self.runtime.telemetry.active:
            self.runtime.telemetry.emit(event)


class Unhandled(NoHandler):
    """What the default ``on_message`` raises: no handler took this message."""

    def __init__(self, agent: str, message: Message[Any], handled: list[str]) -> None:
        super().__init__(agent, message.type, handled)
        self.message_id = message.id


def _is_late(entry: PlainEntry, now: float) -> bool:
    """Whether nobody waits for it any more."""
    deadline = entry[9]
    return deadline is not None and (deadline <= now or (entry[10] and entry[10].settled))


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends: life-cycle code on a thread."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise InvalidHandler("an async hook needs the event loop: give the agent dispatcher='loop'")


async def _hook(returned: Any) -> None:
    if inspect.iscoroutine(returned):
        await returned


def said(error: BaseException) -> str:
    """What an error says of itself, even if it cannot."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the error's own code runs here
        return f"(str() of it raises {type(broken).__name__})"


def describe_error(error: BaseException) -> str:
    """The traceback as text, its end if it is long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 - the error's own code runs here
        text = f"{type(error).__name__}, which cannot be shown: {type(broken).__name__}"
    return text if len(text) <= _TRACEBACK_LIMIT else f"...{text[-_TRACEBACK_LIMIT:]}"
