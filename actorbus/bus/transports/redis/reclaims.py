"""What is ours is had again from a server that lost it; what is another's by now, let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorbus.bus.transports.redis.ownership import OwnedBy

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.transports.redis.consumer import Consumer
    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.reading import Reading
    from actorbus.bus.transports.redis.receiver import Arrivals
    from actorbus.bus.transports.redis.stays import Stay, Stays


class Reclaims:
    """
    Args:
        node: this incarnation of the node.
        ttl: seconds without a sign of life after which a node is dead.
        forgotten: called when the server may have lost more than these.
        gone: called with an agent that another node owns now.
    """

    def __init__(
        self,
        log: InboxLog,
        stays: Stays,
        *,
        node: str,
        ttl: float,
        consumer: Consumer,
        errands: Errands,
        forgotten: Callable[[], object],
        gone: Callable[[str], object],
    ) -> None:
        self._log = log
        self._stays = stays
        self._node = node
        self._ttl = ttl
        self._consumer = consumer
        self._errands = errands
        self._forgotten = forgotten
        self._gone = gone

    def put(self, arrivals: Arrivals, reading: Reading) -> None:
        """An agent is not ours any more, says the server."""
        self._errands.put(self._reclaim, (arrivals, reading))

    def _reclaim(self, lost: list[tuple[Arrivals, Reading]]) -> None:
        """Own agents again that the server knows nobody of: it lost what it had. Else let go."""
        known = self._log.known([one.stay.agent for one, _ in lost])
        if None in known:
            self._forgotten()
        for (one, reading), found in zip(lost, known, strict=True):
            stay = one.stay
            if self._stays.here.get(stay.agent) is not stay:
                continue
            if self._stays.leaving or (found is not None and found.node not in ("", self._node)):
                self._let_go(stay)
                continue
            try:
                stay.ownership = self._log.acquire(
                    stay.agent, self._node, ttl=self._ttl, terms=stay.terms
                )
            except OwnedBy:
                self._let_go(stay)
            else:
                self._consumer.read(stay.ownership, one, most=stay.most, after=reading)

    def _let_go(self, stay: Stay) -> None:
        """Another node owns the agent now."""
        stay.goes_on = True
        self._stays.end(stay)
        self._gone(stay.agent)
        owner = stay.inbox.owner
        if owner is not None:
            owner.stop(reason="another node owns it now")
