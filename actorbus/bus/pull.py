"""A mailbox for code that is not an agent: it takes its messages itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from actorbus.bus.arguments import checked_timeout
from actorbus.bus.mailbox import Mailbox, MailboxPolicy
from actorbus.bus.routing import Route
from actorbus.bus.where import compiled
from actorbus.errors import AgentStopped, InvalidName, Rejected
from actorbus.message import (
    Message,
    MessageKind,
    Reason,
    check_name,
    check_pattern,
    envelope,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.bus import Bus
    from actorbus.bus.where import Where


class PullMailbox:
    """Messages to one name, taken by whoever calls ``take``. Any thread may.

    A message that was taken counts as handled; a request stays open until ``reply`` or
    ``reject``, or until its deadline. A context manager that closes it.
    """

    def __init__(self, bus: Bus, name: str, policy: MailboxPolicy) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._waiter: Callable[[], object] | None = None
        self.name = check_name("a mailbox", name)
        self.inbox = Mailbox(name, policy, self, PullMailbox._arrived)
        bus.transport.attach(self.inbox)

    def take(self, n: int = 1, timeout: float = 0.0) -> list[Message[Any]]:
        """At most `n` messages, most urgent first; waits `timeout` seconds for the first one.

        Empty if none came in time, or the mailbox was closed.

        Raises:
            InvalidName: `n` is below 1, or `timeout` no number of seconds.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InvalidName("a number of messages", n, "it must be an int of 1 or more")
        until = self._bus.clock.now() + checked_timeout(timeout)
        while not (taken := self._take_now(n)) and not self.inbox.closed:
            if not self._bus.waiting.wait(self._arm, until):
                return self._take_now(n)
        return taken

    def reply(self, message: Message[Any], value: Any) -> bool:
        """Answer a request. False if it had given up, or was answered already."""
        if message.answer_to is None:
            raise InvalidName("a request", message, "only an ask can be replied to")
        now = self._bus.clock.now()
        self._bus.answered(message, self.name, value, MessageKind.REPLY, now)
        return message.answer_to.resolve(value)  # type: ignore[no-any-return]

    def reject(self, message: Message[Any], why: str) -> None:
        """Refuse a message: its asker gets ``Rejected``, a tell becomes a dead letter."""
        self._bus.fail(message, self.name, Reason.REJECTED, Rejected(self.name, why))

    def subscribe(self, pattern: str, where: Where | None = None) -> Callable[[], None]:
        """Get what is published on topics like `pattern`. Returns the way to end it."""
        route = Route(self.name, check_pattern(pattern), compiled(where))
        self._bus.transport.subscribe(route)
        return lambda: self._bus.transport.unsubscribe(route)

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

    def _take_now(self, n: int) -> list[Message[Any]]:
        taken: list[Message[Any]] = []
        with self._taking:
            while len(taken) < n:
                run, count = self.inbox.run(n - len(taken))
                if count <= 0:
                    break
                while count > 0 and run and not self.inbox.interrupted:
                    count -= 1
                    message = envelope(run.pop(), self.name)
                    if self._is_worth_taking(message):
                        taken.append(message)
        return taken

    def _is_worth_taking(self, message: Message[Any]) -> bool:
        now = self._bus.clock.now()
        answer_to = message.answer_to
        if message.expired(now):
            self._bus.fail(message, self.name, Reason.EXPIRED)
        elif answer_to is not None and answer_to.settled:
            self._bus.fail(message, self.name, Reason.CANCELLED)
        else:
            self._bus.handled(message, self.name, now, now)
            return True
        return False

    def _arm(self, wake: Callable[[], object]) -> bool:
        with self._lock:
            self._waiter = wake
        return not len(self.inbox) and not self.inbox.closed

    def _arrived(self) -> None:
        with self._lock:
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter()
