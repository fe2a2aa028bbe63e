"""The hash chain: what proves that nobody changed history after it was written.

One chain for each tenant and incarnation of a node. A row's hash is
SHA-256(hash of the row before, canonical bytes of this row), and the first row follows the
chain's ``genesis``, which names the incarnation before it and that one's last hash. Payload
and headers enter by their digests, so that they can be taken away and the chain still holds.

Canonical bytes are fields of fixed width and length-prefixed ones, never JSON. Texts of a row
that seldom vary (who, to whom, what, how it ended) are encoded once and looked up after that.

Everything here is a function of its arguments: no database, no clock.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from actorbus.errors import PersistenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

HASH_SIZE: Final = 32
NO_DIGEST: Final = bytes(HASH_SIZE)
"""Stands for headers that a message does not have."""

_ID_SIZE: Final = 16
_NO_ID: Final = bytes(_ID_SIZE)
_NO_INT: Final = -(1 << 63)
_LETS_GO: Final = 2_048
"""Bytes from which hashlib releases Python's lock."""
_MOST_SHAPES: Final = 8_192
_MESSAGE: Final = struct.Struct(">16sqq16s16sqqqqqq32s32s").pack
_EVENT: Final = struct.Struct(">16sq16sqqq").pack
_EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_LENGTH: Final = struct.Struct(">cI").pack


class Malformed(PersistenceError, ValueError):
    """A value that no row of ours can hold."""


NOT_HASHABLE: Final = (struct.error, AttributeError, TypeError, ValueError)
"""What hashing a row raises, where a value is not of the type that its column has."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a chain, or its genesis at 0."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Incarnation:
    """What a chain says of itself. Times are microseconds since the epoch."""

    tenant: bytes
    number: int
    id: bytes
    node: str
    started_at: int
    previous: int | None
    """The chain of this node's incarnation before; None for its first."""
    link_seq: int
    link: bytes
    """The last row of that chain when this one began."""
    anchors: str | None
    """Where its anchors are kept; None if nowhere."""

    def genesis(self) -> Head:
        return Head(0, sha256(fields(b"actorbus chain 1", *self._values())).digest())

    def _values(self) -> tuple[Any, ...]:
        return (
            self.tenant,
            self.number,
            self.id,
            self.node,
            self.started_at,
            self.previous,
            self.link_seq,
            self.link,
            self.anchors,
        )


def fields(*values: Any) -> bytes:
    """Values, each behind its type and its length: no two lists look alike."""
    return b"".join(map(_field, values))


def digest(text: str) -> bytes:
    """The digest of a document as it is kept where text is kept as it came: on SQLite."""
    data = text.encode()
    return sha256(data).digest() if len(data) < _LETS_GO else _sha256(data)


def canonical_digest(text: str) -> bytes:
    """The digest of a document that comes back in other words: JSONB on PostgreSQL.

    JSONB keeps neither the order of keys nor how a number was written.
    """
    value = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal)
    return _sha256(_document(value))


def _sha256(data: bytes) -> bytes:
    """SHA-256 that holds on to Python's lock: a writer that let go of it for every large
    payload would wait 5 ms each time for a busy thread to give it back."""
    if len(data) < _LETS_GO:
        return sha256(data).digest()
    whole = sha256()
    for start in range(0, len(data), _LETS_GO - 1):
        whole.update(data[start : start + _LETS_GO - 1])
    return whole.digest()


class Seal:
    """Hashes rows. Not for several threads at once.

    Rows are sequences of values as SQLite's driver takes them, in the order of the columns in
    ``rows.py``: ids as 16 bytes, instants as microseconds.
    """

    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[tuple[Any, ...], bytes] = {}

    def message(
        self,
        previous: bytes,
        seq: int,
        row: Sequence[Any],
        payload: bytes,
        headers: bytes,
        error_digest: bytes | None = None,
    ) -> bytes:
        """The hash of a message's row, of whose documents the digests are given.

        `error_digest` is that of an error that was taken away.
        """
        (
            tenant,
            own,
            project,
            node,
            run_id,
            kind,
            type_,
            sender,
            recipient,
            topic,
            priority,
            _,
            _,
            correlation,
            causation,
            hops,
            created_at,
            deadline,
            status,
            reason,
            error,
            attempt,
            started_at,
            ended_at,
        ) = row
        shape = (
            tenant, project, node, run_id, kind, type_, sender, recipient, topic, status, reason
        )  # fmt: skip
        text = self._shapes.get(shape) or self._shape(b"message", shape)
        fixed = _MESSAGE(
            own,
            seq,
            priority,
            correlation,
            _NO_ID if causation is None else causation,
            hops,
            created_at,
            _NO_INT if deadline is None else deadline,
            attempt,
            _NO_INT if started_at is None else started_at,
            _NO_INT if ended_at is None else ended_at,
            payload,
            headers,
        )
        if error is None:
            return sha256(previous + text + fixed).digest()
        return sha256(previous + text + fixed + (error_digest or digest(error))).digest()

    def event(
        self, previous: bytes, seq: int, row: Sequence[Any], error_digest: bytes | None = None
    ) -> bytes:
        """The hash of an event's row. `error_digest` as above."""
        (
            tenant,
            own,
            message,
            node,
            recipient,
            status,
            reason,
            error,
            attempt,
            started_at,
            ended_at,
        ) = row
        shape = (tenant, node, recipient, status, reason)
        text = self._shapes.get(shape) or self._shape(b"event", shape)
        fixed = _EVENT(
            own, seq, message, attempt, _NO_INT if started_at is None else started_at, ended_at
        )
        if error is None:
            return sha256(previous + text + fixed).digest()
        return sha256(previous + text + fixed + (error_digest or digest(error))).digest()

    def act(self, previous: bytes, seq: int, row: Sequence[Any]) -> bytes:
        """The hash of the row of something done to history itself."""
        return sha256(previous + fields(b"act", seq, *row)).digest()

    def _shape(self, kind: bytes, shape: tuple[Any, ...]) -> bytes:
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        text = self._shapes[shape] = sha256(fields(kind, *shape)).digest()
        return text


def check_message(row: Sequence[Any]) -> None:
    """Refuse what would be hashed like something else. What we wrote never is.

    What enters a hash behind its type and its length, or through ``struct``, which refuses other
    types, cannot be mistaken. That leaves ids of another length, which it cuts or fills up, and
    values that stand for None.

    Raises:
        Malformed: there is such a value.
    """
    causation = row[14]
    if len(row[1]) != _ID_SIZE or len(row[13]) != _ID_SIZE:
        raise Malformed("an id is no UUID")
    if causation is not None and (len(causation) != _ID_SIZE or causation == _NO_ID):
        raise Malformed("an id is no UUID")
    if row[17] == _NO_INT or row[22] == _NO_INT or row[23] == _NO_INT:
        raise Malformed("a time is none")


def check_event(row: Sequence[Any]) -> None:
    """``check_message`` for an event."""
    if len(row[1]) != _ID_SIZE or len(row[2]) != _ID_SIZE:
        raise Malformed("an id is no UUID")
    if row[9] == _NO_INT:
        raise Malformed("a time is none")


# -- verification


class Flaw(StrEnum):
    """What is wrong with a history."""

    CHANGED = "changed"
    """A row is not what was written."""
    MISSING = "missing"
    """Rows between others are gone."""
    CUT = "cut"
    """The last rows are gone."""
    ADDED = "added"
    """A row that no chain has room for."""
    REWRITTEN = "rewritten"
    """A chain is sound in itself, and is not the one that was anchored."""
    UNLINKED = "unlinked"
    """A chain does not follow the one before it."""
    ANCHOR = "anchor"
    """An anchor is missing, unreadable or wrongly signed."""
    UNRECORDED = "unrecorded"
    """A redaction or deletion that nobody answers for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where."""

    flaw: Flaw
    chain: int | None
    seq: int | None
    """The row's place in its chain; of several, the first."""
    table: str | None
    id: str | None
    """The row's key, where there is a row."""
    says: str


Row: TypeAlias = "Sequence[Any]"
"""A row as it stands in the database, to be checked: its chain, its place there, the number of
its ``RowKind``, its hash, and then its values."""
CHAIN, SEQ, KIND, HASH, VALUES = range(5)


@dataclass(frozen=True, slots=True)
class RowKind:
    """How rows of one kind are checked, and named where they are not what was written."""

    table: str
    key: Callable[[Row], str]
    rehash: Callable[[bytes, Row], bytes]
    """The hash of a row after the hash before; raises one of ``NOT_HASHABLE``."""


def walk(
    number: int,
    start: Sequence[Head],
    rows: Iterable[Row],
    end: Head,
    anchored: Mapping[int, bytes],
    kinds: Sequence[RowKind],
) -> Iterator[Finding]:
    """Check the rows of one chain, given by rising place, from `start` to its head `end`.

    `start` is what the first row may follow: several, where the chain contradicts itself.

    After a flaw it goes on from what the row claims, so that one changed row is one finding.
    """
    rehash = [kind.rehash for kind in kinds]
    before: tuple[Any, ...] = tuple(head.hash for head in start)
    last = start[0].seq
    for row in rows:
        seq, stored = row[SEQ], row[HASH]
        follows = seq == last + 1
        if follows and len(before) == 1 and seq not in anchored:
            # Nearly all rows end here.
            try:
                sound = rehash[row[KIND]](before[0], row) == stored
            except NOT_HASHABLE:
                sound = False
            if sound:
                last, before = seq, (stored,)
                continue
        kind = kinds[row[KIND]]
        if seq <= last:
            says = "is there twice" if seq == last else "was deleted, and is back"
            yield found(Flaw.ADDED, row, kind, f"row {seq:,} {says}")
            continue
        if not follows:
            yield _missing(number, last + 1, seq - 1)
        last = seq
        hashes = [_rehash(kind, row, one) for one in before] if follows else []
        if follows and stored not in hashes:
            yield found(Flaw.CHANGED, row, kind, "is not what was written")
            before = tuple(one for one in (stored, *hashes) if _is_hash(one))
            continue
        if anchored.get(seq, stored) != stored:
            yield found(Flaw.REWRITTEN, row, kind, "is not the row that was anchored")
        before = (stored,) if _is_hash(stored) else ()
    yield from _ending(number, last, before, end, anchored)


def found(flaw: Flaw, row: Row, kind: RowKind, says: str) -> Finding:
    """What is wrong with a row."""
    return Finding(flaw, row[CHAIN], row[SEQ], kind.table, kind.key(row), says)


def _rehash(kind: RowKind, row: Row, previous: bytes) -> object:
    """The row's hash after `previous`; something that equals nothing, where it can have none."""
    try:
        return kind.rehash(previous, row)
    except NOT_HASHABLE:
        return object()


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_SIZE


def _ending(
    number: int, last: int, before: tuple[Any, ...], end: Head, anchored: Mapping[int, bytes]
) -> Iterator[Finding]:
    furthest = max((end.seq, *anchored))
    if last < furthest:
        who = "an anchor" if furthest > end.seq else "the chain"
        yield Finding(
            Flaw.CUT, number, last + 1, None, None,
            f"{_rows(last + 1, furthest)} gone: {who} knows of it",
        )  # fmt: skip
    if last > end.seq:
        yield Finding(
            Flaw.CHANGED, number, end.seq, "chains", str(number),
            f"the chain says it ends at row {end.seq:,}, and row {last:,} is there",
        )  # fmt: skip
    elif last == end.seq and end.hash not in before:
        yield Finding(
            Flaw.CHANGED, number, end.seq, "chains", str(number),
            "the chain ends in another hash than its last row",
        )  # fmt: skip


def _missing(number: int, first: int, last: int) -> Finding:
    return Finding(Flaw.MISSING, number, first, None, None, f"{_rows(first, last)} missing")


def _rows(first: int, last: int) -> str:
    return f"row {first:,} is" if first == last else f"rows {first:,} to {last:,} are"


def _field(value: Any) -> bytes:
    match value:
        case None:
            return b"\0"
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return _LENGTH(b"s", len(data)) + data
        case bytes():
            return _LENGTH(b"b", len(value)) + value
        case int():
            data = str(int(value)).encode()
            return _LENGTH(b"i", len(data)) + data
        case float():
            data = repr(value).encode()
            return _LENGTH(b"f", len(data)) + data
        case _:
            raise Malformed(f"a {type(value).__name__} has no canonical bytes")


def _document(value: Any) -> bytes:
    """A decoded document, in bytes that do not depend on how it was written."""
    match value:
        case dict():
            pairs = sorted((key.encode("utf-8", "surrogatepass"), key) for key in value)
            inside = b"".join(_field(key) + _document(value[key]) for _, key in pairs)
            return _LENGTH(b"{", len(inside)) + inside
        case list():
            inside = b"".join(map(_document, value))
            return _LENGTH(b"[", len(inside)) + inside
        case bool():
            return b"+" if value else b"-"
        case Decimal():
            sign, digits, exponent = value.normalize(_EXACT).as_tuple()
            plain = f"{sign}{''.join(map(str, digits))}e{exponent}" if any(digits) else "0"
            return _LENGTH(b"n", len(plain)) + plain.encode()
        case _:
            return _field(value)
