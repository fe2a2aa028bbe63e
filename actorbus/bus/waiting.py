"""How code waits: the one place where a thread of ours blocks on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    Arm = Callable[[Callable[[], object]], bool]


class Settling(Protocol):
    """What may be waited for."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for any more."""


class Waiting(Protocol):
    """Blocks the calling thread, where that is allowed, and lets others run meanwhile."""

    def may_block(self) -> bool:
        """Whether this thread may block at all. On an event loop it may not."""

    def spin(self, awaited: Settling) -> bool:
        """Give way to other threads for a moment: is it `awaited` no longer?

        Less dear than sleeping, where it is likely to be settled at once.
        """

    def wait(self, arm: Arm, until: float | None) -> bool:
        """Block until something happened, at most until node time `until`.

        None: whoever waits has seen to it that something will happen. `arm` is given a
        callback to call once when it happens, from any thread; it returns False if there is
        nothing to wait for any more. True: it happened. False: time is up.

        Raises:
            PoolExhausted: no thread is left to do the work that is waited for.
        """
