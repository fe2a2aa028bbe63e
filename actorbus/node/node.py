"""The node: one process's runtime, and the only file that names concrete back ends.

What a node needs, and a program that only defines agents does not, is imported by the node's
own methods: importing actorbus costs little more than importing what it stands on.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from actorbus.actors.dispatchers.pool import PoolDispatcher
from actorbus.actors.dispatchers.thread import ThreadDispatcher
from actorbus.actors.run import Run
from actorbus.actors.runtime import Runtime
from actorbus.actors.topics import Topic
from actorbus.actors.waiting import ThreadWaiting
from actorbus.actors.watch_thread import WatchThread
from actorbus.bus.arguments import checked_pairs, checked_timeout
from actorbus.bus.bus import Bus
from actorbus.bus.mailbox import MailboxPolicy
from actorbus.bus.middleware import give_clock, sides
from actorbus.bus.origin import CURRENT
from actorbus.bus.pull import PullMailbox
from actorbus.clock import SystemClock
from actorbus.errors import (
    ActorbusError,
    AuditUnavailable,
    BusClosed,
    InvalidArgument,
    NotDrained,
    NotFlushed,
    NotStopped,
    UnknownRecipient,
    listed,
)
from actorbus.message import Priority, check_name
from actorbus.node.arguments import (
    HeardInTurns,
    RunsElsewhere,
    bound_audit,
    checked_port,
    checked_settings,
    made_up_name,
    transport_of,
)
from actorbus.node.work import Work
from actorbus.registry.directories.memory import MemoryDirectory
from actorbus.registry.registry import Registry
from actorbus.telemetry import NodeStarted, NodeStopped, Telemetry, TimerFailed

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from actorbus.actors.agent import Agent
    from actorbus.actors.loader import Loaded
    from actorbus.actors.ref import Ref
    from actorbus.actors.reply import Reply
    from actorbus.actors.targets import AllOf, AnyOf
    from actorbus.bus.dead_letters import DeadLetters
    from actorbus.bus.history import History
    from actorbus.bus.middleware import Deliver, Send
    from actorbus.bus.transport import Transport
    from actorbus.bus.waiting import Waiting
    from actorbus.clock import Clock
    from actorbus.codec import Codec, TypeBook
    from actorbus.context.context import Context
    from actorbus.context.stores.memory import MemoryStore
    from actorbus.observability.logs import Logs
    from actorbus.observability.metrics import Metrics
    from actorbus.persistence.audit import Audit
    from actorbus.persistence.recorder import Recorder
    from actorbus.settings import Settings

_LAST_GRACE: Final = 0.2
"""Seconds that cancelled handlers get to end in when the time to stop is up."""
_FIRST_LOOK: Final = 0.0005
_LAST_LOOK: Final = 0.05


class Node:
    """One process's runtime: bus, registry, context and agents.

    ::

        with Node() as node:
            counter = node.spawn(WordCounter, name="counter")

    Args:
        bus: a URL, or a Transport that several nodes may share.
        name: this node's name; made up if not given.
        audit: where message history is written: a URL, or ``Audit(url, strict=True)``.
        middleware: ``Send(...)`` and ``Deliver(...)``.
        metrics_port: serve Prometheus metrics on this port of the loopback; 0 picks one.
        settings: every other knob.
        check_payloads: hold payloads to the size limit and the codec, as a transport between
            processes would.

    Leaving ``with`` normally drains, by an exception stops at once; what is left becomes
    ``stopped``. ``async with`` runs ``async def`` handlers on the loop that entered it.

    Raises:
        UnknownTransport, InvalidName, InvalidSettings, AuditUnavailable: an argument that
            cannot be meant.
    """

    def __init__(
        self,
        bus: str | Transport = "memory://",
        *,
        name: str | None = None,
        audit: str | Audit | None = None,
        middleware: Iterable[Send | Deliver] | Send | Deliver = (),
        metrics_port: int | None = None,
        settings: Settings | None = None,
        check_payloads: bool | None = None,
    ) -> None:
        self.settings = checked_settings(settings, check_payloads)
        self.name = check_name("a node", name if name is not None else made_up_name())
        self._metrics_port = checked_port(metrics_port)
        self._audit = bound_audit(audit, self.settings)
        send_side, deliver_side = sides(middleware)
        self._types: TypeBook | None = None
        self._codec: Codec | None = None
        transport = transport_of(
            bus, name=self.name, settings=self.settings, make_codec=self._make_codec
        )
        shares = transport is bus
        self.telemetry = Telemetry()
        self._clock = self._make_clock()
        give_clock([*send_side, *deliver_side], self._clock)
        self._waiting = self._make_waiting()
        self._watch_thread = WatchThread(self.telemetry)
        shared = transport.shared
        directory = shared.get("directory") or shared.setdefault(
            "directory", MemoryDirectory(self._clock, dead_after=self.settings.dead_after)
        )
        # A shared store outlives this node, so its timers must not be this node's.
        store = shared.get("store") or shared.setdefault(
            "store", self._make_store(SystemClock() if shares else None)
        )
        self._closes = [one for one in (store, directory) if not shares and hasattr(one, "close")]
        """What is this node's own beside the transport, and holds connections."""
        self.registry = Registry(
            directory,
            node=self.name,
            clock=self._clock,
            telemetry=self.telemetry,
            settings=self.settings,
            post=self._post,
            seed=self._seed(),
        )
        from actorbus.context.context import Context

        self.context: Context = Context(
            store,
            post=self._post,
            telemetry=self.telemetry,
            watch_backlog=self.settings.watch_backlog,
        )
        self.bus = Bus(
            transport,
            clock=self._clock,
            telemetry=self.telemetry,
            settings=self.settings,
            waiting=self._waiting,
            send_middleware=send_side,
            check_payload=self._payload_check(),
        )
        self.bus.closed = True
        self._runtime = Runtime(
            node=self.name,
            bus=self.bus,
            registry=self.registry,
            context=self.context,
            clock=self._clock,
            settings=self.settings,
            telemetry=self.telemetry,
            random=random.Random(self._seed()),
            post=self._post,
            deliver_middleware=deliver_side,
        )
        self._runtime.make_logger = self._make_logger
        self._runtime.learn_types = self._learn_types
        if isinstance(transport, RunsElsewhere):
            from actorbus.actors.crew import Crew

            self._runtime.crew = transport.crew = Crew(
                self._runtime,
                transport.codec,
                transport.offer,
                transport.comes_back,
                muster=transport.muster,
                nobodys=transport.nobodys,
            )
            self._runtime.on_park = transport.parked
        self._work = Work(self._runtime.cells, transport)
        self._mailboxes: dict[str, PullMailbox] = {}
        self._life = threading.Lock()
        self._started = False
        self._stopped = False
        self.started_at: float | None = None
        """Node time of its start."""
        self._recorder: Recorder | None = None
        self._metrics: Metrics | None = None
        self.metrics_url: str | None = None
        """Where metrics are served, if they are."""
        self._logs = self._make_logs()
        self._stop_logging: Callable[[], None] | None = None
        self._make_dispatchers()

    # -- life

    def start(self) -> Self:
        """Start. Idempotent.

        Raises:
            BusClosed: the node was stopped; make a new one.
            AuditUnavailable: history cannot be written.
        """
        with self._life:
            if self._stopped:
                raise BusClosed("this node was stopped; make a new Node")
            if self._started:
                return self
            self.bus.transport.open(self.bus)
            try:
                self._start_recorder()
                self.registry.start()
            except BaseException:
                self._stopped = True
                self._close_back_ends()
                raise
            self._start_dispatchers()
            self._start_observability()
            self.started_at = self._clock.now()
            self.bus.closed = False
            self._runtime.accepting = True
            self._started = True
        if self.telemetry.active:
            self.telemetry.emit(NodeStarted(self.name, self.bus.guarantees.transport))
        return self

    def stop(self, timeout: float | None = None) -> None:
        """Stop every agent after the message in hand, and everything else. Idempotent.

        What waits becomes ``stopped``. Blocks at most `timeout` seconds (``stop_timeout``).

        Raises:
            NotStopped: handlers did not return in time; their threads are left behind.
            AuditUnavailable: history could not be written to the end.
        """
        seconds = self._seconds(timeout, self.settings.stop_timeout)
        if not self._begin_stop():
            return
        if not self._wait_until(self._work.is_over, seconds):
            self._work.abandon()
            self._wait_until(self._work.is_over, _LAST_GRACE)
        left = self._work.left()
        left += self._close_dispatchers(0.2 if left else seconds)
        self._close_rest(seconds)
        self._say_stopped(left)

    async def aclose(self, timeout: float | None = None) -> None:
        """``stop`` for ``async with``: agents of this loop end on it."""
        import asyncio

        seconds = self._seconds(timeout, self.settings.stop_timeout)
        if not self._begin_stop():
            return
        if not await self._until(self._work.is_over, seconds):
            self._work.abandon()
            await self._until(self._work.is_over, _LAST_GRACE)
        left = list(self._runtime.cells)
        await self._loop.aclose()
        left += await asyncio.to_thread(self._close_dispatchers, 0.2 if left else seconds)
        await asyncio.to_thread(self._close_rest, seconds)
        self._say_stopped(left)

    def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing is queued or running here and every send is accepted.

        Timers, delayed messages and parked agents do not count.

        Raises:
            NotDrained: time was up; names who is still at work.
        """
        seconds = self._seconds(timeout, self.settings.drain_timeout)
        if not self._wait_until(self._work.is_quiet, seconds):
            raise NotDrained(self._work.busy_names())

    async def adrain(self, timeout: float | None = None) -> None:
        """``drain`` on an event loop."""
        seconds = self._seconds(timeout, self.settings.drain_timeout)
        if not await self._until(self._work.is_quiet, seconds):
            raise NotDrained(self._work.busy_names())

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every send is accepted. In memory they are when they return.

        Raises:
            NotFlushed: some were not in time.
        """
        seconds = self._seconds(timeout, self.settings.send_timeout)
        left = self.bus.transport.flush(seconds)
        if left:
            raise NotFlushed(left)

    def wait(self) -> None:
        """Block until SIGINT or SIGTERM. Call it on the main thread."""
        arrived = threading.Event()
        before = {
            number: signal.signal(number, lambda *_: arrived.set())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            while not arrived.wait(timeout=3600):
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self._wait_until(self._work.is_quiet, self.settings.drain_timeout)
            self.stop()
            return
        try:
            self.stop()
        except NotStopped as left:
            if error is not None:
                error.add_note(str(left))

    async def __aenter__(self) -> Self:
        import asyncio

        self._loop.use(asyncio.get_running_loop())
        return self.start()

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            await self._until(self._work.is_quiet, self.settings.drain_timeout)
            await self.aclose()
            return
        try:
            await self.aclose()
        except NotStopped as left:
            if error is not None:
                error.add_note(str(left))

    # -- agents

    def spawn(
        self,
        agent: type[Agent] | Callable[..., Any],
        *args: Any,
        name: str | None = None,
        failover: bool | None = None,
        **kwargs: Any,
    ) -> Ref:
        """Make an agent of a class or a function and let it live.

        The other arguments go to its ``__init__``, which runs here.

        Raises:
            InvalidHandler: it is no agent.
            InvalidName, NameTaken: the name cannot be had.
            BusClosed: the node is not running.
        """
        return self._runtime.spawn(agent, args, kwargs, name=name, failover=failover)

    def ref(self, name: str) -> Ref:
        """The agent of that name.

        Raises:
            UnknownRecipient: there is none; the error names those that come close.
        """
        return self._runtime.ref(check_name("an agent", name))

    def unpark(self, name: str) -> None:
        """Let a parked agent go on, as a new instance with a clean record.

        Raises:
            UnknownRecipient: there is no agent of that name.
            InvalidArgument: it is not parked; the error says what it is.
        """
        cell = self._runtime.cells.get(check_name("an agent", name))
        if cell is None:
            raise UnknownRecipient(name, self._runtime.cells)
        if not cell.unpark():
            parked = listed(one.name for one in self._runtime.cells.values() if one.parked)
            why = f"it is {cell.state.value}. Parked: {parked}"
            raise InvalidArgument("an agent to unpark", name, why)

    def load(self, path: str | os.PathLike[str], *, lazily: bool = False) -> Loaded:
        """Find the agents in a file, folder or package and register them by name, lazily.

        An agent is made when the first message needs it, one with ``subscriptions`` at once
        unless `lazily`. What cannot be used is in ``.broken``, with file and line; the rest is
        loaded all the same.

        Raises:
            InvalidArgument: there is nothing at `path`.
            BusClosed: the node is not running.
        """
        from actorbus.actors.loader import load

        return load(path, self._runtime, lazily=lazily)

    def run_loaded(self, *, together: float = 0.0) -> list[str]:
        """Make the agents that were loaded and run nowhere yet; the names of those that run here.

        Without this each is made when the first message needs it. One whose ``__init__`` raises
        goes on standing by, and is reported.

        `together`: wait so many seconds for other nodes that have loaded the same and start, too;
        this one then makes its share. What any of them leaves is made by whoever calls again.

        Raises:
            TransportUnavailable: the server of the bus did not answer.
        """
        standby, crew = self._runtime.standby, self._runtime.crew
        if crew is None or not together:
            return standby.wake_everybody()
        loaded = standby.digest()
        crew.muster(loaded, together)
        time.sleep(together)
        return standby.wake_share(*crew.muster(loaded, together))

    def mailbox(self, name: str, policy: MailboxPolicy | None = None) -> PullMailbox:
        """The mailbox of that name, for code that is not an agent and takes messages itself."""
        with self._life:
            mailbox = self._mailboxes.get(name)
            if mailbox is None or mailbox.inbox.closed:
                if self.bus.closed:
                    raise BusClosed("the node is not running; start it first")
                mailbox = PullMailbox(self.bus, name, policy or MailboxPolicy())
                self._mailboxes[name] = mailbox
            return mailbox

    # -- sending

    def any(self, capability: str) -> AnyOf:
        """The least busy agent with that capability, chosen at each send."""
        return self._runtime.any(capability)

    def all(self, capability: str) -> AllOf:
        """Every agent with that capability."""
        return self._runtime.all(capability)

    def tell(
        self,
        name: str,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send without waiting; see ``Ref.tell``."""
        self.ref(name).tell(payload, priority=priority, ttl=ttl, delay=delay, headers=headers)

    def ask(
        self,
        name: str,
        payload: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        expect: type[Any] | None = None,
    ) -> Reply[Any]:
        """Send and get a reply; see ``Ref.ask``. An unknown name comes out of the reply too."""
        check_name("an agent", name)
        try:
            ref = self._runtime.ref(name)
        except ActorbusError as error:
            return self._runtime.failed(name, error)
        return ref.ask(payload, timeout=timeout, priority=priority, headers=headers, expect=expect)

    def tell_many(
        self, messages: Iterable[tuple[str, Any]], *, priority: Priority = Priority.NORMAL
    ) -> int:
        """Tell each name its payload; all names are checked before any is sent to. How many.

        Raises:
            UnknownRecipient: there is no agent of one of the names.
            InvalidArgument: they are no pairs; the error says which one is none.
        """
        addressed = [(self.ref(name), payload) for name, payload in checked_pairs(messages)]
        for ref, payload in addressed:
            ref.tell(payload, priority=priority)
        return len(addressed)

    def broadcast(
        self,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Send to everyone; how many local recipients took it. Zero is no error."""
        return self._runtime.broadcast(payload, priority=priority, ttl=ttl, headers=headers)

    def topic(self, name: str) -> Topic:
        """Where events of that name are published.

        Raises:
            InvalidName: not a topic.
        """
        return Topic(self._runtime, name)

    def run(self, run_id: str | None = None) -> Run:
        """A scope whose sends, and whatever they cause, belong to one run."""
        return Run(self._runtime, check_name("a run", run_id or str(uuid4())))

    # -- looking at it

    @property
    def history(self) -> History:
        """The last messages that ended, in memory."""
        return self.bus.history

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be handled."""
        return self.bus.dead_letters

    @property
    def audit(self) -> Audit:
        """The written history.

        Raises:
            AuditUnavailable: the node writes none.
        """
        if self._audit is None:
            raise AuditUnavailable('this node writes no history; Node(audit="sqlite:///h.db") does')
        return self._audit

    @property
    def metrics(self) -> Metrics:
        """What is counted, from the first look (or from the start, with ``metrics_port``)."""
        if self._metrics is None:
            from actorbus.observability.metrics import Metrics

            self._metrics = Metrics(self.telemetry, node=self.name, depth=self._work.depth)
        return self._metrics

    @property
    def types(self) -> TypeBook:
        """The classes that payloads from elsewhere are rebuilt with; ``add(Cls)`` one."""
        if self._types is None:
            from actorbus.codec import TypeBook

            self._types = TypeBook()
        return self._types

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "running" if self._started else "not started"
        return f"<Node {self.name!r} on {self.bus.guarantees.transport}: {state}>"

    # -- what the test kit replaces

    def _make_clock(self) -> Clock:
        return SystemClock(on_error=self._timer_failed)

    def _make_waiting(self) -> Waiting:
        return ThreadWaiting(self._clock)

    def _seed(self) -> int | None:
        return None

    def _post(self, callback: Callable[[], None]) -> None:
        self._watch_thread.post(callback)

    def _make_dispatchers(self) -> None:
        self._pool = PoolDispatcher(self.settings, self.telemetry)
        self._threads = ThreadDispatcher()
        from actorbus.actors.dispatchers.loop import LoopDispatcher

        self._loop = LoopDispatcher()
        runtime = self._runtime
        runtime.dispatchers = {"pool": self._pool, "thread": self._threads, "loop": self._loop}
        runtime.loop = self._loop
        if isinstance(self._waiting, ThreadWaiting):
            self._waiting.before_block = self._pool.before_block

    def _start_dispatchers(self) -> None:
        transport = self.bus.transport
        if isinstance(transport, HeardInTurns) and isinstance(self._waiting, ThreadWaiting):
            self._pool.hearing = self._waiting.hearing = transport.hearing
        self._pool.start()

    def _close_dispatchers(self, timeout: float) -> list[str]:
        give_up = time.monotonic() + timeout
        left: list[str] = []
        for dispatcher in (self._pool, self._threads, self._loop):
            left += dispatcher.close(max(0.0, give_up - time.monotonic()))
        return left

    @staticmethod
    def _seconds(timeout: float | None, default: float) -> float:
        return default if timeout is None else checked_timeout(timeout)

    def _wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Look until `done`, ever less often; false if it never was."""
        give_up = time.monotonic() + seconds
        pause = _FIRST_LOOK
        while not done():
            if time.monotonic() >= give_up:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)
        return True

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        import asyncio

        give_up = time.monotonic() + seconds
        pause = _FIRST_LOOK
        while not done():
            if time.monotonic() >= give_up:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)
        return True

    def _start_observability(self) -> None:
        if self.settings.log_level != "off":
            self._stop_logging = self._logs.listen(self.telemetry)
        if self._metrics_port is not None:
            self.metrics_url = self.metrics.serve(self._metrics_port).url

    # -- inside

    def _make_codec(self) -> Codec:
        """What messages between processes are packed with."""
        from actorbus.codec import Codec

        self._codec = Codec(self.types, limit=self.settings.payload_limit, make_ref=self._far_ref)
        return self._codec

    def _far_ref(self, name: str) -> Ref:
        """A Ref that came in a message: whoever sent it knows the agent."""
        from actorbus.actors.ref import Ref

        cell = self._runtime.cells.get(name)
        transport: Any = self.bus.transport
        return (
            cell.ref if cell is not None else Ref(self._runtime, name, transport.ref_entrance(name))
        )

    def _payload_check(self) -> Callable[[Any], None] | None:
        if not self.settings.check_payloads:
            return None
        from actorbus.codec import Codec

        return Codec(self.types, limit=self.settings.payload_limit).check

    def _make_store(self, clock: Clock | None) -> MemoryStore:
        from actorbus.context.stores.memory import MemoryStore

        return MemoryStore(
            clock or self._clock,
            history=self.settings.context_history,
            log=self.settings.context_log,
        )

    def _make_logs(self) -> Logs:
        from actorbus.observability.logs import Logs

        level = self.settings.log_level
        return Logs(
            node=self.name,
            format=self.settings.log_format,
            level="error" if level == "off" else level,
            now=self._clock.now,
        )

    def _make_logger(self, agent: str) -> Any:
        return self._logs.agent(agent, _message_in_hand)

    def _learn_types(self, cls: type[Agent]) -> None:
        if not self.settings.check_payloads and self._codec is None:
            return
        for handler in cls.handler_table.handlers:
            for kind in (*handler.types, *handler.returns):
                self.types.add_hint(kind)

    def _start_recorder(self) -> None:
        if self._audit is not None:
            self._recorder = self._audit.record(
                telemetry=self.telemetry,
                settings=self.settings,
                node=self.name,
                clock=self._clock,
            )
            self._recorder.start()
            self.bus.record_to(self._recorder)

    def _begin_stop(self) -> bool:
        with self._life:
            if self._stopped or not self._started:
                self._stopped = True
                return False
            self._stopped = True
            self._runtime.accepting = False
        self.bus.close()
        self.bus.transport.leave()
        for mailbox in self._mailboxes.values():
            mailbox.close()
        for cell in list(self._runtime.cells.values()):
            if cell.parent is None:
                cell.stop(reason="the node stopped")
        for cell in list(self._runtime.cells.values()):
            cell.stop(reason="the node stopped")
        return True

    def _close_rest(self, timeout: float) -> None:
        self.registry.stop()
        self.context.stop()
        self._watch_thread.close(timeout)
        self._runtime.asking.deadlines.close()
        self._clock.close()
        self.bus.transport.flush(timeout)
        self._close_back_ends()
        try:
            if self._recorder is not None:
                self._recorder.close(timeout)
        finally:
            if self._metrics is not None:
                self._metrics.stop()

    def _close_back_ends(self) -> None:
        for one in self._closes:
            one.close()
        self.bus.transport.close()

    def _say_stopped(self, left: list[str]) -> None:
        if self.telemetry.active:
            self.telemetry.emit(NodeStopped(self.name, tuple(sorted(set(left)))))
        if self._stop_logging is not None:
            self._stop_logging()
        if left:
            raise NotStopped(set(left))

    def _timer_failed(self, error: BaseException) -> None:
        if self.telemetry.active:
            self.telemetry.emit(TimerFailed(error))


def _message_in_hand() -> Any:
    origin = CURRENT.get()
    return None if origin is None else origin.message
