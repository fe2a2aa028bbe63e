"""Keeps a node alive in the eyes of the others, and takes over from those that are not.

One thread that runs nobody's code but `adopt` and `wants`: it beats five times a ttl, has what
is due put into its inboxes, and claims agents that nobody keeps: those of dead nodes, and those
that somebody gave up. Who is dead the server decides, by its own time, the same for everybody.

A node that could not beat for a ttl is ``late``: others may have taken its agents, so it should
begin nothing new until it has beaten again. Safety does not depend on it, the fencing token
sees to that; fewer messages run twice.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.ownership import OwnedBy
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.ownership import Ownership

_BEATS_A_TTL: Final = 5
_TICK: Final = 1.0
_CLAIMS_A_ROUND: Final = 500
_BREATH: Final = 0.05
"""Seconds between two rounds: so that the survivors share a dead node's agents."""


class Keeper:
    """The node's word that it lives. Safe from any thread.

    Args:
        ttl: seconds without a beat after which a node is dead.
        wants: which of these agents this node would run, and does not run or make already.
        strays: which of these agents, this node's by what the server says, nobody here knows of.
        died: called with each node that is dead and still owns agents, again and again.
        adopt: called with each agent that became this node's. It must be quick.
        is_busy: whether so many were adopted that others should have the next ones.
        beaten: called after each beat that the server has taken.
        failed: called with what went wrong, when Redis is away; it goes on trying.
    """

    def __init__(
        self,
        log: InboxLog,
        node: str,
        *,
        ttl: float = 10.0,
        wants: Callable[[list[str]], list[str]] = lambda _: [],
        strays: Callable[[list[str]], list[str]] = lambda _: [],
        adopt: Callable[[Ownership], object] = lambda _: None,
        is_busy: Callable[[], bool] = lambda: False,
        died: Callable[[str], object] = lambda _: None,
        beaten: Callable[[], object] = lambda: None,
        failed: Callable[[TransportUnavailable], object] = lambda _: None,
    ) -> None:
        self._log = log
        self._node = node
        self._ttl = ttl
        self._wants = wants
        self._strays = strays
        self._adopt = adopt
        self._is_busy = is_busy
        self._died = died
        self._told = beaten
        self._failed = failed
        self._estates: dict[str, _Estate] = {}
        """What dead nodes left."""
        self._doubtful: list[str] = []
        """Agents that may have become ours by a call whose answer was lost."""
        self._strayed: set[str] = set()
        """Those that had strayed when that was last looked at."""
        self._over = threading.Event()
        self._hurried = threading.Event()
        self._beaten = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="actorbus-keeper", daemon=True)

    def start(self) -> None:
        """Join, and go on beating.

        Raises:
            TransportUnavailable: Redis cannot be reached.
        """
        self._log.beat(self._node, ttl=self._ttl)
        self._beaten = time.monotonic()
        self._thread.start()

    @property
    def late(self) -> bool:
        """Whether the others may think that this node is dead."""
        return time.monotonic() - self._beaten > self._ttl

    def claim(self, agents: Iterable[str]) -> int:
        """Become the owner of those that are wanted here and nobody's; how many that were."""
        # Those of a call whose answer was lost may be ours, and would be nobody's care.
        wanted = self._wants(list(dict.fromkeys([*self._doubtful, *agents])))
        self._doubtful = wanted
        if not wanted:
            return 0
        told = self._log.acquire_many(wanted, self._node, ttl=self._ttl)
        self._doubtful = []
        claimed = [one for one in told if not isinstance(one, OwnedBy)]
        for ownership in claimed:
            self._adopt(ownership)
        return len(claimed)

    def look_for_strays(self) -> None:
        """Run agents that the server says are this node's, and that have not been here for long.

        Nobody else will, as their owner lives. They came to that where Redis went away in the
        middle of making one, or of giving it up.
        """
        strayed = set(self._strays(self._log.owned(self._node)))
        found, self._strayed = strayed & self._strayed, strayed
        if found:
            self.claim(found)

    def hurry(self) -> None:
        """Somebody may wait for an owner: look soon."""
        self._hurried.set()

    def close(self, *, leave: bool = True) -> None:
        """Stop beating; `leave`: and say so, if Redis listens. Agents are to be given up before."""
        self._over.set()
        self._hurried.set()
        if self._thread.ident is not None:
            self._thread.join(10.0)
        if leave:
            try:
                self._log.leave(self._node, ttl=self._ttl)
            except TransportUnavailable as error:
                self._failed(error)

    def _run(self) -> None:
        next_beat = next_tick = next_claim = 0.0
        next_look = time.monotonic() + self._ttl
        while True:
            now = time.monotonic()
            try:
                if now >= next_beat:
                    next_beat = now + self._ttl / _BEATS_A_TTL * random.uniform(0.9, 1.0)
                    self._beat()
                    next_claim = 0.0
                if now >= next_claim:
                    next_claim = now + self._claim_some()
                if now >= next_tick:
                    next_tick = now + self._tick()
                if now >= next_look:
                    next_look = now + self._ttl
                    self.look_for_strays()
            except TransportUnavailable as error:
                # The first thing to do once Redis is back.
                next_beat = 0.0
                self._failed(error)
                if self._over.wait(random.uniform(0.05, 0.5)):
                    return
            if self._hurried.wait(
                max(0.0, min(next_beat, next_tick, next_claim) - time.monotonic())
            ):
                self._hurried.clear()
                next_tick = 0.0
            if self._over.is_set():
                return

    def _beat(self) -> None:
        dead = self._log.beat(self._node, ttl=self._ttl)
        self._beaten = time.monotonic()
        self._told()
        self._estates = {node: self._estates.get(node) or _Estate() for node in dead}
        for node in dead:
            self._died(node)

    def _claim_some(self) -> float:
        """Claim some of what each dead node left; seconds until there may be more to do.

        All of it is looked through at once, a round after another, and later again: as much a
        beat as one round is.
        """
        if self._is_busy():
            return _BREATH
        for node, estate in self._estates.items():
            now = time.monotonic()
            if not estate.unseen and now >= estate.look_at:
                estate.unseen = self._mixed(self._log.owned(node))
                rounds = max(1, len(estate.unseen) / _CLAIMS_A_ROUND)
                estate.look_at = now + rounds * 0.9 * self._ttl / _BEATS_A_TTL
            self.claim(estate.unseen[:_CLAIMS_A_ROUND])
            del estate.unseen[:_CLAIMS_A_ROUND]
        return _BREATH if any(one.unseen for one in self._estates.values()) else self._ttl

    def _tick(self) -> float:
        """Put what is due into its inbox, and see who was given up; seconds until the next."""
        _, wait = self._log.tick()
        pause = _TICK * random.uniform(0.8, 1.0)
        if self._is_busy():
            pause = _BREATH
        else:
            nobodys = self._mixed(self._log.ready(None))
            if self.claim(nobodys[:_CLAIMS_A_ROUND]) and len(nobodys) > _CLAIMS_A_ROUND:
                pause = _BREATH
        return pause if wait is None else min(pause, wait)

    def _mixed(self, agents: list[str]) -> list[str]:
        """In another order on every node: they share instead of racing for each."""
        random.shuffle(agents)
        return agents


class _Estate:
    """The agents of a dead node that were not looked at yet, and when to look for more."""

    __slots__ = ("look_at", "unseen")

    def __init__(self) -> None:
        self.unseen: list[str] = []
        self.look_at = 0.0
