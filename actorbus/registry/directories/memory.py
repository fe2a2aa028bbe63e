"""The directory of nodes that share one process."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from actorbus.errors import BusClosed, NameTaken
from actorbus.registry.directory import ChangeKind, DirectoryChange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.clock import Clock
    from actorbus.registry.entry import Entry

    Listener = Callable[[DirectoryChange], None]

_DEAD_AFTER: Final = 10.0


class _Offering:
    """Those who offer one capability, and the tuple of them until it changes."""

    __slots__ = ("entries", "listed")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.listed: tuple[Entry, ...] | None = None


class MemoryDirectory:
    """Two dicts, by name and by capability, behind one lock. Nothing outlives the process.

    Reading by capability copies nothing while nobody joins or leaves.
    """

    load_age: float = 0.0

    def __init__(self, clock: Clock, *, dead_after: float = _DEAD_AFTER) -> None:
        self._now = clock.monotonic
        self._dead_after = dead_after
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._offerings: dict[str, _Offering] = {}
        self._beats: dict[str, float] = {}
        self._last_beat = self._now()
        self._listeners: tuple[Listener, ...] = ()
        self._changes: deque[DirectoryChange] = deque()
        self._delivering = threading.Lock()

    def join(self, node: str) -> Mapping[str, float]:
        with self._lock:
            beaten = self._beats.get(node)
            if beaten is not None and self._now() - beaten < self._dead_after:
                raise NameTaken(node, what="node")
            self._remove_all(node)
            silences = self._beat(node)
        self._deliver()
        return silences

    def beat(self, node: str) -> Mapping[str, float]:
        with self._lock:
            return self._beat(node)

    def leave(self, node: str) -> None:
        with self._lock:
            self._beats.pop(node, None)
            self._remove_all(node)
        self._deliver()

    def register(self, entry: Entry) -> None:
        name, node = entry.member.name, entry.node
        with self._lock:
            if node not in self._beats:
                raise BusClosed(f"node {node!r} has not started, so {name!r} cannot join it")
            owner = self._entries.get(name)
            if owner is not None:
                if owner.member is entry.member and owner.node == node:
                    return
                if not self._is_dead(owner.node):
                    raise NameTaken(name, owner.node)
                self._remove(name, owner)
            self._add(name, entry)
        self._deliver()

    def unregister(self, name: str, node: str) -> None:
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None and entry.node == node:
                self._remove(name, entry)
        self._deliver()

    def get(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def members(self, capability: str | None = None) -> Sequence[Entry]:
        if capability is None:
            with self._lock:
                return tuple(self._entries.values())
        offering = self._offerings.get(capability)
        if offering is None:
            return ()
        listed = offering.listed
        if listed is None:
            with self._lock:
                listed = offering.listed = tuple(offering.entries.values())
        return listed

    def listen(self, listener: Listener) -> Callable[[], None]:
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop_listening() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop_listening

    def _beat(self, node: str) -> dict[str, float]:
        now = self._now()
        if now - self._last_beat > self._dead_after / 2:
            self._beats = dict.fromkeys(self._beats, now)
        self._beats[node] = self._last_beat = now
        return {name: now - beaten for name, beaten in self._beats.items()}

    def _is_dead(self, node: str) -> bool:
        """Whether others have beaten for so long without it. The lock is held."""
        return self._last_beat - self._beats[node] >= self._dead_after

    def _add(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry
        for capability in entry.capabilities:
            offering = self._offerings.get(capability)
            if offering is None:
                offering = self._offerings[capability] = _Offering()
            offering.entries[name] = entry
            offering.listed = None
        self._note(ChangeKind.JOINED, entry)

    def _remove(self, name: str, entry: Entry) -> None:
        del self._entries[name]
        for capability in set(entry.capabilities):
            offering = self._offerings[capability]
            del offering.entries[name]
            offering.listed = None
            if not offering.entries:
                del self._offerings[capability]
        self._note(ChangeKind.LEFT, entry)

    def _remove_all(self, node: str) -> None:
        for name, entry in list(self._entries.items()):
            if entry.node == node:
                self._remove(name, entry)

    def _note(self, kind: ChangeKind, entry: Entry) -> None:
        if self._listeners:
            self._changes.append(DirectoryChange(kind, entry))

    def _deliver(self) -> None:
        """Hand changes to the listeners: outside the lock, by one thread at a time.

        Whoever finds another thread at it leaves its change to that thread, which looks again
        after it has let go, so no change is left behind.
        """
        while self._changes and self._delivering.acquire(blocking=False):
            try:
                while self._changes:
                    change = self._changes.popleft()
                    for listener in self._listeners:
                        listener(change)
            finally:
                self._delivering.release()
