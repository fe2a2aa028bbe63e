"""Shared state, as agents and their users see it: keys with values, in namespaces.

A context is a view: a store, a namespace, and the agent for which it acts. Views are cheap, and
all views of one namespace see the same keys. In memory values are shared by reference, so they
are read-only once set: set a new one instead of changing the old.

What private namespaces keep out is mistakes. Code that means to can act for any agent, as all
code in one process can.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actorbus.context.aio import AsyncContext
from actorbus.context.arguments import (
    check_amount,
    check_callback,
    check_function,
    check_key,
    check_keys,
    check_mapping,
    check_namespace,
    check_once,
    check_prefix,
    check_principal,
    check_rights,
    check_ttl,
    check_version,
)
from actorbus.context.store import ABSENT, GLOBAL, Commit, Delete, Increment, Set, owner_of
from actorbus.context.watch import Watches
from actorbus.errors import InvalidOperation, VersionConflict, VersionNotKept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actorbus.context.store import Change, Operation, Rights, Store
    from actorbus.context.watch import Lagged, Post, Watch
    from actorbus.telemetry import Telemetry

_UPDATE_ATTEMPTS: Final = 1_000
"""Each attempt that fails means that another write went through, so this is far from any luck."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value and the version it is; ``at`` is node time. An absent key is None at version 0."""

    value: Any
    version: int
    author: str | None
    at: float


class Context:
    """One namespace of shared state, seen by one agent or by code outside agents.

    Safe from every thread. Names and keys that cannot be are ``InvalidName``, other arguments
    that cannot be meant ``InvalidOperation``, both before anything is done; a namespace that is
    private to another agent is ``AccessDenied``. Once the node has stopped, what would write or
    watch is ``BusClosed``.
    """

    __slots__ = ("_store", "_watches", "name", "principal")

    def __init__(
        self,
        store: Store,
        *,
        post: Post,
        telemetry: Telemetry,
        watch_backlog: int = 10_000,
        principal: str | None = None,
    ) -> None:
        watches = Watches(store, post=post, telemetry=telemetry, backlog=watch_backlog)
        self._look_at(watches, GLOBAL, check_principal(principal))

    def _look_at(self, watches: Watches, name: str, principal: str | None) -> None:
        self._watches = watches
        self._store = watches.store
        self.name = name
        self.principal = principal

    def _view(self, name: str, principal: str | None) -> Context:
        view = Context.__new__(Context)
        view._look_at(self._watches, name, principal)
        return view

    def namespace(self, name: str) -> Context:
        """Another namespace, named in full: ``"plan"``, ``"agent/editor"``, ``"global"``."""
        return self._view(check_namespace(name), self.principal)

    def bound_to(self, principal: str | None) -> Context:
        """The same namespace, read and written as that agent."""
        return self._view(self.name, check_principal(principal))

    @property
    def aio(self) -> AsyncContext:
        """The same, to be awaited. It never holds up the event loop."""
        return AsyncContext(self, blocks=self._store.blocks)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where it is absent or has expired."""
        found = self._store.read(self.name, check_key(key), self.principal)
        return default if found is None else found.value

    def versioned(self, key: str) -> Versioned:
        """The value with its version: what ``compare_and_set`` starts from."""
        found = self._store.read(self.name, check_key(key), self.principal)
        if found is None:
            return Versioned(None, ABSENT, None, 0.0)
        return Versioned(found.value, found.version, found.author, found.at)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that start so, sorted."""
        present = self._store.scan(self.name, check_prefix(prefix), self.principal)
        return [change.key for change in present]

    def snapshot(self) -> dict[str, Any]:
        """Every key with its value, all at one moment."""
        present = self._store.scan(self.name, "", self.principal)
        return {change.key: change.value for change in present}

    def set(self, key: str, value: Any, ttl: float | None = None) -> int:
        """Give a key a value, for `ttl` seconds or for good, and return the version it is."""
        return self._write(Set(check_key(key), value, check_ttl(ttl)))[0].version

    def delete(self, key: str) -> bool:
        """Remove a key. Returns whether it was there; if so, the deletion is a version too."""
        return bool(self._write(Delete(check_key(key))))

    def compare_and_set(self, key: str, value: Any, version: int, ttl: float | None = None) -> int:
        """Set the key if it is still at `version`, 0 for absent, and return the new version.

        With a ttl and version 0 this is a lease: one of many gets it, until it expires.

        Raises:
            VersionConflict: it is at another; ``current`` says which.
        """
        operation = Set(check_key(key), value, check_ttl(ttl))
        return self._write(operation, (key, check_version(version)))[0].version

    def update(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Set the key to `fn` of its value, of `default` where it is absent; returns the result.

        No other write is lost: where one came in between, `fn` is called again with what that
        wrote. So it must be pure: return a new value, change nothing. A ttl of the key goes on.

        Raises:
            VersionConflict: others were faster a thousand times on end.
        """
        check_key(key)
        check_function("fn", fn)
        attempt = 1
        while True:
            present = self._store.read(self.name, key, self.principal)
            value = fn(default if present is None else present.value)
            if inspect.iscoroutine(value):
                value.close()
                raise InvalidOperation("fn must return the value, not a coroutine that would")
            version = ABSENT if present is None else present.version
            try:
                self._write(Set(key, value, keep_ttl=True), (key, version))
            except VersionConflict:
                if attempt == _UPDATE_ATTEMPTS:
                    raise
                attempt += 1
            else:
                return value

    def increment(self, key: str, by: float = 1) -> Any:
        """Add to a number, from 0 where the key is absent; returns the sum. A ttl goes on.

        Raises:
            InvalidOperation: the key holds something else.
        """
        return self._write(Increment(check_key(key), check_amount(by)))[0].value

    def commit(
        self,
        *,
        set: Mapping[str, Any] | None = None,
        delete: Iterable[str] = (),
        increment: Mapping[str, float] | None = None,
        expect: Mapping[str, int] | None = None,
        ttl: float | Mapping[str, float] | None = None,
    ) -> dict[str, Change]:
        """Several writes that happen together or not at all; returns what changed, by key.

        ::

            context.commit(
                set={"plan": plan, "status": "ready"},
                delete=["draft"],
                increment={"rounds": 1},
                expect={"plan": 3, "lock": 0},
            )

        `expect` names versions, 0 for absent, also of keys that are not written. `ttl` is for all
        that is set or incremented, or by key.

        Raises:
            VersionConflict: something is not at the version expected.
            InvalidOperation: a key is written twice, or an increment is of no number.
        """
        sets = check_mapping("set", set)
        increments = check_mapping("increment", increment)
        ttls = _ttl_of_each(ttl, (*sets, *increments))
        operations = check_once(
            [
                *(Set(key, value, ttls.get(key)) for key, value in sets.items()),
                *(
                    Increment(key, check_amount(by), ttls.get(key))
                    for key, by in increments.items()
                ),
                *(Delete(key) for key in check_keys("delete", delete)),
            ]
        )
        expected = check_mapping("expect", expect)
        versions = tuple((key, check_version(version)) for key, version in expected.items())
        changes = self._commit(operations, versions)
        return {change.key: change for change in changes}

    def history(self, key: str) -> list[Change]:
        """The versions of a key that are kept, oldest first, deletions among them."""
        return list(self._store.history(self.name, check_key(key), self.principal))

    def at(self, key: str, version: int) -> Change:
        """The key as it was at a version, by whom and when.

        Raises:
            VersionNotKept: it is too old, or never was; ``kept`` names those that are there.
        """
        check_version(version)
        history = self.history(key)
        for change in history:
            if change.version == version:
                return change
        raise VersionNotKept(self.name, key, version, [change.version for change in history])

    def watch(self, prefix: str, callback: Callable[[Change | Lagged], object]) -> Watch:
        """Call back with every later change to keys that start so, in order, each once.

        The changes of one commit come one after the other. Whoever falls too far behind gets one
        ``Lagged`` in place of what was missed. Callbacks run one at a time on the node's watch
        thread; one that raises is reported, and the watch goes on until it is cancelled.
        """
        check_callback("callback", callback)
        return self._watches.add(self.name, check_prefix(prefix), self.principal, callback)

    def grant(self, agent: str | None, rights: Rights) -> None:
        """Let another agent, None for code outside agents, ``"read"``, ``"write"`` or ``"both"``.

        Only the owner of a private namespace may; what it granted that agent before is replaced.
        """
        self._set_rights(agent, check_rights(rights))

    def revoke(self, agent: str | None) -> None:
        """Take back what was granted. Watches of that agent end with the next change."""
        self._set_rights(agent, None)

    def close(self) -> None:
        """Cancel the watches of this agent, or of all where this acts for none. Idempotent."""
        self._watches.cancel(self.principal)

    def stop(self) -> None:
        """The node stops: cancel every watch, and refuse from now on to write. Idempotent."""
        self._watches.stop()

    def __repr__(self) -> str:
        who = f" as {self.principal!r}" if self.principal else ""
        return f"<Context {self.name!r}{who}>"

    def _write(self, operation: Operation, *expected: tuple[str, int]) -> tuple[Change, ...]:
        return self._commit((operation,), expected)

    def _commit(
        self, operations: tuple[Operation, ...], expected: tuple[tuple[str, int], ...]
    ) -> tuple[Change, ...]:
        self._watches.check_open()
        return self._store.commit(self.name, Commit(self.principal, operations, expected))

    def _set_rights(self, agent: str | None, rights: Rights | None) -> None:
        if owner_of(self.name) is None:
            raise InvalidOperation(
                f"{self.name!r} is open to everyone; only the private namespace of an agent"
                " has rights to grant"
            )
        self._watches.check_open()
        self._store.grant(self.name, check_principal(agent), rights, self.principal)


def _ttl_of_each(ttl: object, keys: tuple[str, ...]) -> Mapping[str, float | None]:
    if not isinstance(ttl, Mapping):
        return dict.fromkeys(keys, check_ttl(ttl))
    for key, seconds in ttl.items():
        if key not in keys:
            raise InvalidOperation(f"a ttl for {key!r}, which is neither set nor incremented here")
        check_ttl(seconds)
    return ttl
