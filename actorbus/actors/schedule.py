"""What an agent tells itself again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.clock import Timer


class Schedule:
    """A payload that an agent tells itself again and again."""

    __slots__ = ("_send", "_timer", "every")

    def __init__(self, every: float, send: Callable[[], bool]) -> None:
        self.every = every
        self._send: Callable[[], bool] | None = send
        self._timer: Timer | None = None

    def start(self, call_at: Callable[[float, Callable[[], object]], Timer], now: float) -> None:
        """Have the next one sent one period from `now`; missed ones are not made up."""

        def due() -> None:
            if self._send is None:
                return
            if self._send():
                self.start(call_at, now + self.every)
            else:
                self.cancel()

        self._timer = call_at(now + self.every, due)

    @property
    def cancelled(self) -> bool:
        return self._send is None

    def cancel(self) -> None:
        """Send no more. Idempotent."""
        self._send = None
        if self._timer is not None:
            self._timer.cancel()
