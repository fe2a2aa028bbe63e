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

from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from actorbus.actors import handling, life
from actorbus.actors.activation import Activation
from actorbus.actors.commands import (
    AllReturned,
    RefuseAsks,
    Stop,
    Unpark,
)
from actorbus.actors.lifecycle import State, may_become
from actorbus.actors.reply import Reply
from actorbus.bus.history import HANDLED_REPLY, HANDLED_REQUEST, HANDLED_TELL
from actorbus.bus.mailbox import Mailbox, MailboxPolicy
from actorbus.bus.middleware import Dead, Handled, Pending
from actorbus.bus.origin import CURRENT
from actorbus.errors import (
    AgentStopped,
    InvalidHandler,
)
from actorbus.message import Message, Priority, Reason, envelope, plain_tell
from actorbus.registry.entry import AgentStatus
from actorbus.telemetry import (
    AgentStarted,
    HookFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from actorbus.actors.agent import Agent
    from actorbus.actors.dispatcher import Dispatcher
    from actorbus.actors.handlers import HandlerTable
    from actorbus.actors.pykka_side import PykkaSide
    from actorbus.actors.ref import Ref
    from actorbus.actors.runtime import Runtime
    from actorbus.actors.supervision import Supervision
    from actorbus.bus.mailbox import Level
    from actorbus.bus.middleware import Outcome
    from actorbus.message import MessageId
    from actorbus.telemetry import Event

T = TypeVar("T")

_NORMAL = Priority.NORMAL.value

_ALONE = 0.0005
"""Seconds that a turn goes on past its share while nobody waits for one: well before a dispatcher
takes its thread for held."""


class Cell:
    """The runtime side of one agent."""

    __slots__ = (
        "__weakref__",
        "_retries",
        "activation",
        "agent",
        "agent_class",
        "agent_type",
        "arguments",
        "children",
        "dispatcher",
        "drain",
        "ended_as",
        "failover",
        "handlers",
        "in_flight",
        "known",
        "mailbox",
        "message_count",
        "name",
        "on_end",
        "on_stir",
        "parent",
        "parked",
        "pykka_side",
        "ref",
        "restarts",
        "runtime",
        "stalled",
        "state",
        "supervision",
        "table",
        "waits_in_turn",
        "watches",
    )

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        agent_class: type[Agent],
        arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
        policy: MailboxPolicy,
        dispatcher: Dispatcher,
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
        self.mailbox = Mailbox(name, policy, self, dispatcher.enqueue, dispatcher.nudge)
        self.dispatcher = dispatcher
        self.message_count = 0
        self.parked = False
        """Whether it failed too often and waits for ``unpark``."""
        self.agent: Agent
        self.ref: Ref
        self.activation: Activation | list[Activation] | None = None
        self.children: dict[str, Cell] | None = None
        self.known = False
        """Whether it was made known everywhere; until then its end waits for that."""
        self.ended_as: str | None = None
        self.watches: set[str] | None = None
        """Whose end it wants to be told."""
        self.pykka_side: PykkaSide | None = None
        self.restarts: list[float] | None = None
        self.drain: Stop | None = None
        self.on_end: list[Callable[[], object]] | None = None
        self.on_stir: Callable[[Cell], object] | None = None
        """Told once, when it next goes to work."""
        self._retries: dict[MessageId, Message[Any]] | None = None
        """What waits for another attempt outside the mailbox, where order does not matter."""
        self.stalled = False
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

    def when_stirred(self, tell: Callable[[Cell], object]) -> bool:
        """Call `tell` once, as its next turn begins. Until then it is at rest, if it is now."""
        self.on_stir = tell
        return True

    @property
    def drains(self) -> bool:
        """Whether a drain waits for what is sent to it. A parked agent would not handle it."""
        return not self.parked

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
                self.on_end = [*(self.on_end or ()), then]
        self.mailbox.refuse()
        if not self.mailbox.command(Stop(drain, reason)) and then is not None:
            self.call_at_end()

    def broke(self, error: BaseException) -> None:
        """A turn itself raised, which is a fault of ours: end the agent, and lose nothing of it."""
        self.emit(HookFailed(self.name, "turn", error))
        self.state = State.STOPPED
        self.abandon()
        self.runtime.forget(self, "its turn failed")
        self.call_at_end()

    def say_started(self) -> None:
        """It takes messages: there was no ``on_start`` to run."""
        self.emit(AgentStarted(self.name, self.agent_type))

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
        life.end_waiting(self, self.mailbox.close())

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

    def waiting_for(self) -> list[Reply[Any]]:
        """The replies that this agent's handler waits for."""
        return [reply for one in self.activations() for reply in one.waits or ()]

    # -- a turn on a thread

    def turn(self) -> None:
        """Handle what waits, up to a turn's share. Called by one thread at a time.

        This loop is the hot path of the whole project: it does inline what ``_succeeded`` says
        in words, and leaves everything unusual to methods.
        """
        if self.on_stir is not None:
            self._stir(self.on_stir)
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
        while True:
            if (mailbox.commands is not None or self.state is not State.RUNNING) and not finish(
                life.obey(self, activation)
            ):
                return
            if self.drain is not None and not len(mailbox):
                finish(life.end(self, activation))
                return
            run, count = mailbox.run(left)
            if count == 0:
                return
            if count < 0:
                continue
            table = self.table
            agent = self.agent
            inline = bus.plain and runtime.deliver is None and not runtime.cancelled_runs
            recorder = bus.recorder
            go_on = True
            popped = 0
            while popped < count and not mailbox.interrupted:
                try:
                    # What mailbox.take() does, in line. An interrupt in between would break the
                    # turn, and end the agent.
                    first = run.popleft()
                    if mailbox.ended and mailbox.was_left(first):
                        break
                    payload = run.popleft()
                    created_at = run.popleft()
                except IndexError:
                    # The overflow policy dropped the rest of the run.
                    break
                popped += 1
                mailbox.taken += 1
                started_at = now
                form = first.__class__
                if form is int:
                    message_id = correlation_id = first
                    activation.entry = entry = (
                        message_id,
                        None,
                        payload,
                        _NORMAL,
                        created_at,
                        message_id,
                        None,
                        None,
                        0,
                        None,
                        None,
                        name,
                    )
                    sender = causation_id = run_id = deadline = answer_to = None
                    priority = _NORMAL
                elif form is not tuple:
                    activation.entry = entry = first
                    manner = entry.manner
                    if (
                        manner is None
                        or not inline
                        or recorder is not None
                        or entry.deadline is not None
                        or (call := table.get(entry.payload.__class__)) is None
                    ):
                        go_on = self._handle_here(entry, activation, started_at)
                        now = monotonic() + offset
                        if now > end_of_turn or not go_on:
                            break
                        continue
                    # The short way for what many get: a broadcast, an event.
                    try:
                        call(agent, entry.payload)
                    except BaseException as error:  # noqa: BLE001 - supervision decides
                        go_on = handling.failed(self, entry, error, activation, started_at)
                        now = monotonic() + offset
                        if now > end_of_turn or not go_on:
                            break
                        continue
                    now = monotonic() + offset
                    append(
                        (
                            entry.id,
                            entry._type or entry.payload.__class__,
                            entry.sender,
                            name,
                            entry.priority._value_,
                            entry.created_at,
                            started_at,
                            now,
                            entry.correlation_id,
                            entry.causation_id,
                            entry.run_id,
                            manner,
                        )
                    )
                    if entry.delivery is not None:
                        entry.delivery.handled(name)
                    if now > end_of_turn:
                        break
                    continue
                else:
                    activation.entry = entry = first
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
                        _,
                    ) = entry
                try:
                    call = table[payload.__class__]
                except KeyError:
                    call = None
                if (
                    call is None
                    or not inline
                    or (
                        deadline is not None
                        and (deadline <= now or (answer_to is not None and answer_to.settled))
                    )
                ):
                    go_on = self._handle_here(envelope(entry), activation, started_at)
                    now = monotonic() + offset
                    if now > end_of_turn or not go_on:
                        break
                    continue
                try:
                    value = call(agent, payload)
                except BaseException as error:  # noqa: BLE001 - supervision decides
                    message = envelope(entry)
                    go_on = handling.failed(self, message, error, activation, started_at)
                    now = monotonic() + offset
                    if go_on:
                        continue
                    break
                now = monotonic() + offset
                append(
                    (
                        message_id,
                        payload.__class__,
                        sender,
                        name,
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
                if recorder is not None:
                    recorder.handled(message_id, started_at, now)
                if answer_to is not None:
                    if isinstance(value, Reply):
                        handling.pass_on(self, envelope(entry), value)
                    elif recorder is not None:
                        handling.answer(self, envelope(entry), value, now)
                    else:
                        if now >= ids.until:
                            ids.rebase(now)
                        append(
                            (
                                ids.next(),
                                value.__class__,
                                name,
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
                if now > end_of_turn:
                    break
            activation.entry = None
            mailbox.ran(popped)
            self.message_count += popped
            if not go_on:
                mailbox.suspend()
                return
            left -= popped
            if left <= 0 and self._goes_on(now, end_of_turn):
                left = runtime.turn_messages
            elif left <= 0 or now > end_of_turn:
                self._queue_again()
                return

    def _stir(self, tell: Callable[[Cell], object]) -> None:
        # First forgotten, then told: whoever is told may ask to be told again.
        self.on_stir = None
        tell(self)

    def _goes_on(self, now: float, end_of_turn: float) -> bool:
        """Whether a turn whose share is used up goes on: nobody waits for one, and it is young."""
        began = end_of_turn - self.runtime.turn_seconds
        return now - began < _ALONE and not self.dispatcher.queued

    def _queue_again(self) -> None:
        """The turn is over and there is more: go to the end of the run queue."""
        self.dispatcher.enqueue(self)
        self.dispatcher.nudge()

    def _handle_here(self, message: Message[Any], activation: Activation, now: float) -> bool:
        """Handle one message on this thread. False: the turn is over, the agent waits."""
        activation.entry = message
        if handling.is_over(self, message, now):
            return True
        try:
            outcome = handling.start(self, message)
        except BaseException as error:  # noqa: BLE001 - supervision decides
            return handling.failed(self, message, error, activation, now)
        return handling.conclude(self, message, outcome, activation, now)

    # -- a turn on an event loop

    async def turn_on_loop(self) -> None:
        """The same on the node's event loop, where a handler may be a coroutine."""
        if self.on_stir is not None:
            self._stir(self.on_stir)
        if not self.waits_in_turn:
            await self._start_several()
            return
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
        name = self.name
        left = runtime.turn_messages
        now = monotonic() + offset
        end_of_turn = now + runtime.turn_seconds
        while True:
            if (
                mailbox.commands is not None or self.state is not State.RUNNING
            ) and not await life.obey(self, activation):
                return
            if self.drain is not None and not len(mailbox):
                await life.end(self, activation)
                return
            run, count = mailbox.run(left)
            if count == 0:
                return
            if count < 0:
                continue
            table = self.table
            popped = 0
            go_on = True
            inline = bus.plain and runtime.deliver is None and not runtime.cancelled_runs
            while popped < count and go_on and not mailbox.interrupted:
                try:
                    # As in turn().
                    entry = run.popleft()
                    if mailbox.ended and mailbox.was_left(entry):
                        break
                    payload = run.popleft()
                    created_at = run.popleft()
                except IndexError:
                    break
                popped += 1
                mailbox.taken += 1
                form = entry.__class__
                if form is int:
                    entry = plain_tell(entry, payload, created_at, name)
                activation.entry = entry
                started_at = now
                if (
                    not inline
                    or not isinstance(entry, tuple)
                    or (call := table.get(entry[2].__class__)) is None
                    or (
                        (deadline := entry[9]) is not None
                        and (deadline <= now or (entry[10] is not None and entry[10].settled))
                    )
                ):
                    go_on = await self._handle(envelope(entry), activation)
                    now = monotonic() + offset
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
                    message = envelope(entry)
                    go_on = handling.failed(self, message, error, activation, started_at)
                    now = monotonic() + offset
                    continue
                now = monotonic() + offset
                handling.plain_succeeded(self, entry, value, started_at, now)
            activation.entry = None
            mailbox.ran(popped)
            self.message_count += popped
            if not go_on:
                mailbox.suspend()
                return
            left -= popped
            if left <= 0 or now > end_of_turn:
                self._queue_again()
                return

    def _next(self, run: Level) -> Message[Any] | None:
        """The next message of a run; None if the overflow policy dropped the rest of it."""
        try:
            entry = self.mailbox.take(run)
        except IndexError:
            return None
        self.mailbox.taken += 1
        return envelope(entry)

    async def _handle(self, message: Message[Any], activation: Activation) -> bool:
        """Handle one message on the loop. False: the turn is over, the agent waits."""
        activation.entry = message
        now = self.runtime.clock.now()
        if handling.is_over(self, message, now):
            return True
        try:
            outcome = handling.start(self, message)
            if isinstance(outcome, Pending):
                outcome = await self._await(outcome, activation)
        except BaseException as error:  # noqa: BLE001 - supervision decides
            return handling.failed(self, message, error, activation, now)
        return handling.conclude(self, message, outcome, activation, now)

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
            ) and not await life.obey(self, activation):
                return
            free = self.agent_class.concurrency - self.in_flight
            if free <= 0:
                self.stalled = True
                return
            if self.drain is not None and not self.in_flight and not len(self.mailbox):
                await life.end(self, activation)
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
            if self.stalled:
                self.stalled = False
                self._queue_again()
            elif self.drain is not None and not self.in_flight:
                self.mailbox.command(AllReturned())

    def build(self) -> Agent:
        """A new instance from the recorded arguments, before its ``__init__`` has run."""
        args, kwargs = self.arguments
        agent = self.agent_class.__new__(self.agent_class, *args, **kwargs)
        agent._cell = self
        agent.__init__(*args, **kwargs)  # type: ignore[misc]
        return agent

    def call_at_end(self) -> None:
        if self.on_end is None:
            return
        with self.runtime.asking.lock:
            callbacks, self.on_end = self.on_end, None
        for callback in callbacks or ():
            callback()

    def become(self, state: State) -> None:
        if not may_become(self.state, state):
            raise AssertionError(f"{self.name}: {self.state.value} -> {state.value}")
        self.state = state
        self.parked = state is State.PARKED

    def emit(self, event: Event) -> None:
        if self.runtime.telemetry.active:
            self.runtime.telemetry.emit(event)


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends: life-cycle code on a thread."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise InvalidHandler("an async hook needs the event loop: give the agent dispatcher='loop'")
