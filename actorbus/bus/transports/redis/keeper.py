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

from actorbus.bus.transports.redis.log import OwnedBy
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actorbus.bus.transports.redis.log import InboxLog, Ownership

_BEATS_A_TTL: Final = 5
_TICK: Final = 1.0
_CLAIMS_A_ROUND: Final = 500
"""So that the survivors are not buried under a dead node's agents."""


class Keeper:
    """The node's word that it lives. Safe from any thread.

    Args:
        ttl: seconds without a beat after which a node is dead.
        wants: which of these agents this node would run.
        died: called with each node that is dead and still owns agents, again and again.
        adopt: called with each agent that became this node's. It must be quick.
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
        adopt: Callable[[Ownership], object] = lambda _: None,
        died: Callable[[str], object] = lambda _: None,
        beaten: Callable[[], object] = lambda: None,
        failed: Callable[[TransportUnavailable], object] = lambda _: None,
    ) -> None:
        self._log = log
        self._node = node
        self._ttl = ttl
        self._wants = wants
        self._adopt = adopt
        self._died = died
        self._told = beaten
        self._failed = failed
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
        wanted = self._wants(list(agents))
        if not wanted:
            return 0
        claimed = 0
        for ownership in self._log.acquire_many(wanted, self._node, ttl=self._ttl):
            if not isinstance(ownership, OwnedBy) and ownership.fresh:
                self._adopt(ownership)
                claimed += 1
        return claimed

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
        next_beat = next_tick = 0.0
        while True:
            now = time.monotonic()
            try:
                if now >= next_beat:
                    next_beat = now + self._ttl / _BEATS_A_TTL * random.uniform(0.9, 1.0)
                    self._beat()
                if now >= next_tick:
                    next_tick = now + self._tick()
            except TransportUnavailable as error:
                # The first thing to do once Redis is back.
                next_beat = 0.0
                self._failed(error)
                if self._over.wait(random.uniform(0.05, 0.5)):
                    return
            if self._hurried.wait(max(0.0, min(next_beat, next_tick) - time.monotonic())):
                self._hurried.clear()
                next_tick = 0.0
            if self._over.is_set():
                return

    def _beat(self) -> None:
        dead = self._log.beat(self._node, ttl=self._ttl)
        self._beaten = time.monotonic()
        self._told()
        for node in dead:
            self._died(node)
            self.claim(self._some(self._log.owned(node)))

    def _tick(self) -> float:
        """Put what is due into its inbox, and see who was given up; seconds until the next."""
        _, wait = self._log.tick()
        self.claim(self._some(self._log.ready(None)))
        pause = _TICK * random.uniform(0.8, 1.0)
        return pause if wait is None else min(pause, wait)

    def _some(self, agents: list[str]) -> list[str]:
        """Some of them, others on every node: they share instead of racing for each."""
        random.shuffle(agents)
        return agents[:_CLAIMS_A_ROUND]
