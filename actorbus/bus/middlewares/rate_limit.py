"""No more than so many messages a second."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Literal

from actorbus.bus.middleware import Dead, Retry, Timed, destination, taker
from actorbus.errors import InvalidSettings
from actorbus.message import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from actorbus.bus.middleware import Handle, Middleware, Outcome
    from actorbus.message import Message

_AT_ONCE: Final = 1e-6
"""Seconds that are no wait: a float of node time resolves a quarter of a microsecond."""


def rate_limit(
    per_second: float,
    *,
    burst: int = 1,
    by: Literal["sender", "recipient"] | Callable[[Message[Any]], Hashable] = "sender",
    wait: float = 0.0,
    capacity: int = 10_000,
) -> Middleware:
    """Let `per_second` messages through for each sender or recipient, `burst` of them at once.

    What comes too early waits, in the order it came, but at most `wait` seconds; what would
    have to wait longer ends as ``rate-limited``, and its asker gets ``Rejected``.

    Side: on ``Send`` a message that waits is accepted and kept aside, and has its turn
    reserved. On ``Deliver`` the agent itself waits, and what is behind in its mailbox with it.

    Args:
        per_second: the rate in the long run.
        burst: how many may come at once after a pause.
        by: whose rate it is: code that is no agent is one sender; a topic, or all who get a
            broadcast, are one recipient on the send side. Or a function of the message.
        wait: seconds; 0 refuses at once.
        capacity: how many rates are kept. Who was silent for longest starts anew.

    Raises:
        InvalidSettings: an argument that cannot be meant.
    """
    if not 0 < per_second < float("inf") or burst < 1 or wait < 0 or capacity < 1:
        raise InvalidSettings(
            "rate_limit: per_second must be above 0, burst and capacity 1 or more, wait 0 or"
            f" more; got {per_second=}, {burst=}, {capacity=}, {wait=}"
        )
    if by == "sender":
        return _RateLimit(per_second, burst, lambda message: message.sender, wait, capacity)
    if by == "recipient":
        return _RateLimit(per_second, burst, destination, wait, capacity)
    if callable(by):
        return _RateLimit(per_second, burst, by, wait, capacity)
    raise InvalidSettings(f"rate_limit: by is 'sender', 'recipient' or a function, not {by!r}")


class _RateLimit(Timed):
    """A token bucket a key, kept as one number: when the next message would be due.

    That is the generic cell rate algorithm (ITU-T I.371): each message makes the next one due
    an interval later, and may itself come `burst` - 1 intervals before it is due.
    """

    def __init__(
        self,
        per_second: float,
        burst: int,
        key_of: Callable[[Message[Any]], Hashable],
        wait: float,
        capacity: int,
    ) -> None:
        self._per_second = per_second
        self._interval = 1.0 / per_second
        self._early = self._interval * (burst - 1)
        self._key_of = key_of
        self._wait = wait
        self._capacity = capacity
        self._due: OrderedDict[Hashable, float] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, handle: Handle) -> Handle:
        def handle_in_rate(message: Message[Any]) -> Outcome:
            # On the deliver side a message that waits comes through here again.
            reserve = taker(message) is None
            after = self._claim(self._key_of(message), reserve=reserve)
            if after <= _AT_ONCE:
                return handle(message)
            if after <= self._wait:
                return Retry(after)
            return Dead(
                Reason.RATE_LIMITED,
                f"more than {self._per_second:g} messages a second; try again in {after:.3g} s",
            )

        return handle_in_rate

    def _claim(self, key: Hashable, *, reserve: bool) -> float:
        """Seconds until `key` may send; 0 takes the turn, and so does a wait with `reserve`."""
        now = self.clock.now()
        with self._lock:
            due = max(self._due.get(key, now), now)
            after = due - self._early - now
            if after <= _AT_ONCE or (reserve and after <= self._wait):
                self._due[key] = due + self._interval
                self._due.move_to_end(key)
                if len(self._due) > self._capacity:
                    self._due.popitem(last=False)
        return after
