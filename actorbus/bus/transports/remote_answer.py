"""Where the reply to a request of another node goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.mailbox import Inbox
    from actorbus.message import MessageId


class RemoteAnswer:
    """Carries what a request comes to over to the node that asked. Settled once.

    Args:
        value, error: called with the outcome, at most one of them, once.
        dropped: called instead where nobody wants an answer any more.
    """

    __slots__ = ("_callbacks", "_claim", "_dropped", "_error", "_value", "id", "inbox", "settled")

    def __init__(
        self,
        request: MessageId,
        inbox: Inbox | None,
        *,
        value: Callable[[RemoteAnswer, Any], object],
        error: Callable[[RemoteAnswer, BaseException], object],
        dropped: Callable[[RemoteAnswer], object],
    ) -> None:
        self.id = request
        self.inbox = inbox
        """Of the agent that was asked; None if nobody has its name."""
        self.settled = False
        self._value = value
        self._error = error
        self._dropped = dropped
        # Whoever pops this settles it: an atomic step that needs no lock.
        self._claim = [True]
        self._callbacks: list[Callable[[], object]] = []

    def resolve(self, value: Any) -> bool:
        if not self._settle():
            return False
        self._value(self, value)
        return True

    def fail(self, error: BaseException) -> bool:
        if not self._settle():
            return False
        self._error(self, error)
        return True

    def cancel(self) -> bool:
        """Nobody waits any more: drop the message, or reach its handler."""
        if not self._settle():
            return False
        owner = None if self.inbox is None else self.inbox.owner
        if owner is not None:
            owner.cancel(self)
        self._dropped(self)
        return True

    def forward(self, inner: Any) -> None:
        """Answer with whatever `inner`, a reply, comes to."""
        if self.settled:
            inner.cancel()
        else:
            inner.then(lambda: self._adopt(inner))

    def then(self, callback: Callable[[], object]) -> None:
        """Call `callback` once this is settled."""
        self._callbacks.append(callback)
        if self.settled:
            self._call_back()

    def _settle(self) -> bool:
        try:
            self._claim.pop()
        except IndexError:
            return False
        self.settled = True
        self._call_back()
        return True

    def _adopt(self, inner: Any) -> None:
        value, error = inner.outcome()
        if error is None:
            self.resolve(value)
        else:
            self.fail(error)

    def _call_back(self) -> None:
        """Call what waits. Two threads may: each callback is popped by one of them."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            callback()
