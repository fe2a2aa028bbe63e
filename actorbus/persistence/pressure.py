"""What the writer of history does next, decided from how things stand.

Order is kept by one rule: what is on disk is older than what is in memory. So while anything
is spilled the database is fed from the spill, and memory goes to the database only once the
spill is empty, or behind it onto the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

CROWDED: Final = 0.7
"""The part of the ring that may fill before it is spilled."""


class Health(StrEnum):
    """How a history stands, in a word."""

    OK = "ok"
    STALLED = "stalled"
    """The database fails, and records wait in memory."""
    SPILLING = "spilling"
    """Records wait on disk."""
    BLOCKED = "blocked"
    """Nothing takes more records: senders wait, then fail."""


class Step(Enum):
    WRITE = auto()
    """Give the database what has waited in memory longest; wait for it to come."""
    DRAIN = auto()
    """Give the database what was spilled first."""
    SPILL = auto()
    """Put all that is in memory behind what is on disk."""
    REST = auto()
    """Wait before the database is tried again."""
    LEAVE = auto()


@dataclass(slots=True)
class Trouble:
    """What keeps the writer from writing. The writer says so, and anybody may read it."""

    database: str | None = None
    disk: str | None = None
    blocked: bool = False
    """Whether the database fails and nothing else takes records."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.database, self.disk))) or "the writer is behind"


@dataclass(frozen=True, slots=True)
class Situation:
    """``rested``: the pause after the last failure is over. ``disk``: a spill takes more."""

    failing: bool
    rested: bool
    disk: bool
    spilled: bool
    waiting: int
    limit: int
    closing: bool
    abandoned: bool

    @property
    def crowded(self) -> bool:
        return self.waiting >= self.limit * CROWDED

    def next(self) -> Step:
        if self._must_spill():
            return Step.SPILL
        if self.abandoned or (self.closing and self.failing and not self.waiting):
            return Step.LEAVE
        if self.failing and not self.rested:
            return Step.REST
        return Step.DRAIN if self.spilled else Step.WRITE

    def health(self) -> Health:
        if not self.failing:
            return Health.SPILLING if self.spilled else Health.OK
        if self.waiting >= self.limit and not self.disk:
            return Health.BLOCKED
        return Health.SPILLING if self.spilled else Health.STALLED

    def _must_spill(self) -> bool:
        if not (self.disk and self.waiting):
            return False
        if self.failing:
            return self.crowded or self.closing or (self.spilled and not self.rested)
        return self.abandoned or (self.spilled and self.crowded)
