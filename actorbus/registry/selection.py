"""Least busy, without the herd.

Whoever sends each message to the one with the least load sends them all to the same one for as
long as the figures are old: on loads reported once a second, messages waited 150 times longer
than here. *Power of two choices* looks at two candidates picked at random and takes the
lighter one (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). It
costs the same for two candidates as for ten thousand. Where loads are old, the sender adds
what it has itself sent since (*local increments*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from actorbus.registry.entry import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from random import Random

T = TypeVar("T", bound="Hashable")

_TIER: Final = 1 << 48
"""More than any load, so that a better tier always weighs less."""

_GONE: Final = 3 * _TIER
_TIERS: Final = {
    AgentStatus.STARTING: 0,
    AgentStatus.BUSY: 0,
    AgentStatus.IDLE: 0,
    AgentStatus.SUSPECT: _TIER,
    AgentStatus.PARKED: 2 * _TIER,
    AgentStatus.DEAD: _GONE,
    AgentStatus.STOPPED: _GONE,
}


def weight(status: AgentStatus, load: int) -> int:
    """How much speaks against an agent: first its status, then its load.

    A suspect one is better than a parked one, whose messages wait until somebody unparks it.
    """
    return _TIERS.get(status, _TIER) + load


def gone(status: AgentStatus) -> bool:
    """Whether nothing should be sent to an agent that stands so, whatever its load."""
    return _TIERS.get(status, 0) >= _GONE


class PowerOfTwo(Generic[T]):
    """Chooses by `weigh`; a lower tier only where no better one is left, a gone one never.

    `load_age` is how old the loads may be, in seconds; on live ones (0.0) nothing is added.
    """

    __slots__ = ("_load_age", "_now", "_random", "_sent", "_until", "_weigh")

    def __init__(
        self,
        weigh: Callable[[T], int],
        random: Random,
        *,
        load_age: float,
        now: Callable[[], float],
    ) -> None:
        self._weigh = weigh
        self._random = random.random
        self._load_age = load_age
        self._now = now
        self._until = 0.0
        self._sent: dict[T, int] = {}

    def choose(self, candidates: Sequence[T]) -> T | None:
        """The lighter of two; None if there is no candidate that is not gone."""
        if not candidates:
            return None
        if self._load_age:
            self._forget_reported()
        chosen, lightest = self._lighter_of_two(candidates)
        if lightest >= _TIER:
            weights = [self._weigh(one) for one in candidates]
            best = min(weights)
            if best >= _GONE:
                return None
            limit = best - best % _TIER + _TIER
            chosen, _ = self._lighter_of_two(
                [one for one, its in zip(candidates, weights, strict=True) if its < limit]
            )
        if self._load_age:
            self._sent[chosen] = self._sent.get(chosen, 0) + 1
        return chosen

    def _lighter_of_two(self, candidates: Sequence[T]) -> tuple[T, int]:
        count = len(candidates)
        first = int(self._random() * count)
        one = candidates[first]
        weight_of_one = self._effective_weight(one)
        if count == 1:
            return one, weight_of_one
        other = candidates[(first + 1 + int(self._random() * (count - 1))) % count]
        weight_of_other = self._effective_weight(other)
        if weight_of_other < weight_of_one:
            return other, weight_of_other
        return one, weight_of_one

    def _effective_weight(self, candidate: T) -> int:
        return self._weigh(candidate) + self._sent.get(candidate, 0)

    def _forget_reported(self) -> None:
        """What was sent longer ago than a report may be old is part of the report by now."""
        now = self._now()
        if now >= self._until:
            self._until = now + self._load_age
            self._sent.clear()
