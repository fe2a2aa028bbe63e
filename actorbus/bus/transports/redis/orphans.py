"""Agents of dead nodes that run nowhere else.

Their inboxes are kept for a node of theirs that may come back, but not for ever; who asks them
hears at once that their node is gone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from actorbus.bus.transports.redis.letters import is_notes
from actorbus.bus.transports.redis.ownership import Fenced, OwnedBy, Reset
from actorbus.errors import OwnerLost
from actorbus.message import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.leftovers import Leftovers
    from actorbus.bus.transports.redis.log import InboxLog

_LOOK_AGAIN: Final = 30.0


class _Left(NamedTuple):
    """What a dead node left to nobody, and when to look for more."""

    agents: frozenset[str]
    look_at: float


class Orphans:
    """
    Args:
        leftovers: ends what waits for them.
        errands: does so, which may take long.
        node: this incarnation of the node.
        ttl: seconds without a sign of life after which a node is dead.
        kept: seconds after which what waits for them becomes dead letters.
        lost: called with such agents, again and again while their node is dead.
    """

    def __init__(
        self,
        log: InboxLog,
        node: str,
        *,
        leftovers: Leftovers,
        errands: Errands,
        ttl: float,
        kept: float,
        lost: Callable[[frozenset[str]], object],
    ) -> None:
        self._log = log
        self._node = node
        self._leftovers = leftovers
        self._errands = errands
        self._ttl = ttl
        self._kept = kept
        self._lost = lost
        self._left: dict[str, _Left] = {}

    def died(self, node: str) -> None:
        """Another node is dead, and still owns agents."""
        now = time.monotonic()
        left = self._left.get(node)
        if left is None or now >= left.look_at:
            left = _Left(self._left_by(node), now + _LOOK_AGAIN)
            self._left = {name: one for name, one in self._left.items() if one.look_at > now}
            self._left[node] = left
            self._end_old(node, left.agents)
        self._lost(left.agents)

    def _left_by(self, node: str) -> frozenset[str]:
        """The agents of a node that no other node may run, and its own inbox."""
        agents = self._log.owned(node)
        known = zip(agents, self._log.known(agents), strict=True)
        return frozenset(agent for agent, one in known if one is None or not one.spec)

    def _end_old(self, node: str, agents: frozenset[str]) -> None:
        over = self._log.silence(node) > self._kept
        for agent in agents:
            if over or is_notes(agent):
                self._errands.put(self._end, agent)

    def _end(self, agents: list[str]) -> None:
        for agent in agents:
            try:
                ownership = self._log.acquire(agent, self._node, ttl=self._ttl)
                if ownership.depth and not is_notes(agent):
                    self._leftovers.end(ownership, Reason.CRASHED_OWNER, OwnerLost(agent))
                self._log.drop(ownership, Reason.CRASHED_OWNER)
            except (OwnedBy, Fenced, Reset):
                continue  # another node was faster, or the server lost it
