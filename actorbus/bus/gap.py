"""What a subscriber missed, said once instead of passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gap:
    """Events `first` to `last` were dropped before this agent could have them, both included.

    The numbers count all events and broadcasts of the deployment, whatever their topic, so some
    of these may not have been meant for it. It arrives as a message, between what came before
    them and what comes after.
    """

    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1
