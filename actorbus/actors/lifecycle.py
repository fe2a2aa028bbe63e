"""The states of an agent, as a table one can read aloud."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(Enum):
    STARTING = "starting"
    """Spawned; ``on_start`` has not run yet."""
    RUNNING = "running"
    RETRYING = "retrying"
    """Waits out the back-off before a message is tried again."""
    RESTARTING = "restarting"
    """Waits out the back-off before a new instance is made."""
    ESCALATED = "escalated"
    """Waits for what its parent decides."""
    PARKED = "parked"
    """Failed too often; its mailbox is kept until ``unpark``."""
    STOPPED = "stopped"


NEXT_STATES: Final[Mapping[State, frozenset[State]]] = {
    State.STARTING: frozenset(
        {State.RUNNING, State.RESTARTING, State.ESCALATED, State.PARKED, State.STOPPED}
    ),
    State.RUNNING: frozenset(
        {State.RETRYING, State.RESTARTING, State.ESCALATED, State.PARKED, State.STOPPED}
    ),
    State.RETRYING: frozenset(
        {State.RUNNING, State.RESTARTING, State.ESCALATED, State.PARKED, State.STOPPED}
    ),
    State.RESTARTING: frozenset(
        {State.RUNNING, State.RESTARTING, State.ESCALATED, State.PARKED, State.STOPPED}
    ),
    State.ESCALATED: frozenset({State.RUNNING, State.RESTARTING, State.PARKED, State.STOPPED}),
    State.PARKED: frozenset({State.RUNNING, State.RESTARTING, State.STOPPED}),
    State.STOPPED: frozenset(),
}


def may_become(state: State, following: State) -> bool:
    """Whether an agent may go from one state to the other."""
    return following in NEXT_STATES[state]
