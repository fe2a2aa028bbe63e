"""Watching the registry: each change in order, and an honest word where some were skipped."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from actorbus.telemetry import WatcherFailed, WatcherLagged

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.registry.directory import ChangeKind
    from actorbus.registry.entry import AgentInfo
    from actorbus.telemetry import Telemetry

_TURN: Final = 64
"""Changes a watcher gets before the others have their turn."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node, as it stood at a change. ``last_heartbeat`` is node time, in seconds."""

    name: str
    last_heartbeat: float


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """An agent ``joined`` or ``left``, or a node, with all its agents, is ``suspect``, ``dead``
    or ``back``: one change a node, however many agents run there."""

    kind: ChangeKind
    info: AgentInfo | NodeInfo


@dataclass(frozen=True, slots=True)
class RegistryLagged:
    """The watcher was too far behind: `count` changes were skipped here. Read again."""

    count: int


class Watch:
    """One watcher: later changes in order, one call at a time, no duplicate, no silent gap.

    A watcher more than `limit` changes behind loses them all and is told so once.
    """

    def __init__(
        self,
        callback: Callable[[RegistryChange | RegistryLagged], object],
        *,
        post: Callable[[Callable[[], None]], None],
        limit: int,
        telemetry: Telemetry,
        on_cancel: Callable[[Watch], None],
    ) -> None:
        self.name = f"registry:{getattr(callback, '__qualname__', repr(callback))}"
        self._callback = callback
        self._post = post
        self._limit = limit
        self._telemetry = telemetry
        self._on_cancel = on_cancel
        self._lock = threading.Lock()
        self._waiting: deque[RegistryChange] = deque()
        self._missed = 0
        self._posted = False
        self._cancelled = False

    def cancel(self) -> None:
        """Call back no more, except that a call under way ends. Idempotent, from any thread."""
        with self._lock:
            self._cancelled = True
            self._waiting.clear()
            self._missed = 0
        self._on_cancel(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()

    def offer(self, change: RegistryChange) -> None:
        """Put a change behind those that wait. Never blocks."""
        with self._lock:
            if self._cancelled:
                return
            if len(self._waiting) < self._limit:
                self._waiting.append(change)
            else:
                self._missed += len(self._waiting) + 1
                self._waiting.clear()
            if self._posted:
                return
            self._posted = True
        self._post(self._deliver)

    def _deliver(self) -> None:
        for _ in range(_TURN):
            change = self._next()
            if change is None:
                return
            self._call(change)
        self._post(self._deliver)

    def _next(self) -> RegistryChange | RegistryLagged | None:
        with self._lock:
            if self._missed:
                missed, self._missed = self._missed, 0
                return RegistryLagged(missed)
            if self._waiting:
                return self._waiting.popleft()
            self._posted = False
            return None

    def _call(self, change: RegistryChange | RegistryLagged) -> None:
        if isinstance(change, RegistryLagged):
            self._telemetry.emit(WatcherLagged(self.name, change.count))
        try:
            self._callback(change)
        except BaseException as error:  # noqa: BLE001 - a watcher must not end the others
            self._telemetry.emit(WatcherFailed(self.name, error))
