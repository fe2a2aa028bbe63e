"""Death watch of agents on other nodes: the registry says who left, and with which node."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable
from actorbus.registry.directory import ChangeKind
from actorbus.registry.entry import AgentStatus
from actorbus.registry.watch import RegistryLagged

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.clock import Clock
    from actorbus.registry.registry import Registry
    from actorbus.registry.watch import RegistryChange

_LOOK_AGAIN: Final = 2.0
"""Seconds until an agent that moves is looked for again."""


class FarWatches:
    """Who on this node watches whom on others. Each is told once.

    An agent that other nodes may run has not stopped when its node is gone: whoever watches it
    is told once nobody will run it any more.

    Args:
        comes_back: whether an agent that runs nowhere will run again. It may take a round trip.
        is_known: whether an agent can be sent to, which the registry may hear of later.
        told: called with watcher, watched and reason.
        post: calls a function on a thread that may block.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        comes_back: Callable[[str], bool],
        is_known: Callable[[str], bool],
        told: Callable[[str, str, str], object],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._comes_back = comes_back
        self._is_known = is_known
        self._told = told
        self._post = post
        self._lock = threading.Lock()
        self._watchers: dict[str, set[str]] = {}
        self._nodes: dict[str, str] = {}
        self._listening = False

    def add(self, watcher: str, name: str) -> None:
        """Have `watcher` told once the agent of that name, on another node, has stopped."""
        with self._lock:
            self._watchers.setdefault(name, set()).add(watcher)
            begin, self._listening = not self._listening, True
        if begin:
            self._registry.watch(self._changed)
        # What happened before we listened.
        if self._registry.get(name) is None and self._is_known(name):
            self._look_later(name, "it has stopped")
        else:
            self._look(name, "it runs nowhere")

    def forget(self, watcher: str, name: str) -> None:
        """That watcher has stopped."""
        with self._lock:
            watchers = self._watchers.get(name, set())
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(name, None)
                self._nodes.pop(name, None)

    def _changed(self, change: RegistryChange | RegistryLagged) -> None:
        if isinstance(change, RegistryLagged):
            for name in list(self._watchers):
                self._look(name, "it has stopped")
            return
        about: Any = change.info
        if change.kind is ChangeKind.LEFT and about.name in self._watchers:
            self._look(about.name, "it has stopped")
        elif change.kind is ChangeKind.DEAD:
            with self._lock:
                gone = [name for name, node in self._nodes.items() if node == about.name]
            for name in gone:
                self._look(name, f"its node {about.name!r} died")

    def _look(self, name: str, reason: str) -> None:
        info = self._registry.get(name)
        if info is not None and info.status not in (AgentStatus.DEAD, AgentStatus.STOPPED):
            with self._lock:
                if name in self._watchers:
                    self._nodes[name] = info.node
            return
        try:
            moves = self._comes_back(name)
        except TransportUnavailable:
            moves = True  # nobody knows: look again
        if moves:
            self._look_later(name, reason)
            return
        with self._lock:
            watchers = self._watchers.pop(name, set())
            self._nodes.pop(name, None)
        for watcher in watchers:
            self._told(watcher, name, reason)

    def _look_later(self, name: str, reason: str) -> None:
        again = partial(self._post, partial(self._look_again, name, reason))
        self._clock.call_at(self._clock.now() + _LOOK_AGAIN, again)

    def _look_again(self, name: str, reason: str) -> None:
        if name in self._watchers:
            self._look(name, reason)
