"""The contract of a dispatcher: what gives agents a thread or an event loop to run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from actorbus.actors.cell import Cell


class Dispatcher(Protocol):
    """Gives agents in its run queue their turns, one turn of an agent at a time.

    A mailbox wakes its agent by ``enqueue`` and then ``nudge``, from any thread. They are two
    because Ctrl-C may come between any two steps of a sender on the main thread.
    """

    enqueue: Callable[[Cell], object]
    """Put the cell into the run queue. A method of a C type, which is either done or not."""

    queued: Sized
    """Who waits for a turn. While nobody does, a turn may be longer than an agent's share."""

    nudge: Callable[[], object]
    """Have somebody see to the run queue. Never blocks; once too often does no harm."""

    def close(self, timeout: float) -> list[str]:
        """End, waiting at most `timeout` seconds for turns under way. Idempotent.

        Returns the agents whose handlers did not return; their threads are left behind.
        """


def no_nudge() -> None:
    """For a run queue that somebody looks at anyway."""
