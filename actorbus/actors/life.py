"""What happens to an agent: it starts, fails, restarts, is parked, and stops.

Decisions are made in ``supervision.py``; these functions do what was decided, inside a turn of
the cell they are given. A failure never raises out of here.
"""

from __future__ import annotations

import contextlib
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from actorbus.actors.commands import (
    AllReturned,
    ChildFailed,
    Command,
    Continue,
    RefuseAsks,
    Restart,
    Stop,
    TryAgain,
    Unpark,
)
from actorbus.actors.lifecycle import State
from actorbus.actors.supervision import Directive, backoff, decide, recent
from actorbus.errors import (
    AgentStopped,
)
from actorbus.message import Message, Reason
from actorbus.telemetry import (
    AgentEnded,
    AgentParked,
    AgentRestarting,
    AgentResumed,
    AgentStarted,
    AgentUnparked,
    HookFailed,
)

if TYPE_CHECKING:
    from actorbus.actors.activation import Activation
    from actorbus.actors.cell import Cell

T = TypeVar("T")


def supervise(
    cell: Cell, error: BaseException, message: Message[Any] | None, activation: Activation
) -> bool:
    """Decide about the agent after a failure. False: it waits."""
    run_failure_hook(cell, error)
    runtime = cell.runtime
    now = runtime.clock.now()
    match decide(cell.supervision, cell.restarts or (), now):
        case Directive.RESUME:
            cell.emit(AgentResumed(cell.name, error))
            return resumed(cell)
        case Directive.RESTART:
            restart_later(cell, error, message, now, activation)
        case Directive.STOP:
            cell.stop(reason="failed")
            return True
        case Directive.ESCALATE if cell.parent is not None:
            escalate(cell, error, cell.parent, activation)
        case Directive.ESCALATE | Directive.PARK:
            park(cell, error, activation)
    return False


def resumed(cell: Cell) -> bool:
    if cell.state is not State.RUNNING:
        cell.become(State.RUNNING)
    return True


def restart_later(
    cell: Cell,
    error: BaseException,
    message: Message[Any] | None,
    now: float,
    activation: Activation,
) -> None:
    cell.restarts = [*recent(cell.supervision, cell.restarts or (), now), now]
    attempt = len(cell.restarts)
    delay = backoff(cell.supervision, attempt, cell.runtime.random)
    cell.become(State.RESTARTING)
    stop_children(cell)
    cell.emit(AgentRestarting(cell.name, error, attempt, delay))
    command_after(cell, delay, Restart(error, message), activation)


def escalate(cell: Cell, error: BaseException, parent: Cell, activation: Activation) -> None:
    cell.become(State.ESCALATED)
    activation.entry = None
    if not parent.mailbox.command(ChildFailed(cell, error)):
        cell.stop(reason="its parent stopped")


def park(cell: Cell, error: BaseException | None, activation: Activation) -> None:
    cell.become(State.PARKED)
    activation.entry = None
    cell.emit(AgentParked(cell.name, error))
    refuse_asks(cell)
    cell.runtime.on_park(cell.mailbox)
    if cell.drain is not None:
        cell.mailbox.command(Stop(drain=False, reason=cell.drain.reason))


def refuse_asks(cell: Cell) -> None:
    for message in cell.mailbox.extract(lambda message: message.answer_to is not None):
        error = AgentStopped(cell.name, "is parked after failing; node.unpark() goes on")
        cell.runtime.bus.fail(message, cell.name, Reason.STOPPED, error)


def command_after(cell: Cell, delay: float, command: Command, activation: Activation) -> None:
    activation.entry = None
    clock = cell.runtime.clock
    clock.call_at(clock.now() + delay, partial(cell.mailbox.command, command))


def run_failure_hook(cell: Cell, error: BaseException) -> None:
    try:
        cell.agent.on_failure(type(error), error, error.__traceback__)
    except BaseException as hook_error:  # noqa: BLE001 - a hook must not stop supervision
        cell.emit(HookFailed(cell.name, "on_failure", hook_error))


async def obey(cell: Cell, activation: Activation) -> bool:
    """Do what was commanded. True: go on with messages."""
    activation.entry = None
    if cell.state is State.STARTING:
        await start_agent(cell, activation)
    commands = cell.mailbox.take_commands()
    for command in commands:
        await obey_one(cell, command, activation)
        if cell.state is State.STOPPED:
            return False
    if cell.state is State.RUNNING:
        return True
    cell.mailbox.suspend()
    return False


async def obey_one(cell: Cell, command: Command, activation: Activation) -> None:
    match command:
        case Stop():
            cell.drain = command
            await end_if_over(cell, command, activation)
        case AllReturned() if cell.drain is not None:
            await end_if_over(cell, cell.drain, activation)
        case Restart(error, message) if cell.state is State.RESTARTING:
            await restart(cell, error, message, activation)
        case TryAgain() if cell.state is State.RETRYING:
            cell.become(State.RUNNING)
        case Continue() if cell.state is State.ESCALATED:
            cell.become(State.RUNNING)
        case Unpark() if cell.state is State.PARKED:
            cell.restarts = None
            cell.emit(AgentUnparked(cell.name))
            await restart(cell, None, None, activation)
        case RefuseAsks() if cell.state is State.PARKED:
            refuse_asks(cell)
        case ChildFailed(child, error):
            await decide_for(cell, child, error, activation)
        case _:
            # A command that came too late: its moment has passed.
            return


async def start_agent(cell: Cell, activation: Activation) -> None:
    try:
        await _hook(cell.agent.on_start())
    except BaseException as error:  # noqa: BLE001 - supervision decides
        if supervise(cell, error, None, activation) and cell.state is State.STARTING:
            cell.become(State.RUNNING)
        return
    cell.become(State.RUNNING)
    cell.emit(AgentStarted(cell.name, cell.agent_type))


async def restart(
    cell: Cell, error: BaseException | None, message: Message[Any] | None, activation: Activation
) -> None:
    """Put a new instance in; its hooks run before it sees a message."""
    if cell.state is State.PARKED:
        cell.become(State.RESTARTING)
    try:
        cell.agent = cell.build()
        if cell.pykka_side is not None:
            cell.pykka_side.rebind(cell.agent)
        await _hook(cell.agent.on_restart(error, message))
        await _hook(cell.agent.on_start())
    except BaseException as failure:  # noqa: BLE001 - supervision decides
        supervise(cell, failure, message, activation)
        return
    cell.become(State.RUNNING)


async def decide_for(cell: Cell, child: Cell, error: BaseException, activation: Activation) -> None:
    """A child escalated: treat its failure as this agent's own."""
    if cell.state not in (State.RUNNING, State.RETRYING):
        child.stop(reason="its parent failed")
        return
    run_failure_hook(cell, error)
    now = cell.runtime.clock.now()
    match decide(cell.supervision, cell.restarts or (), now):
        case Directive.RESUME:
            child.mailbox.command(Continue())
        case Directive.RESTART:
            restart_later(cell, error, None, now, activation)
        case Directive.STOP:
            cell.stop(reason="failed")
        case Directive.ESCALATE if cell.parent is not None:
            child.stop(reason="its parent failed")
            escalate(cell, error, cell.parent, activation)
        case _:
            child.stop(reason="its parent parked")
            park(cell, error, activation)


async def end_if_over(cell: Cell, stop: Stop, activation: Activation) -> None:
    """Stop, unless there is work that goes before: in hand, or waiting when draining."""
    if stop.drain and cell.state not in (State.PARKED, State.ESCALATED):
        return
    if cell.in_flight:
        end_waiting(cell, cell.mailbox.extract(lambda _: True))
        return
    await end(cell, activation)


async def end(cell: Cell, activation: Activation) -> None:
    """Stop for good."""
    activation.entry = None
    reason = "stopped" if cell.drain is None else cell.drain.reason
    left = cell.mailbox.close()
    cell.become(State.STOPPED)
    end_waiting(cell, left)
    stop_children(cell)
    try:
        await _hook(cell.agent.on_stop())
    except BaseException as error:  # noqa: BLE001 - the end goes on
        cell.emit(HookFailed(cell.name, "on_stop", error))
    if cell.pykka_side is not None:
        cell.pykka_side.stopped.set()
    cell.runtime.forget(cell, reason)
    cell.emit(AgentEnded(cell.name, reason))
    cell.call_at_end()


def end_waiting(cell: Cell, waiting: list[Message[Any]]) -> None:
    """These will not be handled, nor will those that wait for another attempt."""
    while cell._retries:
        with contextlib.suppress(KeyError):
            waiting.append(cell._retries.popitem()[1])
    for message in waiting:
        cell.runtime.bus.fail(message, cell.name, Reason.STOPPED, AgentStopped(cell.name))


def stop_children(cell: Cell) -> None:
    for child in list((cell.children or {}).values()):
        child.stop(reason="its parent stopped")


async def _hook(returned: Any) -> None:
    if inspect.iscoroutine(returned):
        await returned
