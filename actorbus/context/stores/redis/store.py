"""Shared state in Redis, the same for every node of a deployment.

A namespace is a handful of keys in one slot, and every change to it is one script: so a commit
happens whole or not at all, revisions have no hole, and watches read the log from wherever they
are (``scripts/space.lua`` says what lies where). Time is the server's; what is due expires in
the next script that touches its namespace, or within a second by the sweep.

A script may be sent again when its answer was lost. All but one change nothing by that; COMMIT
carries a number of its *writer*, and the server keeps what each writer did last. A writer has
one commit under way, so a store has as many as threads that write at once.

Whoever can talk to the server can read and write everything there: private namespaces keep out
mistakes. A *fence* keeps out the node that owned an agent and does not know yet that it does no
more: its token stands beside the agent's inbox, and COMMIT looks at it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, assert_never
from uuid import uuid4
from zlib import crc32

from actorbus.context.store import (
    Change,
    Changes,
    Delete,
    Increment,
    Listening,
    Set,
    added,
    check_owner,
    owner_of,
)
from actorbus.context.stores.redis.bells import Bells
from actorbus.context.stores.redis.records import (
    GONE,
    Value,
    amount,
    change_in,
    microseconds,
    seconds,
    signature,
    value_of,
    written,
)
from actorbus.errors import (
    AccessDenied,
    InvalidOperation,
    StaleOwner,
    TransportUnavailable,
    Undecodable,
    VersionConflict,
)
from actorbus.redis_client import Script, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.codec import Codec
    from actorbus.context.store import Commit, Operation, Right, Rights
    from actorbus.redis_client import RedisServer

MOST_OPERATIONS: Final = 1_000
"""Operations, and expectations, in one commit: while it runs the server does nothing else."""
LARGEST_COMMIT: Final = 16 * 1024 * 1024

_PAGE: Final = 1_000
_PAGE_BYTES: Final = 1024 * 1024
_ATTEMPTS: Final = 1_000
"""Each means that somebody else got something done, so this is far from any luck."""
_SCANS: Final = 5
_ANY: Final = 2**53
"""As many changes as the log has."""


class Fence(NamedTuple):
    """By what a node owns an agent.

    ``key`` is a hash in the agent's partition, whose field ``tok`` is the token of the owner.
    """

    key: str
    token: str


class _Space(NamedTuple):
    """A namespace, and its names in Redis."""

    namespace: str
    name: str
    base: str
    dues: str


class _Writer:
    """Numbers its commits. For one thread at a time."""

    __slots__ = ("id", "number")

    def __init__(self) -> None:
        self.id = uuid4().hex
        self.number = 0


class RedisStore:
    """A ``Store`` in Redis. Values travel as msgpack, so what is read is a copy.

    Calls raise ``TransportUnavailable`` within seconds when the server is away; of a commit that
    ends so nobody knows whether it happened. A value that cannot be read here, for instance of
    a newer program, is ``Undecodable``; to a watch it counts as missed. A server that lost its
    latest changes makes watches lag.

    Args:
        namespace: what separates deployments on one server.
        partitions: as many as the inboxes have, so that an agent and what is private to it are
            in one slot.
        history: versions kept of a key.
        log: commits kept of a namespace, of at most `log_bytes` bytes together.
        fence: by what this node owns an agent, None where it does not. Without it tokens are
            not checked.
        failed: called on a thread of this store with what went wrong while it listened; it goes
            on trying.
    """

    blocks: ClassVar[bool] = True

    def __init__(
        self,
        server: RedisServer,
        codec: Codec,
        *,
        namespace: str = "actorbus",
        partitions: int = 1,
        history: int = 100,
        log: int = 10_000,
        log_bytes: int = 64 * 1024 * 1024,
        fence: Callable[[str], Fence | None] | None = None,
        failed: Callable[[Exception], object] = lambda _: None,
    ) -> None:
        self._server = server
        self._codec = codec
        self._bounds = (history, log, log_bytes)
        self._fence = fence
        self._tags = [f"{{{encoded(namespace)}.p{number}}}" for number in range(partitions)]
        self._writers: deque[_Writer] = deque()
        self._read = _script("read")
        self._scan = _script("scan")
        self._history = _script("history")
        self._changes = _script("changes")
        self._commit = _script("commit")
        self._sweep = _script("sweep", begin=False)
        self._bells = Bells(
            server,
            channel=lambda name: f"{self._space(name).base}:bell",
            wake=f"{self._tags[0]}:x-wake:{uuid4().hex}",
            revisions=self._revisions,
            sweep=self._sweep_all,
            failed=failed,
        )

    def commit(self, namespace: str, commit: Commit) -> tuple[Change, ...]:
        """As the contract says. At most ``MOST_OPERATIONS`` and ``LARGEST_COMMIT`` bytes.

        Raises:
            UnsupportedPayload, PayloadTooLarge: a value that cannot be carried.
            InvalidOperation: it is too large; make several.
            StaleOwner: another node owns the agent now.
            TransportUnavailable: the server is away.
        """
        _check_size(commit)
        sent = commit
        for _ in range(_ATTEMPTS):
            try:
                told = self._send(namespace, sent)
            except VersionConflict:
                if sent is commit:
                    raise
                sent = commit  # what was to be incremented has changed, or this says what else
                continue
            if told[0] == b"OK":
                return self._done(namespace, sent, told[1])
            sent = self._computed(namespace, sent, told[1:])
        raise TransportUnavailable(f"{namespace}: others were faster {_ATTEMPTS:,} times on end")

    def read(self, namespace: str, key: str, principal: str | None) -> Change | None:
        told = self._ask(self._read, namespace, "read", principal, key)
        return self._change(key.encode(), told[1]) if len(told) > 1 else None

    def scan(self, namespace: str, prefix: str, principal: str | None) -> tuple[Change, ...]:
        for _ in range(_SCANS):
            found = self._scan_all(namespace, prefix, principal)
            if found is not None:
                return tuple(found[key] for key in sorted(found))
        raise TransportUnavailable(
            f"{namespace} changes faster than its keys can be read; keep more commits"
            " (the setting context_log), or put fewer keys into one namespace"
        )

    def history(self, namespace: str, key: str, principal: str | None) -> tuple[Change, ...]:
        found: deque[Change] = deque()
        while True:
            # From the newest on, so that what is forgotten meanwhile leaves no hole.
            below = found[0].version if found else 0
            told = self._ask(
                self._history, namespace, "read", principal, key, below, _PAGE, _PAGE_BYTES
            )
            found.extendleft(self._change(key.encode(), record) for record in told[2:])
            if len(told) == 2 or found[0].version <= int(told[1]):
                return tuple(found)

    def changes(
        self, namespace: str, prefix: str, after: int, limit: int, principal: str | None
    ) -> Changes:
        try:
            news = self._changes_after(namespace, prefix, after, limit, principal)
        except TransportUnavailable:
            self._bells.owe(namespace)
            raise
        self._bells.announce(namespace, news.revision)
        return news

    def listen(
        self, namespace: str, ring: Callable[[], object], principal: str | None
    ) -> Listening:
        """As the contract says; also rung by a thread of this store, and after every reconnect.

        Raises:
            TransportUnavailable: the server is away.
        """
        self._revision(namespace, principal)  # who may not read need not listen
        self._bells.attend(namespace)
        try:
            revision = self._revision(namespace, principal)
        except BaseException:
            self._bells.leave(namespace)
            raise
        stopped: list[bool] = []

        def stop() -> None:
            if not stopped:
                stopped.append(True)
                self._bells.remove(namespace, ring)

        return Listening(self._bells.add(namespace, ring, revision), stop)

    def grant(
        self, namespace: str, grantee: str | None, rights: Rights | None, principal: str | None
    ) -> None:
        check_owner(namespace, principal)
        key = f"{self._space(namespace).base}:grants"
        with self._server.errors():
            if rights is None:
                self._server.client.hdel(key, _who(grantee))
            else:
                self._server.client.hset(key, _who(grantee), rights)

    def close(self) -> None:
        """End what this store runs; the server's connections are its owner's. Idempotent."""
        self._bells.close()

    # -- commits

    def _send(self, namespace: str, commit: Commit) -> list[Any]:
        """OK and what was done, or COMPUTE and what the increments start from."""
        operations = self._words(commit)
        space = self._space(namespace)
        fence = self._fence_of(namespace, commit.author)
        # One whose fate is unknown is not put back: a late repeat of its commit may yet arrive.
        writer = self._a_writer()
        writer.number += 1
        told = self._run(
            self._commit,
            space,
            "write",
            commit.author,
            fence.token if fence else "",
            writer.number,
            signature(commit.author),
            len(commit.expected),
            *(word for key, version in commit.expected for word in (key, _text(version))),
            *operations,
            keys=(f"{space.base}:w:{writer.id}", *([fence.key] if fence else [])),
        )
        if told[0] == b"LATE":
            raise TransportUnavailable(f"{self._server.shown}: a commit was overtaken by another")
        self._writers.append(writer)
        if told[0] == b"CONFLICT":
            key, expected = commit.expected[int(told[1]) - 1]
            raise VersionConflict(namespace, key, expected, int(told[2]))
        if told[0] == b"FENCED":
            raise StaleOwner(str(commit.author))
        if any(isinstance(one, Set | Increment) and one.ttl for one in commit.operations):
            self._bells.start()
        return told

    def _a_writer(self) -> _Writer:
        try:
            return self._writers.pop()
        except IndexError:
            return _Writer()

    def _words(self, commit: Commit) -> list[Any]:
        words: list[Any] = []
        size = 0
        for operation in commit.operations:
            verb, value, ttl = self._told(operation)
            size += len(value.data)
            words += (verb, operation.key, microseconds(ttl), value.kind, value.data)
        if size > max(LARGEST_COMMIT, self._codec.limit):
            raise InvalidOperation(
                f"a commit of {size:,} bytes; at most {LARGEST_COMMIT:,} fit into one"
            )
        return words

    def _told(self, operation: Operation) -> tuple[str, Value, float | None]:
        match operation:
            case Set():
                verb = "keep" if operation.keep_ttl else "set"
                return verb, written(operation.value, self._codec), operation.ttl
            case Increment():
                return "increment", amount(operation.by), operation.ttl
            case Delete():
                return "delete", GONE, None
            case _:
                assert_never(operation)

    def _computed(self, namespace: str, commit: Commit, told: Sequence[bytes]) -> Commit:
        """The commit with sums in place of increments, if what they start from still holds.

        Raises:
            InvalidOperation: that is no number.
        """
        present = {
            key.decode(): self._change(key, record) if record else None
            for key, record in zip(told[::2], told[1::2], strict=True)
        }
        operations: list[Operation] = []
        expected = list(commit.expected)
        for one in commit.operations:
            if isinstance(one, Increment) and one.key in present:
                was = present[one.key]
                value = added(namespace, one, was)
                operations.append(Set(one.key, value, one.ttl, keep_ttl=one.ttl is None))
                expected.append((one.key, 0 if was is None else was.version))
            else:
                operations.append(one)
        return type(commit)(commit.author, tuple(operations), tuple(expected))

    def _done(self, namespace: str, commit: Commit, answer: bytes) -> tuple[Change, ...]:
        """The changes that an answer tells of; then the bells have rung."""
        revision, stamp, *words = answer.split(b" ")
        at = seconds(stamp)
        changes = tuple(
            self._changed(operation, word, commit.author, at)
            for operation, word in zip(commit.operations, filter(None, words), strict=True)
            if word != b"-"
        )
        self._bells.announce(namespace, int(revision))
        return changes

    def _changed(self, operation: Operation, word: bytes, author: str | None, at: float) -> Change:
        version, *result = word.split(b":")
        match operation:
            case Set():
                value = operation.value
            case Increment():
                value = value_of(result[0], result[1], self._codec)
            case Delete():
                return Change(operation.key, None, int(version), author, at, deleted=True)
            case _:
                assert_never(operation)
        return Change(operation.key, value, int(version), author, at)

    def _fence_of(self, namespace: str, author: str | None) -> Fence | None:
        if self._fence is None or author is None or owner_of(namespace) != author:
            return None
        fence = self._fence(author)
        if fence is None:
            raise StaleOwner(author)
        return fence

    # -- reads

    def _scan_all(
        self, namespace: str, prefix: str, principal: str | None
    ) -> dict[str, Change] | None:
        """The keys page by page, and then what changed meanwhile; None where that is lost."""
        found: dict[str, Change] = {}
        first, after = None, ""
        while True:
            told = self._ask(
                self._scan, namespace, "read", principal, prefix, after, _PAGE, _PAGE_BYTES
            )
            for key, record in zip(told[3::2], told[4::2], strict=True):
                found[key.decode()] = self._change(key, record)
            first = int(told[1]) if first is None else first
            if not told[2]:
                break
            after = told[-2]
        if int(told[1]) == first:
            return found
        news = self._changes_after(namespace, prefix, first, _ANY, principal)
        for change in news.changes:
            found[change.key] = change
        present = {key: change for key, change in found.items() if not change.deleted}
        return present if news.complete else None

    def _changes_after(
        self, namespace: str, prefix: str, after: int, limit: int, principal: str | None
    ) -> Changes:
        found: list[Change] = []
        reached, target = after, None
        while True:
            told = self._ask(
                self._changes,
                namespace,
                "read",
                principal,
                reached,
                prefix,
                limit - len(found),
                _PAGE,
                _PAGE_BYTES,
            )
            revision = int(told[1])
            if told[0] == b"LOST":
                return Changes((), revision, complete=False)
            try:
                found += map(self._change, told[3::2], told[4::2])
            except Undecodable:
                return Changes((), revision, complete=False)
            reached = int(told[2])
            target = revision if target is None else target
            if reached >= target:
                return Changes(tuple(found), reached, complete=True)

    def _revision(self, namespace: str, principal: str | None) -> int:
        told = self._ask(self._changes, namespace, "read", principal, 0, "", 0, 0, 0)
        return int(told[1])

    def _change(self, key: bytes, record: bytes) -> Change:
        return change_in(key, record, self._codec)

    # -- bells

    def _revisions(self, namespaces: Sequence[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(namespaces), _PAGE):
            with self._server.errors():
                pipeline = self._server.client.pipeline(transaction=False)
                for name in namespaces[start : start + _PAGE]:
                    pipeline.hget(f"{self._space(name).base}:meta", "revision")
                found += (int(told or 0) for told in pipeline.execute())
        return found

    def _sweep_all(self) -> float | None:
        waits = []
        for tag in self._tags:
            with self._server.errors():
                told = self._sweep(
                    self._server.client, [f"{tag}:x:", f"{tag}:x-due"], ["", *self._bounds]
                )
            if int(told) >= 0:
                waits.append(int(told) / 1_000_000)
        return min(waits, default=None)

    # --

    def _space(self, namespace: str) -> _Space:
        name = encoded(namespace)
        # What is private to an agent is where its inbox is.
        placed_by = owner_of(namespace) or namespace
        tag = self._tags[crc32(placed_by.encode()) % len(self._tags)]
        return _Space(namespace, name, f"{tag}:x:{name}", f"{tag}:x-due")

    def _ask(
        self, script: Script, namespace: str, right: Right, principal: str | None, *words: Any
    ) -> list[Any]:
        return self._run(script, self._space(namespace), right, principal, *words)

    def _run(
        self,
        script: Script,
        space: _Space,
        right: Right,
        principal: str | None,
        *words: Any,
        keys: Sequence[str] = (),
    ) -> list[Any]:
        """Call again while more is due than one call may expire.

        Raises:
            AccessDenied: the principal lacks the right.
        """
        owner = owner_of(space.namespace)
        who = "" if owner is None or owner == principal else _who(principal)
        arguments = (space.name, *self._bounds, who, right, *words)
        while True:
            with self._server.errors():
                told: list[Any] = script(
                    self._server.client, (space.base, space.dues, *keys), arguments
                )
            if told[0] == b"DENIED":
                raise AccessDenied(space.namespace, principal, right)
            if told[0] != b"MORE":
                return told


def _script(name: str, *, begin: bool = True) -> Script:
    return Script.beside(__file__, "space", *(("begin",) if begin else ()), name)


def _check_size(commit: Commit) -> None:
    for what, many in (("operations", commit.operations), ("expectations", commit.expected)):
        if len(many) > MOST_OPERATIONS:
            raise InvalidOperation(
                f"a commit of {len(many):,} {what}; at most {MOST_OPERATIONS:,} fit into one"
            )


def _who(principal: str | None) -> str:
    """A principal as it stands among grants; no name of an agent is code outside of them."""
    return "-" if principal is None else f"={principal}"


def _text(version: int) -> str:
    """A version that is none, and too long to be written, is only told apart from all others."""
    return str(version) if version < 2**53 else "none"
