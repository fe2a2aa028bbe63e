"""Which subscriptions a topic matches: pure matching, and a table that remembers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.where import Condition, matches
from actorbus.message import check_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REMEMBERED_TOPICS: Final = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One subscription: messages on topics like `pattern` that pass `where` go to `name`."""

    name: str
    pattern: str
    where: Mapping[str, Condition] | None = None


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether `topic` is one of those that `pattern` means.

    ``*`` stands for one token, ``>`` for one or more at the end.
    """
    wanted = pattern.split(".")
    tokens = topic.split(".")
    if wanted[-1] == ">":
        del wanted[-1]
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


class Router:
    """The subscriptions of one transport. Thread-safe.

    Topics that were asked for before are remembered, up to a bound, until a subscription
    changes: matching every pattern happens once per topic.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._routes: dict[Route, None] = {}
        self._remembered: dict[str, tuple[Route, ...]] = {}

    def add(self, route: Route) -> None:
        with self._lock:
            self._routes[route] = None
            self._remembered = {}

    def remove(self, route: Route) -> None:
        """Idempotent."""
        with self._lock:
            self._routes.pop(route, None)
            self._remembered = {}

    def forget(self, name: str) -> None:
        """Drop every subscription of `name`."""
        with self._lock:
            gone = [route for route in self._routes if route.name == name]
            for route in gone:
                del self._routes[route]
            if gone:
                self._remembered = {}

    def names(self, topic: str, payload: Any) -> Iterator[str]:
        """Who gets `payload` on `topic`: each name once."""
        seen: set[str] = set()
        for route in self.routes(topic):
            if route.name not in seen and matches(route.where, payload):
                seen.add(route.name)
                yield route.name

    def routes(self, topic: str) -> tuple[Route, ...]:
        """The subscriptions that `topic` matches, whatever they filter."""
        routes = self._remembered.get(topic)
        return self._match(topic) if routes is None else routes

    def _match(self, topic: str) -> tuple[Route, ...]:
        check_topic(topic)
        with self._lock:
            routes = tuple(route for route in self._routes if topic_matches(route.pattern, topic))
            if len(self._remembered) >= _REMEMBERED_TOPICS:
                self._remembered = {}
            self._remembered[topic] = routes
            return routes
