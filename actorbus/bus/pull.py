"""A mailbox for code that is not an agent: it takes its messages itself."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from functools import partial
from itertools import chain, repeat
from operator import call
from typing import TYPE_CHECKING, Any

from actorbus.bus.arguments import checked_timeout
from actorbus.bus.mailbox import WIDTH, Mailbox, MailboxPolicy
from actorbus.bus.routing import Route
from actorbus.bus.where import compiled
from actorbus.errors import AgentStopped, InvalidArgument, Rejected
from actorbus.message import (
    Message,
    MessageKind,
    Reason,
    check_name,
    check_pattern,
    envelope,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.bus.bus import AnswerTo, Bus
    from actorbus.bus.mailbox import Level
    from actorbus.bus.where import Where


class PullMailbox:
    """Messages to one name, taken by whoever calls ``take``. Any thread may.

    What was told ends as handled when it is taken; a request stays open until ``reply`` or
    ``reject``, or until its deadline. A context manager that closes it.
    """

    def __init__(self, bus: Bus, name: str, policy: MailboxPolicy) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._waiters: list[Callable[[], object]] = []
        self._not_given: deque[Message[Any]] = deque()
        """Taken by somebody who was interrupted before they had them."""
        self.name = check_name("a mailbox", name)
        self.inbox = Mailbox(name, policy, self, PullMailbox._arrived)
        bus.transport.attach(self.inbox)

    def take(self, n: int = 1, timeout: float = 0.0) -> list[Message[Any]]:
        """At most `n` messages, most urgent first; waits `timeout` seconds for the first one.

        Empty if none came in time, or the mailbox was closed. Interrupted by Ctrl-C it takes
        nothing: the next one gets what it had in hand.

        Raises:
            InvalidArgument: `n` is below 1, or `timeout` no number of seconds.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InvalidArgument("a number of messages", n, "it must be an int of 1 or more")
        until = self._bus.clock.now() + checked_timeout(timeout)
        taken: list[Message[Any]] = []
        try:
            self._take_now(n, taken)
            while not taken and not self.inbox.closed:
                in_time = self._wait(until)
                self._take_now(n, taken)
                if not in_time:
                    break
        except BaseException:
            self._not_given.extendleft(reversed(taken))
            self._arrived()
            raise
        return taken

    def reply(self, message: Message[Any], value: Any) -> bool:
        """Answer a request. False if it had given up, or was answered already.

        Raises:
            InvalidArgument: it is no request.
        """
        answer_to = _asker_of(message)
        taken = self._bus.open_requests.pop(message.id, None)
        if not answer_to.resolve(value):
            if taken is not None:
                self._gave_up(message)
            return False
        now = self._bus.clock.now()
        self._bus.handled(message, self.name, message.created_at, now)
        self._bus.answered(message, self.name, value, MessageKind.REPLY, now)
        return True

    def reject(self, message: Message[Any], why: str) -> bool:
        """Refuse a request: its asker gets ``Rejected``. False if it was answered already.

        Raises:
            InvalidArgument: it is no request; what was told is yours once you took it.
        """
        if _asker_of(message).settled:
            return False
        self._bus.open_requests.pop(message.id, None)
        self._bus.fail(message, self.name, Reason.REJECTED, Rejected(self.name, why))
        return True

    def subscribe(self, pattern: str, where: Where | None = None) -> Callable[[], None]:
        """Get what is published on topics like `pattern`. Returns the way to end it."""
        route = Route(self.name, check_pattern(pattern), compiled(where))
        self._bus.transport.subscribe(route)
        return lambda: self._bus.transport.unsubscribe(route)

    drains = False
    """A drain does not wait for code that is no agent to take what waits here."""

    parked = False
    """For refs, to whom this looks like an agent that is never parked."""

    def cancel(self, reply: object) -> None:
        """An ask was cancelled: whoever took it finds out when it replies."""

    activation = None
    """Nor like one whose handler waits for somebody."""

    def waiting_for(self) -> tuple[()]:
        """Nobody knows what code outside agents waits for."""
        return ()

    waits_in_turn = False

    def stop(self, *, drain: bool = False, reason: str = "stopped") -> None:
        """``close``, as an agent's owner is told to; what waits is not to be handled."""
        self.close()

    def close(self) -> None:
        """Take no more; what waits becomes ``stopped``. Idempotent."""
        self._bus.transport.detach(self.inbox)
        with self._taking:
            left = self.inbox.close()
        for message in left:
            self._bus.fail(message, self.name, Reason.STOPPED, AgentStopped(self.name))
        self._arrived()

    def __len__(self) -> int:
        return len(self.inbox)

    def __enter__(self) -> PullMailbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_now(self, n: int, taken: list[Message[Any]]) -> None:
        """Add to `taken` until it has `n`, or nothing waits."""
        while self._not_given and len(taken) < n:
            with contextlib.suppress(IndexError):
                taken.append(self._not_given.popleft())
        slots: list[Any] = []
        try:
            while len(taken) < n and self._pop(n - len(taken), slots):
                while slots:
                    message = self._message(slots)
                    if self._is_worth_taking(message):
                        taken.append(message)
                        del slots[:WIDTH]
                        self._give(message)
                    else:
                        del slots[:WIDTH]
        except BaseException:
            if taken and slots and taken[-1].id == self._message(slots).id:
                del slots[:WIDTH]
            self._put_back(slots)
            raise
        self._is_empty()

    def _pop(self, most: int, slots: list[Any]) -> bool:
        """Move the slots of some of what goes next into `slots`; False if nothing waits."""
        inbox = self.inbox
        with self._taking:
            while not slots:
                run, count = inbox.run(most)
                if count <= 0:
                    return False
                before = inbox.taken
                moved = self._moved(run, count)
                try:
                    # Counted and moved in one step, where Python looks for no signal: an
                    # interrupt finds each message here or there.
                    inbox.taken = before + count
                    slots.extend(moved)
                except BaseException as error:
                    inbox.taken = before + len(slots) // WIDTH
                    if not isinstance(error, IndexError):
                        raise
                    # The overflow policy dropped the rest of the run.
                inbox.ran(len(slots) // WIDTH)
        return True

    def _moved(self, run: Level, count: int) -> Iterator[Any]:
        """The slots of `count` messages, each taken out of `run` when it is asked for."""
        if self.inbox.guards:
            entries = map(self.inbox.take, repeat(run, count))
            return chain.from_iterable(zip(entries, repeat(None), repeat(None), strict=False))
        return map(call, repeat(run.popleft, count * WIDTH))

    def _message(self, slots: list[Any]) -> Message[Any]:
        """The first message in `slots`."""
        first, payload, created_at = slots[:WIDTH]
        return envelope(self.inbox.entry((first, payload, created_at)))

    def _put_back(self, slots: list[Any]) -> None:
        """An interrupt came before these were given to anybody: they wait as before."""
        left: list[Message[Any]] = []
        with self._taking:
            while slots:
                left.append(self._message(slots))
                del slots[:WIDTH]
            if not self.inbox.ended:
                while left:
                    self.inbox.put_back(left.pop())
        for message in left:
            self._bus.fail(message, self.name, Reason.STOPPED, AgentStopped(self.name))

    def _is_empty(self) -> bool:
        """Whether nothing waits: then the next to arrive wakes whoever waits by now.

        Who waits for room in the mailbox is let in on the way.
        """
        with self._taking:
            return self.inbox.run(1)[1] <= 0

    def _is_worth_taking(self, message: Message[Any]) -> bool:
        """Whether somebody still wants `message` done; else that was its end."""
        if message.expired(self._bus.clock.now()):
            self._bus.fail(message, self.name, Reason.EXPIRED)
        elif message.answer_to is not None and message.answer_to.settled:
            self._bus.fail(message, self.name, Reason.CANCELLED)
        else:
            return True
        return False

    def _give(self, message: Message[Any]) -> None:
        """`message` is taken: what was told ends with that, a request stays open."""
        answer_to = message.answer_to
        if answer_to is None:
            now = self._bus.clock.now()
            self._bus.handled(message, self.name, now, now)
        else:
            self._bus.open_requests[message.id] = message
            answer_to.then(partial(self._asker_is_done, message))

    def _asker_is_done(self, message: Message[Any]) -> None:
        """The asker has its answer, or gave up, and then that is how the request ends."""
        if self._bus.open_requests.pop(message.id, None) is not None:
            self._gave_up(message)

    def _gave_up(self, message: Message[Any]) -> None:
        reason = Reason.CANCELLED
        if self._bus.closed:
            reason = Reason.STOPPED
        elif message.expired(self._bus.clock.now()):
            reason = Reason.EXPIRED
        self._bus.fail(message, self.name, reason)

    def _wait(self, until: float) -> bool:
        """Wait until something may have arrived; False when the time is up."""
        armed: list[Callable[[], object]] = []

        def arm(wake: Callable[[], object]) -> bool:
            armed.append(wake)
            with self._lock:
                self._waiters.append(wake)
            return self._is_empty() and not self._not_given and not self.inbox.closed

        try:
            return self._bus.waiting.wait(arm, until)
        finally:
            with self._lock:
                self._waiters = [waiter for waiter in self._waiters if waiter not in armed]

    def _arrived(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()


def _asker_of(message: Message[Any]) -> AnswerTo:
    answer_to: AnswerTo | None = message.answer_to
    if answer_to is None:
        raise InvalidArgument("a request", message, "only an ask can be replied to")
    return answer_to
