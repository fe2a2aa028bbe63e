"""The reply to an ask: a value or an error that is there now or later.

A reply is settled once, by whoever is first: the handler, its deadline, or ``cancel``.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from actorbus.bus.arguments import checked_timeout
from actorbus.bus.origin import CURRENT
from actorbus.errors import AgentStopped, AskTimeout, Cancelled, DeadlockDetected
from actorbus.telemetry import ReplyUnclaimed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from actorbus.actors.activation import Activation
    from actorbus.bus.waiting import Waiting
    from actorbus.clock import Clock, Timer
    from actorbus.message import MessageId
    from actorbus.telemetry import Telemetry

    Suspend = Callable[["Reply[Any]"], Generator[Any, None, Any]]
    """Suspends the coroutine that runs until a reply is settled, and gives what it came to."""

T = TypeVar("T")


class Asking:
    """What the replies of one node share: how to wait, the clock, the deadlines."""

    __slots__ = ("clock", "deadlines", "lock", "suspend", "telemetry", "waiting")

    def __init__(
        self, clock: Clock, telemetry: Telemetry, waiting: Waiting, suspend: Suspend
    ) -> None:
        self.suspend = suspend
        self.clock = clock
        self.telemetry = telemetry
        self.waiting = waiting
        self.lock = threading.Lock()
        self.deadlines = Deadlines(clock)


class Reply(Generic[T]):
    """What an ask comes to. From any thread, awaited on any loop, as often as you like.

    ``deadline`` is node time: when the ask gives up by itself.
    """

    __slots__ = (
        "_asking",
        "_callbacks",
        "_claim",
        "_claimed",
        "_error",
        "_value",
        "asked_at",
        "deadline",
        "forwarded_to",
        "recipient",
        "request",
        "settled",
        "target",
        "waiter",
    )

    def __init__(
        self, asking: Asking, recipient: str, asked_at: float, deadline: float, target: Any = None
    ) -> None:
        self._asking = asking
        self._callbacks: list[Callable[[], object]] = []
        # Whoever pops this settles the reply: an atomic step that needs no lock.
        self._claim = [True]
        self._claimed = False
        self._value: Any = None
        self._error: BaseException | None = None
        self.settled = False
        self.recipient = recipient
        self.asked_at = asked_at
        self.deadline = deadline
        self.target = target
        """The cell that is asked, where it is in this process."""
        self.request: MessageId | None = None
        """What is asked, where another node may answer it."""
        self.forwarded_to: Reply[Any] | None = None
        self.waiter: Activation | None = None
        """The handler that waits for this reply."""

    # -- for whoever asked

    def get(self, timeout: float | None = None) -> T:
        """Wait for the value, at most `timeout` seconds and never past the ask's deadline.

        Raises:
            AskTimeout: no reply in time. After a `timeout` shorter than the ask's the reply
                stays usable.
            AgentFailed, AgentStopped, Rejected, NoHandler, Cancelled: what became of the ask.
            DeadlockDetected: the wait could never end.
            PoolExhausted: every thread of the pool waits already.
        """
        if not self.settled:
            self._wait(timeout)
        return self.result()

    def __await__(self) -> Generator[Any, None, T]:
        return self._asking.suspend(self)

    def done(self) -> bool:
        """Whether ``get`` would return, or raise, at once."""
        if not self.settled and self._asking.clock.now() >= self.deadline:
            self.time_out()
        return self.settled

    def cancel(self) -> bool:
        """Give up: cancel the message, and what its handler waits for. False if it was too late.

        A queued message is dropped, an async handler is cancelled, a sync one sees
        ``self.cancelled``. Tells that the handler has sent are not recalled.
        """
        if not self.fail(Cancelled(f"the ask of {self.recipient!r} was cancelled")):
            return False
        self._claimed = True
        if self.forwarded_to is not None:
            self.forwarded_to.cancel()
        if self.target is not None:
            self.target.cancel(self)
        return True

    def __repr__(self) -> str:
        state = "pending" if not self.settled else "failed" if self._error else "done"
        return f"<Reply from {self.recipient!r}: {state}>"

    # -- for the runtime

    def resolve(self, value: Any) -> bool:
        """Settle with a value. False if it was settled already."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        self._value = value
        self.settled = True
        if self._callbacks:
            self._call_back()
        return True

    def fail(self, error: BaseException) -> bool:
        """Settle with an error. False if it was settled already."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        self._error = error
        self.settled = True
        if self._callbacks:
            self._call_back()
        return True

    def finish(self, value: Any, error: BaseException | None) -> None:
        """Settle with one of them, though whoever began to was interrupted and did not end it."""
        if not (self.resolve(value) if error is None else self.fail(error)):
            if not self.settled:
                self._value, self._error = value, error
                self.settled = True
            self._call_back()

    def time_out(self) -> None:
        """Settle because the deadline has passed."""
        self.fail(AskTimeout(self.recipient, self.deadline - self.asked_at))

    def then(self, callback: Callable[[], object]) -> None:
        """Call `callback` once this is settled: on the thread that settles it, or now.

        From then on the deadline settles the reply even if nobody waits.
        """
        self._callbacks.append(callback)
        if self.settled:
            self._call_back()
            return
        self._asking.deadlines.add(self)

    def outcome(self) -> tuple[Any, BaseException | None]:
        """The value and the error of a settled reply; one of them is None. Claims the error."""
        self._claimed = True
        return self._value, self._error

    def forward(self, inner: Reply[Any]) -> None:
        """Settle with whatever `inner` comes to: the handler returned a reply."""
        self.forwarded_to = inner
        if self.waiter is not None and (ring := ring_of(self.waiter, self)):
            self.fail(DeadlockDetected(ring))
        if self.settled:
            # Nobody wants it any more, so nobody should work for it.
            inner.cancel()
            return
        inner.then(partial(self._adopt, inner))

    def _adopt(self, inner: Reply[Any]) -> None:
        value, error = inner.outcome()
        if error is None:
            self.resolve(value)
        else:
            self.fail(error)

    def _call_back(self) -> None:
        """Call what waits. Two threads may: each callback is popped by one of them."""
        self._asking.deadlines.discard(self)
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                return
            callback()

    def result(self) -> T:
        """The value of a settled reply, or its error raised."""
        self._claimed = True
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]

    def _wait(self, timeout: float | None) -> None:
        asking = self._asking
        origin: Any = CURRENT.get()
        if not asking.waiting.may_block():
            raise DeadlockDetected(
                (), "get() would block the event loop; write `await` instead of `.get()`"
            )
        if origin is not None:
            origin.begin_wait(self)
        elif self.target is not None and asking.waiting.spin(self):
            return
        try:
            until = None if timeout is None else asking.clock.now() + checked_timeout(timeout)
            if until is None or until >= self.deadline:
                asking.deadlines.add(self)
                until = None
            happened = asking.waiting.wait(self._arm, until, answers=self.request)
        finally:
            if origin is not None:
                origin.end_wait(self)
        if not happened and not self.settled:
            waited = asking.clock.now() - self.asked_at
            raise AskTimeout(self.recipient, waited, "; the reply may still come")

    def _arm(self, wake: Callable[[], object]) -> bool:
        if not self.settled:
            self._callbacks.append(wake)
        if self.settled:
            # Whoever settled it may not have seen that somebody began to wait.
            self._asking.deadlines.discard(self)
            return False
        return True

    def __del__(self) -> None:
        try:
            error = self._error
        except AttributeError:
            return  # a KeyboardInterrupt came before __init__ had begun
        if error is not None and not self._claimed:
            telemetry = self._asking.telemetry
            if telemetry.active:
                telemetry.emit(ReplyUnclaimed(self.recipient, error))


class Gathered(Reply[list[Any]]):
    """One reply of many: a list of their values or errors, in the order asked."""

    __slots__ = ("_left", "replies")

    def __init__(self, asking: Asking, recipient: str, asked_at: float, deadline: float) -> None:
        super().__init__(asking, recipient, asked_at, deadline)
        self.replies: Sequence[Reply[Any]] = ()
        self._left = 0

    def gather(self, replies: Sequence[Reply[Any]]) -> None:
        self.replies = replies
        self._left = len(replies)
        if not replies:
            self.resolve([])
        for reply in replies:
            reply.then(self._one_more)

    def cancel(self) -> bool:
        cancelled = super().cancel()
        for reply in self.replies:
            reply.cancel()
        return cancelled

    def _one_more(self) -> None:
        with self._asking.lock:
            self._left -= 1
            if self._left:
                return
        outcomes = [reply.outcome() for reply in self.replies]
        self.resolve([value if error is None else error for value, error in outcomes])


def ring_of(activation: Activation, reply: Reply[Any]) -> list[str] | None:
    """The names round the ring that waiting for `reply` closes; None if there is none.

    A handler waits for a reply, the reply for an agent, that agent for its own handler, which
    may wait for another reply. Agents that handle several messages at a time wait for nobody.
    """
    start = activation.cell
    if start is None or not start.waits_in_turn:
        return None
    stack: list[tuple[Reply[Any], list[str]]] = [(reply, [start.name])]
    seen = set()
    while stack:
        waited_for, path = stack.pop()
        if id(waited_for) in seen:
            continue
        seen.add(id(waited_for))
        if waited_for.forwarded_to is not None:
            stack.append((waited_for.forwarded_to, path))
            continue
        if isinstance(waited_for, Gathered):
            stack.extend((one, path) for one in waited_for.replies if not one.settled)
            continue
        cell = waited_for.target
        if cell is None or waited_for.settled:
            continue
        chain = [*path, cell.name]
        if cell is start:
            return chain
        if cell.waits_in_turn:
            stack.extend((one, chain) for one in cell.waiting_for())
    return None


_LONG: Final = 5.0
_SWEEP: Final = 0.25


class Deadlines:
    """Settles replies whose deadline passes.

    An ask that gives up within 5 s has a timer of its own. Longer ones wait in a set that is
    swept every quarter of a second while anybody is in it, so that such a reply costs two set
    operations and is at most that late.
    """

    __slots__ = ("_clock", "_closed", "_lock", "_single", "_sweeping", "_waiting")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: set[Reply[Any]] = set()
        self._single: dict[Reply[Any], Timer] = {}
        self._sweeping = False
        self._closed = False

    def add(self, reply: Reply[Any]) -> None:
        """Have `reply` settled at its deadline. More than once is as good as once."""
        if reply.deadline - reply.asked_at < _LONG:
            self._add_single(reply)
        else:
            self._waiting.add(reply)
            if not self._sweeping:
                self._start_sweeping()
        if reply.settled or self._closed:
            self.discard(reply)
            reply.fail(AgentStopped(reply.recipient, "cannot answer any more: its node stopped"))

    def discard(self, reply: Reply[Any]) -> None:
        self._waiting.discard(reply)
        if self._single and (timer := self._single.pop(reply, None)) is not None:
            timer.cancel()

    def close(self) -> None:
        """The clock ends: nobody may be left waiting for it."""
        with self._lock:
            self._closed = True
            left = [*self._single, *self._waiting.copy()]
        for reply in left:
            reply.fail(AgentStopped(reply.recipient, "did not answer before its node stopped"))

    def __len__(self) -> int:
        return len(self._waiting) + len(self._single)

    def _add_single(self, reply: Reply[Any]) -> None:
        with self._lock:
            if reply not in self._single:
                self._single[reply] = self._clock.call_at(reply.deadline, reply.time_out)

    def _start_sweeping(self) -> None:
        with self._lock:
            if not self._sweeping:
                # In this order: a KeyboardInterrupt may come between the two.
                self._clock.call_at(self._clock.now() + _SWEEP, self._sweep)
                self._sweeping = True

    def _sweep(self) -> None:
        now = self._clock.now()
        with self._lock:
            self._sweeping = False
        try:
            for reply in self._waiting.copy():
                if reply.deadline <= now:
                    reply.time_out()
                    self.discard(reply)
        finally:
            if self._waiting:
                self._start_sweeping()
