"""The contract of a dispatcher: what gives agents a thread or an event loop to run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.actors.cell import Cell


class Dispatcher(Protocol):
    """Gives scheduled agents their turns, one turn of an agent at a time."""

    submit: Callable[[Cell], object]
    """Give the cell a turn soon. From any thread; never blocks."""

    def close(self, timeout: float) -> list[str]:
        """End, waiting at most `timeout` seconds for turns under way. Idempotent.

        Returns the agents whose handlers did not return; their threads are left behind.
        """
