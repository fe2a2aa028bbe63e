"""What happens to an agent whose handler failed: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

from actorbus.errors import InvalidSettings, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

OnFailure = Literal["resume", "restart", "stop", "escalate"]


class Directive(StrEnum):
    """What supervision decides."""

    RESUME = "resume"
    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"
    PARK = "park"


_ON_FAILURE: Final = ("resume", "restart", "stop", "escalate")


@dataclass(frozen=True, slots=True)
class Supervision:
    """What to do when a handler raises on a tell. Times are in seconds.

    First the message is retried ``retries`` times, then it becomes a dead letter and
    ``on_failure`` decides about the agent: ``resume`` with the state it has, ``restart`` with
    a new instance on the same mailbox, ``stop`` it, or ``escalate`` to the parent. More than
    ``max_restarts`` restarts ``within`` so many seconds, and the agent is parked. Between
    retries and restarts lies a back-off that doubles from ``backoff`` to ``backoff_limit``,
    with full jitter.

    Raises:
        InvalidSettings: a value that cannot be meant.
    """

    on_failure: OnFailure = "restart"
    max_restarts: int = 5
    within: float = 30.0
    retries: int = 0
    backoff: float = 0.1
    backoff_limit: float = 30.0

    def __post_init__(self) -> None:
        if self.on_failure not in _ON_FAILURE:
            raise InvalidSettings(
                f"supervision on_failure is one of {', '.join(_ON_FAILURE)},"
                f" not {self.on_failure!r}.{did_you_mean(str(self.on_failure), _ON_FAILURE)}"
            )
        for name in ("max_restarts", "retries"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidSettings(f"supervision {name} must be 0 or more, not {value!r}")
        for name in ("within", "backoff", "backoff_limit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InvalidSettings(f"supervision {name} must be above 0 s, not {value!r}")


def decide(policy: Supervision, restarts: Sequence[float], now: float) -> Directive:
    """What to do about a failure at `now`, given when the agent was restarted before."""
    if policy.on_failure == "restart" and len(recent(policy, restarts, now)) >= policy.max_restarts:
        return Directive.PARK
    return Directive(policy.on_failure)


def recent(policy: Supervision, restarts: Sequence[float], now: float) -> list[float]:
    """Those restarts that still count at `now`."""
    return [at for at in restarts if at > now - policy.within]


def backoff(policy: Supervision, attempt: int, random: Random) -> float:
    """Seconds to wait before attempt number `attempt` (from 1): exponential, full jitter.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(policy.backoff_limit, policy.backoff * 2 ** min(attempt - 1, 32))
    return random.uniform(0, ceiling)
