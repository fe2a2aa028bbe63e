"""What the agents of one node share: the table of cells, and the parts they work with."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from actorbus.actors import handling
from actorbus.actors.agent import Agent
from actorbus.actors.cell import Cell
from actorbus.actors.commands import START
from actorbus.actors.expecting import ExpectingReply
from actorbus.actors.functions import agent_class
from actorbus.actors.lifecycle import State
from actorbus.actors.ref import Ref, inherited_deadline
from actorbus.actors.reply import Asking, Reply
from actorbus.actors.schedule import Schedule
from actorbus.actors.standby import Standby
from actorbus.actors.targets import AllOf, AnyOf
from actorbus.bus.arguments import checked_class, checked_timeout
from actorbus.bus.middleware import chain
from actorbus.bus.origin import CURRENT
from actorbus.bus.routing import Route
from actorbus.errors import (
    ActorbusError,
    AgentStopped,
    AuditUnavailable,
    BusClosed,
    InvalidArgument,
    NameTaken,
    NoProvider,
    UnknownRecipient,
)
from actorbus.message import (
    Message,
    MessageKind,
    Priority,
    Reason,
    check_name,
    check_pattern,
)
from actorbus.registry.entry import AgentStatus

if TYPE_CHECKING:
    import random as random_module
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.actors.crew import Crew
    from actorbus.actors.dispatcher import Dispatcher
    from actorbus.actors.dispatchers.loop import LoopDispatcher
    from actorbus.bus.bus import Bus, Recorder
    from actorbus.bus.mailbox import Inbox, Offered
    from actorbus.bus.middleware import Middleware, Outcome
    from actorbus.clock import Clock
    from actorbus.context.context import Context
    from actorbus.message import PlainEntry
    from actorbus.registry.registry import Registry
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_CANCELLED_RUNS: Final = 1_000
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Terminated:
    """What a watcher gets, exactly once, when the agent it watches has stopped."""

    __slots__ = ("name", "reason")

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Terminated) and (other.name, other.reason) == (
            self.name,
            self.reason,
        )

    def __hash__(self) -> int:
        return hash((self.name, self.reason))

    def __repr__(self) -> str:
        return f"Terminated(name={self.name!r}, reason={self.reason!r})"


class Runtime:
    """The agents of one node at work. The node makes one and gives it its parts."""

    def __init__(
        self,
        *,
        node: str,
        bus: Bus,
        registry: Registry,
        context: Context,
        clock: Clock,
        settings: Settings,
        telemetry: Telemetry,
        random: random_module.Random,
        post: Callable[[Callable[[], None]], None],
        deliver_middleware: Sequence[Middleware] = (),
    ) -> None:
        self.node = node
        self.bus = bus
        self.registry = registry
        self.context = context
        self.clock = clock
        self.settings = settings
        self.telemetry = telemetry
        self.random = random
        from actorbus.actors.awaiting import suspend
        from actorbus.actors.far_watches import FarWatches

        self.asking = Asking(clock, telemetry, bus.waiting, suspend)
        self.ask_timeout = settings.ask_timeout
        self.turn_messages = settings.turn_messages
        self.turn_seconds = settings.turn_seconds
        self.cells: dict[str, Cell] = {}
        self.standby = Standby(self)
        self.cancelled_runs: OrderedDict[str, None] = OrderedDict()
        self.deliver: Callable[[Message[Any]], Outcome] | None = (
            chain(list(deliver_middleware), _invoke) if deliver_middleware else None
        )
        self.dispatchers: Mapping[str, Dispatcher] = {}
        self.loop: LoopDispatcher
        self.make_logger: Callable[[str], Any]
        self.learn_types: Callable[[type[Agent]], None] = _nothing_to_learn
        self.crew: Crew | None = None
        """Where agents can move between nodes, those that this one could run."""
        self.on_park: Callable[[Inbox], object] = _nothing_to_park
        """Told of each agent that is parked, by its mailbox: more may wait for it elsewhere."""
        self.accepting = False
        self._lock = threading.Lock()
        self._numbers: dict[str, count[int]] = {}
        self._loggers: dict[str, Any] = {}
        self._schedules: dict[str, list[Schedule]] = {}
        self._watched: dict[str, set[str]] = {}
        self._far_watches = FarWatches(
            registry,
            clock,
            comes_back=self._comes_back,
            is_known=self._can_be_sent_to,
            told=self._tell_terminated,
            post=post,
        )

    # -- agents

    def spawn(
        self,
        agent: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        parent: Cell | None = None,
        failover: bool | None = None,
    ) -> Ref:
        """Make an agent and let it live.

        Raises:
            InvalidHandler: `agent` is no agent.
            InvalidName, NameTaken: `name` cannot be had.
            InvalidArgument: `failover` is neither True nor False.
            BusClosed: the node is not running.
        """
        self._check_accepting()
        if failover not in (True, False, None):
            raise InvalidArgument("failover", failover, "it must be True or False")
        cls = agent_class(agent)
        chosen = self._next_name(cls) if name is None else check_name("an agent", name)
        if chosen in self.cells:
            raise NameTaken(chosen, self.node)
        cell = Cell(
            self,
            chosen,
            cls,
            (args, kwargs or {}),
            cls.mailbox,
            self.dispatchers[cls.runs_on],
            parent,
        )
        if failover is not None:
            cell.failover = failover
        cell.ref = Ref(self, chosen, self.bus.transport.entrance(cell.mailbox))
        cell.agent = cell.build()
        self.learn_types(cls)
        at_once = cls.on_start is Agent.on_start
        if at_once:
            # Before anybody can send to it: a turn that found it starting would start it too.
            cell.state = State.RUNNING
        self._introduce(cell)
        if at_once:
            cell.say_started()
        else:
            cell.mailbox.command(START)
        try:
            self._check_accepting()
        except BusClosed:
            # The node has begun to stop, and may not have seen this one.
            cell.stop(reason="the node stopped")
            raise
        return cell.ref

    def _check_accepting(self) -> None:
        if not self.accepting:
            raise BusClosed("the node is not running; start it, or use it as `with Node()`")

    def _introduce(self, cell: Cell) -> None:
        """Make the cell known everywhere, or nowhere."""
        if self.cells.setdefault(cell.name, cell) is not cell:
            raise NameTaken(cell.name, self.node)
        try:
            patterns = cell.agent_class.subscriptions
            routes = [Route(cell.name, check_pattern(pattern)) for pattern in patterns]
            self.bus.transport.attach(cell.mailbox, routes)
            self.registry.register(cell)
        except BaseException:
            # In this order: what came for it meanwhile is left to whoever runs it elsewhere.
            self._free_name(cell, gone=False)
            cell.abandon()
            raise
        if cell.parent is not None:
            if cell.parent.children is None:
                cell.parent.children = {}
            cell.parent.children[cell.name] = cell
            if cell.parent.mailbox.ended:
                cell.stop(reason="its parent stopped")
        with self._lock:
            cell.known = True
        if cell.ended_as is not None:
            self.forget(cell, cell.ended_as)

    def _free_name(self, cell: Cell, *, gone: bool = True) -> set[str]:
        """Let others have its name; who watched it."""
        self.bus.transport.detach(cell.mailbox, gone=gone)
        self.registry.unregister(cell.name)
        with self._lock:
            del self.cells[cell.name]
            return self._watched.pop(cell.name, set())

    def forget(self, cell: Cell, reason: str) -> None:
        """The agent has stopped: free its name and tell who watches it."""
        name = cell.name
        with self._lock:
            if not cell.known:
                # Not all is there yet that is to be undone: whoever spawns it comes back here.
                cell.ended_as = reason
                return
            if self.cells.get(name) is not cell:
                return
            schedules = self._schedules.pop(name, ())
            self._loggers.pop(name, None)
            for watched in cell.watches or ():
                self._watch_no_more(watched, name)
        for schedule in schedules:
            schedule.cancel()
        watchers = self._free_name(cell)
        if cell.parent is not None and cell.parent.children is not None:
            cell.parent.children.pop(name, None)
        for watcher in watchers:
            self._tell_terminated(watcher, name, reason)

    def _next_name(self, cls: type[Agent]) -> str:
        stem = kebab_case(cls.__name__)
        numbers = self._numbers.get(stem)
        if numbers is None:
            numbers = self._numbers.setdefault(stem, count(1))
        while True:
            name = f"{stem}-{next(numbers)}"
            if name not in self.cells:
                return name

    # -- addressing

    def ref(self, name: str) -> Ref:
        """The agent of that name, made now if it stood by.

        Raises:
            UnknownRecipient: there is none.
            InvalidName: there can be none.
            AgentFailed: it stood by and its ``__init__`` raised.
        """
        cell = self.cells.get(name)
        if cell is not None:
            return cell.ref
        if self.bus.transport.route(check_name("an agent", name)) is None:
            self.standby.wake(name)
        try:
            return Ref(self, name, self.bus.inbox(name))
        except UnknownRecipient:
            known = (*self.bus.transport.names(), *self.standby.names())
            raise UnknownRecipient(name, known) from None

    def any(self, capability: str) -> AnyOf:
        return AnyOf(self, check_name("a capability", capability))

    def all(self, capability: str) -> AllOf:
        return AllOf(self, check_name("a capability", capability))

    def pick(self, capability: str) -> Ref:
        """The least busy provider.

        Raises:
            NoProvider: there is none.
            AgentFailed: all stood by, and the ``__init__`` of each raised.
        """
        standby = self.standby
        if capability in standby.offered:
            standby.wake_all(capability)
        try:
            member = self.registry.pick(capability)
        except NoProvider as missing:
            raise NoProvider(
                capability, {*missing.offered, *standby.offered}, missing.lost
            ) from None
        return member.ref if isinstance(member, Cell) else self.ref(member.name)

    def everybody(self, capability: str) -> list[Ref]:
        """All providers.

        Raises:
            NoProvider: there is none.
            AgentFailed: all stood by, and the ``__init__`` of each raised.
        """
        if capability in self.standby.offered:
            self.standby.wake_all(capability)
        members = self.registry.providers(capability)
        if not members:
            # pick() knows who is offered instead, and says so.
            return [self.pick(capability)]
        return [
            member.ref if isinstance(member, Cell) else self.ref(member.name) for member in members
        ]

    # -- sending

    def ask(
        self,
        name: str,
        inbox: Inbox,
        payload: Any,
        timeout: float | None,
        priority: Priority,
        headers: Mapping[str, str] | None,
        expect: type[Any] | None,
    ) -> Reply[Any]:
        """Send a request; whatever goes wrong comes out of the reply."""
        bus = self.bus
        now = self.clock.now()
        deadline = now + (self.ask_timeout if timeout is None else checked_timeout(timeout))
        deadline = inherited_deadline(CURRENT.get(), deadline)
        owner = inbox.owner if isinstance(inbox.owner, Cell) else None
        reply: Reply[Any] = (
            Reply(self.asking, name, now, deadline, owner)
            if expect is None
            else ExpectingReply(self.asking, name, now, deadline, owner, checked_class(expect))
        )
        message = bus.stamp(
            MessageKind.REQUEST,
            name,
            payload,
            priority,
            deadline=deadline,
            headers=headers,
            answer_to=reply,
        )
        if owner is None:
            reply.request = message.id
        try:
            if inbox.offer_later is not None and self._is_parked(name, owner):
                # It would wait behind all that waits there already.
                raise AgentStopped(name, "is parked after failing; node.unpark() goes on")
            bus.send(message, inbox)
        except ActorbusError as error:
            reply.fail(error)
        if owner is not None and owner.parked:
            owner.refuse_asks()
        return reply

    def _is_parked(self, name: str, owner: Cell | None) -> bool:
        """Whether the agent is, here or as far as the registry knows."""
        if owner is not None:
            return owner.parked
        return self.registry.standing(name) is AgentStatus.PARKED

    def record_ask(self, recorder: Recorder, entry: PlainEntry, reply: Reply[Any]) -> bool:
        """Keep the record of a request; False if that failed, and its reply with it."""
        try:
            recorder.sent(entry)
        except AuditUnavailable as error:
            reply.fail(error)
            return False
        return True

    def ask_refused(self, message: Message[Any], inbox: Inbox, offered: Offered) -> None:
        """A mailbox did not take a request: what comes of that comes out of its reply."""
        try:
            self.bus.refused(message, inbox, offered)
        except ActorbusError as error:
            message.answer_to.fail(error)

    def failed(self, recipient: str, error: ActorbusError) -> Reply[Any]:
        """A reply that has failed already."""
        now = self.clock.now()
        reply: Reply[Any] = Reply(self.asking, recipient, now, now + self.settings.ask_timeout)
        reply.fail(error)
        return reply

    def broadcast(
        self,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Send to everyone but the sender; how many local recipients took it."""
        message = self.bus.stamp(
            MessageKind.BROADCAST, None, payload, priority, ttl=ttl, headers=headers
        )
        return self.bus.fan_out(message)

    def publish(
        self,
        topic: str,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Send to the subscribers of `topic`; how many local recipients took it."""
        message = self.bus.stamp(
            MessageKind.EVENT, None, payload, priority, topic=topic, ttl=ttl, headers=headers
        )
        return self.bus.fan_out(message)

    def cancel_run(self, run_id: str) -> None:
        """Cancel everything of a run: what is in hand, what waits, tells included."""
        with self._lock:
            self.cancelled_runs[run_id] = None
            while len(self.cancelled_runs) > _CANCELLED_RUNS:
                self.cancelled_runs.popitem(last=False)
        for cell in list(self.cells.values()):
            cell.cancel_run(run_id)

    # -- what agents may ask for

    def _comes_back(self, name: str) -> bool:
        return self.crew is not None and self.crew.comes_back(name)

    def _can_be_sent_to(self, name: str) -> bool:
        return self.bus.transport.route(name) is not None

    def _watch_no_more(self, watched: str, watcher: str) -> None:
        self._far_watches.forget(watcher, watched)
        watchers = self._watched.get(watched)
        if watchers is not None:
            watchers.discard(watcher)
            if not watchers:
                del self._watched[watched]

    def watch(self, watcher: Cell, name: str) -> None:
        """Have `watcher` told when the agent of that name has stopped."""
        check_name("an agent", name)
        with self._lock:
            if name in self.cells:
                self._watched.setdefault(name, set()).add(watcher.name)
                if watcher.watches is None:
                    watcher.watches = set()
                watcher.watches.add(name)
                return
            if watcher.watches is None:
                watcher.watches = set()
            watcher.watches.add(name)
        self._far_watches.add(watcher.name, name)

    def schedule(self, cell: Cell, every: float, payload: Any) -> Schedule:
        """Have the agent tell itself `payload` again and again.

        Raises:
            InvalidArgument: `every` is no number of seconds above 0.
        """
        if not checked_timeout(every) > 0:
            raise InvalidArgument("a period", every, "it must be above 0 seconds")

        def send() -> bool:
            if cell.mailbox.closed:
                return False
            message = self.bus.stamp(MessageKind.TELL, cell.name, payload)
            message.sender = cell.name
            self.bus.tell_without_waiting(message, cell.mailbox)
            return True

        schedule = Schedule(every, send)
        with self._lock:
            held = self._schedules.setdefault(cell.name, [])
            held[:] = [one for one in held if not one.cancelled]
            held.append(schedule)
        schedule.start(self.clock.call_at, self.clock.now())
        return schedule

    def logger(self, cell: Cell) -> Any:
        """The structlog logger of an agent, made once."""
        logger = self._loggers.get(cell.name)
        if logger is None:
            logger = self._loggers[cell.name] = self.make_logger(cell.name)
        return logger

    def _tell_terminated(self, watcher: str, name: str, reason: str) -> None:
        cell = self.cells.get(watcher)
        if cell is None:
            return
        message = self.bus.stamp(MessageKind.TELL, watcher, Terminated(name, reason))
        message.sender = name
        if not cell.mailbox.insist(message):
            self.bus.fail(message, watcher, Reason.STOPPED)


def kebab_case(name: str) -> str:
    """How an agent of that class or function is called: ``WordCounter`` is ``word-counter``."""
    return _WORD.sub("-", name).replace("_", "-").lower()


def _invoke(message: Message[Any]) -> Outcome:
    """The innermost deliver step: the cell whose turn it is calls its handler."""
    activation: Any = CURRENT.get()
    outcome: Outcome = handling.invoke(activation.cell, message)
    return outcome


def _nothing_to_learn(_: type[Agent]) -> None:
    return None


def _nothing_to_park(_: Inbox) -> None:
    """All that waits for an agent is in its mailbox."""
