"""What keeps shared state: the contract of a store, and the values that cross it.

A store holds namespaces of keys. Every key counts its own versions, from 1 by 1; setting it and
deleting it are both a version, and the count goes on after a delete. Every namespace counts its
changes: a *revision* is the number of its latest change, so "what happened after revision 41" has
one answer, which is all that a watch needs.

All writes go through one call, ``commit``, which a store does whole or not at all. A store keeps
its own time, for what it stamps and for what expires: on a server that is the server's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TypeAlias

from actorbus.errors import AccessDenied, InvalidOperation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GLOBAL: Final = "global"
PRIVATE: Final = "agent/"
"""A namespace that starts so is private to the agent whose name follows."""

ABSENT: Final = 0
"""The version of a key that is not there, never was or was deleted."""

Right: TypeAlias = Literal["read", "write"]
Rights: TypeAlias = Literal["read", "write", "both"]


@dataclass(frozen=True, slots=True)
class Change:
    """One version of a key. ``at`` is the store's time, in seconds since the epoch.

    ``author`` is the agent that made it; None for code outside an agent, and for time when the
    key expired. Where ``deleted``, the value is None.
    """

    key: str
    value: Any
    version: int
    author: str | None
    at: float
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Set:
    """Give a key a value. Its ttl, in seconds, is the one given here, unless ``keep_ttl``."""

    key: str
    value: Any
    ttl: float | None = None
    keep_ttl: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; where it is absent, nothing changes."""

    key: str


@dataclass(frozen=True, slots=True)
class Increment:
    """Add to a number, from 0 where the key is absent. A ttl that it has goes on."""

    key: str
    by: float
    ttl: float | None = None


Operation: TypeAlias = Set | Delete | Increment


@dataclass(frozen=True, slots=True)
class Commit:
    """Operations that happen together, each on a key of its own, if every expectation holds.

    ``expected`` pairs keys, touched here or not, with the version they must be at.
    """

    author: str | None
    operations: tuple[Operation, ...]
    expected: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a namespace after some revision, up to and with ``revision``.

    Where it is not ``complete``, there was more than the reader takes or the log still has, and
    ``changes`` is empty: a reader never gets a part that looks like the whole.
    """

    changes: tuple[Change, ...]
    revision: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Listening:
    """A doorbell put up: it rings for every change after ``revision``, until ``stop()``."""

    revision: int
    stop: Callable[[], None]


class Store(Protocol):
    """Keeps namespaces of versioned keys. Safe from every thread; names and keys come checked.

    ``principal`` is the agent for which a call is made, None for code outside an agent. Calls on a
    private namespace raise ``AccessDenied`` unless it owns that or was granted the right.
    """

    blocks: ClassVar[bool]
    """Whether a call may wait for something outside the process, so that no event loop may."""

    def commit(self, namespace: str, commit: Commit) -> tuple[Change, ...]:
        """Do all of it or none, and return the changes in the order of the operations.

        Raises:
            VersionConflict: an expectation does not hold; the error has the version that is.
            InvalidOperation: an increment of something that is no number.
        """

    def read(self, namespace: str, key: str, principal: str | None) -> Change | None:
        """The present version of a key; None where it is absent or has expired."""

    def scan(self, namespace: str, prefix: str, principal: str | None) -> tuple[Change, ...]:
        """The present version of every key with that prefix, all at one moment, sorted by key."""

    def history(self, namespace: str, key: str, principal: str | None) -> tuple[Change, ...]:
        """The versions of a key that are kept, without a hole, oldest first."""

    def changes(
        self, namespace: str, prefix: str, after: int, limit: int, principal: str | None
    ) -> Changes:
        """The changes after a revision to keys with that prefix, at most `limit`, in order."""

    def listen(
        self, namespace: str, ring: Callable[[], object], principal: str | None
    ) -> Listening:
        """Call `ring` after changes. It must be quick: it runs on the thread that wrote.

        One ring may stand for several changes, and some may be for none.
        """

    def grant(
        self, namespace: str, grantee: str | None, rights: Rights | None, principal: str | None
    ) -> None:
        """Set what `grantee` may do in a private namespace; None takes all rights away.

        Raises:
            AccessDenied: `principal` does not own the namespace.
        """


def added(namespace: str, increment: Increment, present: Change | None) -> float:
    """What an increment makes of the present version of its key.

    Raises:
        InvalidOperation: that is no number, or too large to be added to.
    """
    value: Any = 0 if present is None else present.value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidOperation(
            f"{namespace}:{increment.key} holds a {type(value).__name__},"
            " and only an int or a float can be incremented"
        )
    try:
        return value + increment.by
    except OverflowError:
        raise InvalidOperation(
            f"{namespace}:{increment.key} is too large to add {increment.by} to it"
        ) from None


def owner_of(namespace: str) -> str | None:
    """The agent to which a namespace is private; None where everyone may use it."""
    return namespace.removeprefix(PRIVATE) if namespace.startswith(PRIVATE) else None


def check_access(
    namespace: str,
    principal: str | None,
    right: Right,
    grants: Mapping[str | None, Rights],
) -> None:
    """Refuse a principal that neither owns the namespace nor was granted the right.

    Raises:
        AccessDenied: it may not.
    """
    owner = owner_of(namespace)
    if owner is None or owner == principal or grants.get(principal) in (right, "both"):
        return
    raise AccessDenied(namespace, principal, right)


def check_owner(namespace: str, principal: str | None) -> None:
    """Refuse everyone but the owner, who alone decides on grants.

    Raises:
        AccessDenied: the principal does not own the namespace.
    """
    if principal is None or owner_of(namespace) != principal:
        raise AccessDenied(namespace, principal, "grant access to")
