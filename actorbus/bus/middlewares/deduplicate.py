"""The same message once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from actorbus.bus.middleware import Accepted, Dead, Handled, destination, then
from actorbus.errors import InvalidSettings
from actorbus.message import Reason, format_id

if TYPE_CHECKING:
    from collections.abc import Hashable

    from actorbus.bus.middleware import Handle, Middleware, Outcome
    from actorbus.message import Message


def deduplicate(header: str | None = None, *, capacity: int = 10_000) -> Middleware:
    """Let the first of several equal messages through; the others end as ``duplicate``.

    Messages of one sender to one destination are equal if they have the same id, or the same
    value of `header`; without that header a message always goes through. The asker of a
    duplicate gets ``Rejected``.

    Only what went well counts: after a failure the same message may come again, so retries
    work. A duplicate that comes while the first is still in hand is one.

    Side: ``Deliver`` for what was delivered twice, ``Send`` for what was sent twice.

    Args:
        header: the name of the header that says which messages are equal.
        capacity: how many are remembered; the oldest is forgotten first.

    Raises:
        InvalidSettings: `capacity` is below 1.
    """
    seen = _Seen(capacity)

    def deduplicated(handle: Handle) -> Handle:
        def handle_once(message: Message[Any]) -> Outcome:
            value: Hashable = message.id if header is None else message.headers.get(header)
            if value is None:
                return handle(message)
            key = (message.sender, destination(message), value)
            if not seen.add(key):
                shown = format_id(message.id) if header is None else f"{header} {value!r}"
                return Dead(Reason.DUPLICATE, f"{shown} came before")

            def forget_failure(outcome: Outcome) -> Outcome:
                if not isinstance(outcome, Accepted | Handled):
                    seen.forget(key)
                return outcome

            try:
                return then(handle(message), forget_failure)
            except BaseException:
                seen.forget(key)
                raise

        return handle_once

    return deduplicated


class _Seen:
    """At most `capacity` keys, the oldest forgotten first. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InvalidSettings(f"deduplicate: capacity must be 1 or more, not {capacity}")
        self._capacity = capacity
        self._keys: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, key: Hashable) -> bool:
        """False if it was there already."""
        with self._lock:
            if key in self._keys:
                return False
            self._keys[key] = None
            if len(self._keys) > self._capacity:
                self._keys.popitem(last=False)
            return True

    def forget(self, key: Hashable) -> None:
        with self._lock:
            self._keys.pop(key, None)
