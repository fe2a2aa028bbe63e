"""Topics: where events are published, and who gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.bus.routing import Route
from actorbus.bus.where import compiled
from actorbus.message import Priority, check_pattern, check_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.actors.runtime import Runtime
    from actorbus.bus.where import Where


class Topic:
    """Where events are published."""

    __slots__ = ("_runtime", "name")

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self.name = check_topic(name)

    def publish(
        self,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Send to every subscriber but the sender; how many local recipients took it."""
        return self._runtime.publish(
            self.name, payload, priority=priority, ttl=ttl, headers=headers
        )


class Subscription:
    """One subscription of one recipient. A context manager that ends it."""

    __slots__ = ("_route", "_runtime")

    def __init__(self, runtime: Runtime, route: Route) -> None:
        self._runtime = runtime
        self._route = route

    @property
    def pattern(self) -> str:
        return self._route.pattern

    @property
    def name(self) -> str:
        """Who gets the events."""
        return self._route.name

    def cancel(self) -> None:
        """In effect when this returns. Idempotent."""
        self._runtime.bus.transport.unsubscribe(self._route)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


def subscribe(runtime: Runtime, name: str, pattern: str, where: Where | None) -> Subscription:
    """Subscribe whoever has `name`.

    Raises:
        InvalidArgument: not a pattern, or not a filter.
    """
    route = Route(name, check_pattern(pattern), compiled(where))
    runtime.bus.transport.subscribe(route)
    return Subscription(runtime, route)
