"""Who gets an entry of the log, among the agents of this node.

A subscription that was made while its agent ran begins at a point of its own, which the server
gave; one that comes with the agent's class begins where the agent does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.routing import Route, Router, topic_matches
from actorbus.bus.transports.redis.topics.log import START
from actorbus.bus.where import Condition, matches
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from actorbus.bus.transports.redis.topics.log import Entry, Point
    from actorbus.codec import Codec

_NOTHING: Final = object()


class Audience:
    """The subscriptions of a node. Safe from any thread.

    Args:
        payload: gives the payload of an entry, asked for at most once an entry, and only where a
            filter wants to see it; what raises ``Undecodable`` passes none.
    """

    def __init__(self, payload: Callable[[Entry], Any]) -> None:
        self._payload = payload
        self._lock = threading.Lock()
        self._router = Router()
        self._of: dict[str, dict[Route, Point]] = {}
        """Each agent's subscriptions, and since when."""

    def add(self, route: Route, since: Point = START) -> None:
        """Subscribe to what comes after `since`."""
        with self._lock:
            self._of.setdefault(route.name, {})[route] = since
            self._router.add(route)

    def remove(self, route: Route) -> bool:
        """Whether the agent has no other like it. Idempotent."""
        with self._lock:
            mine = self._of.get(route.name, {})
            mine.pop(route, None)
            self._router.remove(route)
            return not any(is_like(one, route) for one in mine)

    def forget(self, agent: str) -> None:
        with self._lock:
            for route in self._of.pop(agent, {}):
                self._router.remove(route)

    def of(self, agent: str) -> dict[Route, Point]:
        """The subscriptions of an agent, and since when."""
        with self._lock:
            return dict(self._of.get(agent, {}))

    def rewind(self, to: Point) -> None:
        """What comes after `to` has not been there yet."""
        with self._lock:
            for mine in self._of.values():
                mine.update({route: min(since, to) for route, since in mine.items()})

    def names(self, entry: Entry, everybody: Collection[str]) -> Iterator[str]:
        """Who gets `entry`, each once; `everybody` gets a broadcast. Never its sender."""
        if entry.topic is None:
            yield from (name for name in everybody if name != entry.sender)
            return
        payload: Any = _NOTHING
        seen = {entry.sender}
        for route in self._router.routes(entry.topic):
            if route.name in seen or entry.point.number <= self._since(route):
                continue
            if route.where is not None and payload is _NOTHING:
                payload = self._read(entry)
            if matches(route.where, payload):
                seen.add(route.name)
                yield route.name

    def wants(self, agent: str, entry: Entry) -> bool:
        """Whether one agent gets `entry`."""
        if agent == entry.sender or entry.topic is None:
            return agent != entry.sender
        routes = [
            route
            for route, since in self.of(agent).items()
            if since.number < entry.point.number and topic_matches(route.pattern, entry.topic)
        ]
        if not routes or any(route.where is None for route in routes):
            return bool(routes)
        payload = self._read(entry)
        return any(matches(route.where, payload) for route in routes)

    def _since(self, route: Route) -> int:
        return self._of.get(route.name, {}).get(route, START).number

    def _read(self, entry: Entry) -> Any:
        try:
            return self._payload(entry)
        except Undecodable:
            return None


def written(route: Route, codec: Codec) -> bytes:
    """A subscription as the server keeps it; the same for the same pattern and filter.

    Raises:
        UnsupportedPayload: the filter holds a value that cannot be carried.
    """
    where = route.where or {}
    conditions = [[field, one.test, one.value] for field, one in sorted(where.items())]
    return codec.encode_payload([route.pattern, conditions])


def read_back(agent: str, data: bytes, codec: Codec) -> Route:
    """The subscription that was ``written``.

    Raises:
        Undecodable: it is none.
    """
    try:
        pattern, conditions = codec.decode_payload(data)
        where = {str(field): Condition(str(test), value) for field, test, value in conditions}
        return Route(agent, str(pattern), where or None)
    except (TypeError, ValueError) as error:
        raise Undecodable(f"no subscription: {type(error).__name__}") from None


def is_like(one: Route, other: Route) -> bool:
    """Whether two subscriptions give the same agent the same."""
    return (one.name, one.pattern, one.where) == (other.name, other.pattern, other.where)
