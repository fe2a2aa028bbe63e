"""How code waits: the one place where a thread of ours blocks on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.waker import Waker
    from actorbus.message import MessageId

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

    def wait(self, arm: Arm, until: float | None, *, answers: MessageId | None = None) -> bool:
        """Block until something happened, at most until node time `until`.

        None: whoever waits has seen to it that something will happen. `arm` is given a
        callback to call once when it happens, from any thread; it returns False if there is
        nothing to wait for any more. True: it happened. False: time is up. `answers`: a request
        of ours, whose answer from another node is what is waited for.

        Raises:
            PoolExhausted: no thread is left to do the work that is waited for.
        """


class Hearing(Protocol):
    """What comes to a node from others, for threads to hear that would be woken for it anyway."""

    def wait(self, arm: Arm, seconds: float | None, request: MessageId) -> bool | None:
        """``Waiting.wait`` for the answer to a request, for so many seconds.

        None: that cannot be done here, now.
        """

    def idle(self, waker: Waker, heard: Callable[[Callable[[], object]], bool]) -> None:
        """Sleep until `waker` rings, and hear what comes meanwhile.

        `heard` is called with what passes on what came, and says whether to sleep on. For one
        thread, always with the same `waker`.
        """
