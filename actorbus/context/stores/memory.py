"""Shared state in the memory of this process. Several nodes may share one store.

Each namespace has a lock, the keys, and a log of its latest commits, from which watches read.
A key that was deleted keeps its history for as long as the log has the deletion, and after
that only its number, so that its versions never start again.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Final, ParamSpec, TypeVar, assert_never

from actorbus.context.store import (
    ABSENT,
    Change,
    Changes,
    Delete,
    Increment,
    Listening,
    Set,
    added,
    check_access,
    check_owner,
)
from actorbus.errors import VersionConflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.clock import Clock, Timer
    from actorbus.context.store import Commit, Operation, Rights

P = ParamSpec("P")
T = TypeVar("T")

_STALE_EXPIRIES: Final = 64
"""Expiries that no longer hold may be this many more than half before they are swept out."""


class MemoryStore:
    """A ``Store`` in memory. Values are kept by reference, so they are read-only once set.

    `history` is the versions kept of a key, `log` the commits kept of a namespace. The clock
    must live as long as the store.
    """

    blocks: ClassVar[bool] = False

    def __init__(self, clock: Clock, *, history: int = 100, log: int = 10_000) -> None:
        self._clock = clock
        self._history = history
        self._log = log
        self._spaces: dict[str, _Space] = {}

    def commit(self, namespace: str, commit: Commit) -> tuple[Change, ...]:
        space = self._writable(namespace, commit.author)
        return space.run(space.commit, commit)

    def read(self, namespace: str, key: str, principal: str | None) -> Change | None:
        space = self._readable(namespace, principal)
        return space.run(space.present, key)

    def scan(self, namespace: str, prefix: str, principal: str | None) -> tuple[Change, ...]:
        space = self._readable(namespace, principal)
        return space.run(space.scan, prefix)

    def history(self, namespace: str, key: str, principal: str | None) -> tuple[Change, ...]:
        space = self._readable(namespace, principal)
        return space.run(space.history, key)

    def changes(
        self, namespace: str, prefix: str, after: int, limit: int, principal: str | None
    ) -> Changes:
        space = self._readable(namespace, principal)
        return space.run(space.changes, prefix, after, limit)

    def listen(
        self, namespace: str, ring: Callable[[], object], principal: str | None
    ) -> Listening:
        self._readable(namespace, principal)
        space = self._made(namespace)
        revision = space.run(space.add_bell, ring)
        return Listening(revision, lambda: space.run(space.remove_bell, ring))

    def grant(
        self, namespace: str, grantee: str | None, rights: Rights | None, principal: str | None
    ) -> None:
        check_owner(namespace, principal)
        space = self._made(namespace)
        space.run(space.grant, grantee, rights)

    def _readable(self, namespace: str, principal: str | None) -> _Space:
        space = self._spaces.get(namespace) or self._new(namespace)
        check_access(namespace, principal, "read", space.grants)
        return space

    def _writable(self, namespace: str, principal: str | None) -> _Space:
        space = self._spaces.get(namespace)
        check_access(namespace, principal, "write", space.grants if space else {})
        return space or self._made(namespace)

    def _made(self, namespace: str) -> _Space:
        return self._spaces.get(namespace) or self._spaces.setdefault(
            namespace, self._new(namespace)
        )

    def _new(self, namespace: str) -> _Space:
        """An empty namespace: kept once it is written or listened to, not for being read."""
        return _Space(namespace, self._clock, self._history, self._log)


class _Space:
    """One namespace. Everything that touches it goes through ``run``."""

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_announced",
        "_bells",
        "_clock",
        "_expiries",
        "_forgotten",
        "_kept",
        "_keys",
        "_lock",
        "_log",
        "_log_size",
        "_name",
        "_retired",
        "_revision",
        "_ttls",
        "grants",
    )

    def __init__(self, name: str, clock: Clock, kept: int, log_size: int) -> None:
        self.grants: dict[str | None, Rights] = {}
        """Replaced, never changed, so that it can be read without the lock."""
        self._name = name
        self._clock = clock
        self._kept = kept
        self._lock = threading.Lock()
        self._keys: dict[str, list[Change]] = {}
        self._retired: dict[str, int] = {}  # deleted for good -> the version to go on from
        self._revision = 0
        self._log: deque[tuple[int, tuple[Change, ...]]] = deque()
        self._log_size = log_size
        self._forgotten = 0  # the latest revision that the log no longer has
        self._ttls: dict[str, float] = {}
        self._expiries: list[tuple[float, str]] = []  # a heap; what _ttls denies is stale
        self._alarm: Timer | None = None
        self._alarm_at = math.inf
        self._bells: tuple[Callable[[], object], ...] = ()
        self._announced = 0

    def run(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Act under the lock, after what is due has expired; then ring, if anything changed."""
        try:
            with self._lock:
                self._expire()
                return act(*args, **kwargs)
        finally:
            self._announce()

    def present(self, key: str) -> Change | None:
        versions = self._keys.get(key)
        if versions is None:
            return None
        latest = versions[-1]
        return None if latest.deleted else latest

    def history(self, key: str) -> tuple[Change, ...]:
        return tuple(self._keys.get(key, ()))

    def scan(self, prefix: str) -> tuple[Change, ...]:
        present = (
            versions[-1]
            for key, versions in self._keys.items()
            if key.startswith(prefix) and not versions[-1].deleted
        )
        return tuple(sorted(present, key=attrgetter("key")))

    def changes(self, prefix: str, after: int, limit: int) -> Changes:
        missed = Changes((), self._revision, complete=False)
        if after < self._forgotten:
            return missed
        found: list[Change] = []
        for revision, commit in reversed(self._log):
            if revision <= after:
                break
            found += [change for change in reversed(commit) if change.key.startswith(prefix)]
            if len(found) > limit:
                return missed
        return Changes(tuple(reversed(found)), self._revision, complete=True)

    def commit(self, commit: Commit) -> tuple[Change, ...]:
        for key, expected in commit.expected:
            present = self.present(key)
            version = ABSENT if present is None else present.version
            if version != expected:
                raise VersionConflict(self._name, key, expected, version)
        now = self._clock.now()
        planned = [
            (operation, self._plan(operation, commit.author, now))
            for operation in commit.operations
        ]
        # Up to here nothing was touched, so whatever was refused leaves no trace.
        done = []
        for operation, change in planned:
            if change is not None:
                self._keep(change)
                self._set_expiry(operation, now)
                done.append(change)
        changes = tuple(done)
        self._write(changes)
        return changes

    def grant(self, grantee: str | None, rights: Rights | None) -> None:
        others = {name: held for name, held in self.grants.items() if name != grantee}
        self.grants = others if rights is None else {**others, grantee: rights}

    def add_bell(self, ring: Callable[[], object]) -> int:
        self._bells = (*self._bells, ring)
        return self._revision

    def remove_bell(self, ring: Callable[[], object]) -> None:
        self._bells = tuple(bell for bell in self._bells if bell is not ring)

    def _announce(self) -> None:
        """Ring, where something changed since the last ring. The lock is not held.

        Two threads that race may ring once for both, or once too often, never too seldom:
        whoever notes a revision rings after it was written.
        """
        revision = self._revision
        if self._announced < revision:
            self._announced = revision
            for ring in self._bells:
                ring()

    def _expire(self) -> None:
        """Delete what has outlived its ttl, each key at the time it was due."""
        if not self._expiries or self._expiries[0][0] > (now := self._clock.now()):
            return
        while self._expiries and self._expiries[0][0] <= now:
            due, key = heapq.heappop(self._expiries)
            if self._ttls.get(key) == due:
                del self._ttls[key]
                change = Change(key, None, self._next_version(key), None, due, deleted=True)
                self._keep(change)
                self._write((change,))
        self._set_alarm()

    def _plan(self, operation: Operation, author: str | None, now: float) -> Change | None:
        key = operation.key
        match operation:
            case Set():
                return Change(key, operation.value, self._next_version(key), author, now)
            case Increment():
                value = added(self._name, operation, self.present(key))
                return Change(key, value, self._next_version(key), author, now)
            case Delete():
                if self.present(key) is None:
                    return None
                return Change(key, None, self._next_version(key), author, now, deleted=True)
            case _:
                assert_never(operation)

    def _next_version(self, key: str) -> int:
        versions = self._keys.get(key)
        return (versions[-1].version if versions else self._retired.get(key, 0)) + 1

    def _keep(self, change: Change) -> None:
        versions = self._keys.get(change.key)
        if versions is None:
            self._retired.pop(change.key, None)
            self._keys[change.key] = [change]
            return
        versions.append(change)
        if len(versions) > self._kept:
            del versions[0]

    def _write(self, changes: tuple[Change, ...]) -> None:
        if not changes:
            return
        self._revision += len(changes)
        self._log.append((self._revision, changes))
        if len(self._log) > self._log_size:
            self._forgotten, forgotten = self._log.popleft()
            for change in forgotten:
                if change.deleted:
                    self._retire(change)

    def _retire(self, deletion: Change) -> None:
        versions = self._keys.get(deletion.key)
        if versions is not None and versions[-1] is deletion:
            del self._keys[deletion.key]
            self._retired[deletion.key] = deletion.version

    def _set_expiry(self, operation: Operation, now: float) -> None:
        key = operation.key
        ttl = None if isinstance(operation, Delete) else operation.ttl
        if ttl is not None:
            self._ttls[key] = now + ttl
            heapq.heappush(self._expiries, (now + ttl, key))
            self._sweep()
            self._set_alarm()
        elif isinstance(operation, Delete) or (
            isinstance(operation, Set) and not operation.keep_ttl
        ):
            self._ttls.pop(key, None)

    def _sweep(self) -> None:
        if len(self._expiries) > 2 * len(self._ttls) + _STALE_EXPIRIES:
            self._expiries = [(due, key) for key, due in self._ttls.items()]
            heapq.heapify(self._expiries)

    def _set_alarm(self) -> None:
        """Have the clock call at the first expiry, so that watchers hear of it in time."""
        due = self._expiries[0][0] if self._expiries else math.inf
        if due >= self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._clock.call_at(due, self._on_alarm)

    def _on_alarm(self) -> None:
        self.run(self._answer_alarm)

    def _answer_alarm(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._set_alarm()
