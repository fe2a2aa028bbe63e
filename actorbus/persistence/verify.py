"""Verifies the history of a tenant against its chains and their anchors.

One pass over the rows in the order of their chains, in which the database sorts them. History
may be written and deleted meanwhile: anchors are read first, then one state of the database.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, text

from actorbus.message import MessageId, format_id
from actorbus.persistence.acts import hashed, tenant_key
from actorbus.persistence.chain import (
    CHAIN,
    HASH,
    HASH_SIZE,
    KIND,
    NO_DIGEST,
    SEQ,
    VALUES,
    Finding,
    Flaw,
    Malformed,
    RowKind,
    Seal,
    canonical_digest,
    check_event,
    check_message,
    digest,
    found,
    walk,
)
from actorbus.persistence.chains import ACTS, EVENT_WIDTH, MESSAGE_WIDTH, plain
from actorbus.persistence.columns import id_encoder
from actorbus.persistence.models import AgentMessage, AuditAct, Base, Chain, MessageEvent
from actorbus.persistence.redaction import digest_of_taken, is_redacted
from actorbus.persistence.witnesses import Told, Witnesses, anchor_flaw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, CursorResult

    from actorbus.persistence.anchors import Anchor, Verifier
    from actorbus.persistence.chain import Row
    from actorbus.persistence.database import Database

MOST_FINDINGS: Final = 1_000
_AT_ONCE: Final = 200
"""Rows read at once: five times as many took a fifth longer, in Python's garbage collection."""
_EVERY: Final = 10_000
_PAYLOAD, _HEADERS = 11, 12
_MESSAGE_ERROR, _EVENT_ERROR = 20, 7
_INTACT, _REDACTED, _EVENT, _ACT = range(4)
_MS: Final = 80
_ID_SIZE: Final = 16
_MESSAGE_END: Final = VALUES + MESSAGE_WIDTH


def _columns(model: type[Base], kind: str, width: int) -> list[str]:
    names = [column.name for column in model.__table__.columns]
    return ["chain", "seq", kind, "hash", *names[:width]]


_WHICH: Final = (
    "CASE WHEN payload_digest IS NULL AND headers_digest IS NULL"
    f" THEN {_INTACT} ELSE {_REDACTED} END"
)
_MESSAGE_COLUMNS: Final = ", ".join(
    [*_columns(AgentMessage, _WHICH, MESSAGE_WIDTH), "payload_digest", "headers_digest"]
)
_EVENT_COLUMNS: Final = ", ".join(_columns(MessageEvent, str(_EVENT), EVENT_WIDTH))


_PLACED: Final = "chain IS NOT NULL AND seq IS NOT NULL"
_PLACED_IN_SQLITE: Final = f"{_PLACED} AND typeof(chain) = 'integer' AND typeof(seq) = 'integer'"
"""SQLite keeps in any column what somebody writes into it."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found: nothing, where history is as it was written."""

    findings: tuple[Finding, ...]
    """By chain and place; at most 1,000."""
    rows: int
    chains: int
    anchors: int
    signed: bool
    """Whether the signatures of the anchors were checked too."""
    deleted: int
    """Rows that retention deleted, by its tombstones."""
    redacted: int
    unchained: int
    """Rows from before there were chains: nothing proves them."""

    @property
    def sound(self) -> bool:
        return not self.findings


def verify(
    database: Database,
    tenant: str,
    *,
    anchors: Path | None = None,
    public_key: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Verify all there is of a tenant. `progress` is told (rows done, rows in all) now and then.

    `anchors` is the file of anchors, by default the one beside the database.

    Raises:
        AuditUnavailable: the database, the anchors or the key cannot be read.
        UnknownRecord: there is no such tenant.
    """
    from actorbus.persistence.anchors import AnchorFile, Verifier, beside

    verifier = None if public_key is None else Verifier(public_key)
    place = beside(database) if anchors is None else anchors
    found, broken = ([], []) if place is None else AnchorFile(place).read()
    with database.of(tenant).reading(snapshot=True) as connection:
        examination = _Examination(connection, tenant, verifier, progress)
        for line in broken:
            examination.add(anchor_flaw(None, None, f"line {line:,} of {place} is no anchor"))
        return examination.run(found)


class _Examination:
    """One verification, in one connection."""

    def __init__(
        self,
        connection: Connection,
        tenant: str,
        verifier: Verifier | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._connection = connection
        self._tenant = tenant_key(connection, tenant)
        self._postgresql = connection.dialect.name == "postgresql"
        self._placed = _PLACED if self._postgresql else _PLACED_IN_SQLITE
        self._digest = canonical_digest if self._postgresql else digest
        self._signed = verifier is not None
        self._witnesses = Witnesses(connection, self._tenant, verifier, self.add)
        self._progress = progress or (lambda done, total: None)
        self._seal = Seal()
        self._findings: list[Finding] = []
        self._rows = 0
        self._total = 0
        self._kinds = (
            RowKind(AgentMessage.__tablename__, _key, self._intact),
            RowKind(AgentMessage.__tablename__, _key, self._redacted_one),
            RowKind(MessageEvent.__tablename__, _key, self._event),
            RowKind(AuditAct.__tablename__, lambda row: format_id(row[VALUES]["id"]), self._act),
        )
        self._redacted: set[str] = set()

    def add(self, *findings: Finding) -> None:
        self._findings += findings[: MOST_FINDINGS - len(self._findings)]

    def run(self, anchors: Iterable[Anchor]) -> Verification:
        mine = [one for one in anchors if one.tenant == self._tenant.to_bytes(16).hex()]
        known = self._witnesses.chains(mine)
        self._total = sum(one.head.seq for one in known.values())
        deleted = self._acts(known)
        self._history(known)
        unchained = self._unchained(known)
        self._misplaced()
        order = sorted(self._findings, key=lambda one: (one.chain or 0, one.seq or 0))
        return Verification(
            findings=tuple(order),
            rows=self._rows,
            chains=len(known),
            anchors=len(mine),
            signed=self._signed,
            deleted=deleted,
            redacted=len(self._redacted),
            unchained=unchained,
        )

    # -- rows

    def _acts(self, known: Mapping[int, Told]) -> int:
        """Check what was done to history, and take note of it; how many rows were deleted."""
        table = AuditAct.__table__
        own = [number for number, one in known.items() if one.chain.node == ACTS]
        rows = self._connection.execute(
            select(table)
            .where((table.c.tenant_id == self._tenant) | table.c.chain.in_(own))
            .where(text(self._placed))
            .order_by(table.c.chain, table.c.seq)
        ).mappings()
        acts = [(row["chain"], row["seq"], _ACT, _bytes(row["hash"]), row) for row in rows]
        self._rows += len(acts)
        for number, group in groupby(acts, key=itemgetter(CHAIN)):
            self._walk(known, number, group, of_acts=True)
        for number in own:
            if number not in {row[CHAIN] for row in acts}:
                self._walk(known, number, (), of_acts=True)
        return self._witnesses.bury(known)

    def _history(self, known: Mapping[int, Told]) -> None:
        walked = set()
        both = heapq.merge(
            self._read(AgentMessage, _MESSAGE_COLUMNS), self._read(MessageEvent, _EVENT_COLUMNS)
        )
        for number, group in groupby(both, key=itemgetter(CHAIN)):
            walked.add(number)
            self._walk(known, number, group)
        for number, one in known.items():
            if number not in walked and one.chain.node != ACTS:
                self._walk(known, number, ())

    def _walk(
        self,
        known: Mapping[int, Told],
        number: int,
        rows: Iterable[Row],
        *,
        of_acts: bool = False,
    ) -> None:
        one = known.get(number)
        if one is None or (one.chain.node == ACTS) != of_acts:
            for row in rows:
                says = "is in no chain of this tenant"
                self.add(found(Flaw.ADDED, row, self._kinds[row[KIND]], says))
            return
        head = one.head
        later: list[int] = []
        gone = 0 if one.tombstone is None else one.tombstone.seq
        left = {seq: known_hash for seq, known_hash in one.anchored.items() if seq > gone}
        here = _up_to(head.seq, rows, later)
        self.add(*walk(number, one.start(), here, head, left, self._kinds))
        if later and (last := max(later)) > self._head_now(number):
            says = f"the chain ends at row {head.seq:,}, and row {last:,} is there"
            self.add(Finding(Flaw.ADDED, number, head.seq + 1, None, None, says))

    def _head_now(self, number: int) -> int:
        table = Chain.__table__.c
        seq = self._connection.scalar(select(table.seq).where(table.number == number))
        return seq if isinstance(seq, int) else 0

    def _read(self, model: type[Base], columns: str) -> Iterator[Any]:
        """The rows of a table by chain and place."""
        key = id_encoder(self._connection.dialect.name)(self._tenant)
        table, mark = model.__tablename__, "%s" if self._postgresql else "?"
        mine = (
            f"FROM {table} WHERE {self._placed}"  # noqa: S608 - names from our models
            f" AND (tenant_id = {mark} OR chain IN"
            f" (SELECT number FROM chains WHERE tenant_id = {mark})) ORDER BY chain, seq"
        )
        result = self._connection.execution_options(stream_results=True).exec_driver_sql(
            f"SELECT {_in_words(columns)} {mine}"
            if self._postgresql
            else _sorted_by_place(table, columns, mine),
            (key, key),
        )
        for rows in _in_batches(result, postgresql=self._postgresql):
            if self._rows % _EVERY < _AT_ONCE:
                self._progress(self._rows, self._total)
            self._rows += len(rows)
            for row in rows:
                if row[KIND] == _REDACTED:
                    self._note_redaction(row)
                yield row

    def _intact(self, previous: bytes, row: Row) -> bytes:
        values = row[VALUES:_MESSAGE_END]
        check_message(values)
        headers = values[_HEADERS]
        headers_digest = NO_DIGEST if headers is None else self._digest(headers)
        return self._message(previous, row, values, self._digest(values[_PAYLOAD]), headers_digest)

    def _redacted_one(self, previous: bytes, row: Row) -> bytes:
        values = row[VALUES:_MESSAGE_END]
        check_message(values)
        payload_digest, headers_digest = row[_MESSAGE_END:]
        headers = headers_digest
        if headers is None:
            plain_headers = values[_HEADERS]
            headers = NO_DIGEST if plain_headers is None else self._digest(plain_headers)
        payload = payload_digest or self._digest(values[_PAYLOAD])
        if len(payload) != HASH_SIZE or len(headers) != HASH_SIZE:
            raise Malformed("a digest has another length")
        if payload_digest is not None and not is_redacted(values[_PAYLOAD], payload_digest):
            raise Malformed("a payload stands where one was taken away")
        if headers_digest is not None and values[_HEADERS] is not None:
            raise Malformed("headers stand where some were taken away")
        return self._message(previous, row, values, payload, headers)

    def _message(
        self, previous: bytes, row: Row, values: Row, payload: bytes, headers: bytes
    ) -> bytes:
        seal, seq = self._seal.message, row[SEQ]
        error = values[_MESSAGE_ERROR]
        if error is None:
            return seal(previous, seq, values, payload, headers)
        taken = self._taken(values[1], error)
        return _the_one(
            [seal(previous, seq, values, payload, headers, one) for one in taken], row[HASH]
        )

    def _event(self, previous: bytes, row: Row) -> bytes:
        values = row[VALUES:]
        check_event(values)
        taken = self._taken(values[2], values[_EVENT_ERROR])
        return _the_one(
            [self._seal.event(previous, row[SEQ], values, one) for one in taken], row[HASH]
        )

    def _act(self, previous: bytes, row: Row) -> bytes:
        return self._seal.act(previous, row[SEQ], hashed(row[VALUES]))

    def _taken(self, message: Any, error: Any) -> tuple[bytes | None, ...]:
        """Digests that may stand for an error: None for its own, and what a redaction left."""
        digest = None if error is None else digest_of_taken(str(error))
        if digest is None or _shown(message) not in self._witnesses.redactions:
            return (None,)
        return (digest, None)

    def _note_redaction(self, row: Row) -> None:
        own = _key(row)
        self._redacted.add(own)
        if own not in self._witnesses.redactions:
            says = "was redacted, and nobody answers for it"
            self.add(found(Flaw.UNRECORDED, row, self._kinds[_REDACTED], says))

    def _unchained(self, known: Mapping[int, Told]) -> int:
        """How many rows have no place in any chain; those younger than the first are flaws."""
        first = min((one.chain.started_at for one in known.values()), default=None)
        count = 0
        for model in (AgentMessage, MessageEvent):
            table: Any = model.__table__
            loose = (table.c.chain.is_(None)) | (table.c.seq.is_(None))
            mine = table.c.tenant_id == self._tenant
            number = self._connection.scalar(select(func.count()).where(mine, loose)) or 0
            count += number
            newest = None
            if number and first is not None:
                newest = self._connection.scalar(
                    select(table.c.id).where(mine, loose).order_by(table.c.id.desc()).limit(1)
                )
            if newest is not None and (newest >> _MS) * 1_000 >= first:
                says = "has no place in a chain"
                name = model.__tablename__
                self.add(Finding(Flaw.ADDED, None, None, name, format_id(newest), says))
        return count

    def _misplaced(self) -> None:
        """Rows whose place is no number, which SQLite lets happen: no order holds them."""
        if self._postgresql:
            return
        key = id_encoder(self._connection.dialect.name)(self._tenant)
        for model in (AgentMessage, MessageEvent, AuditAct):
            name = model.__tablename__
            for (found_id,) in self._connection.exec_driver_sql(
                f"SELECT id FROM {name}"  # noqa: S608 - names from our models
                " WHERE tenant_id = ? AND (typeof(chain) NOT IN ('integer', 'null')"
                f" OR typeof(seq) NOT IN ('integer', 'null')) LIMIT {MOST_FINDINGS}",
                (key,),
            ):
                says = "its place in a chain is no number"
                self.add(Finding(Flaw.CHANGED, None, None, name, _shown(found_id), says))


def _the_one(hashes: list[bytes], stored: Any) -> bytes:
    """The hash that is stored, if it is among them."""
    return next((one for one in hashes if one == stored), hashes[0])


def _up_to(last: int, rows: Iterable[Row], later: list[int]) -> Iterator[Row]:
    """The rows up to a place; of those after it, the places."""
    for row in rows:
        if row[SEQ] <= last:
            yield row
        else:
            later.append(row[SEQ])


def _in_batches(
    result: CursorResult[Any], *, postgresql: bool
) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows as plain sequences, on SQLite as its driver gives them: there are millions."""
    if postgresql:
        for rows in result.yield_per(_AT_ONCE).partitions():
            yield [plain(row) for row in rows]
        return
    cursor: Any = result.cursor
    while rows := cursor.fetchmany(_AT_ONCE):
        yield rows


def _sorted_by_place(table: str, columns: str, mine: str) -> str:
    """SQLite sorts whole rows, and in a file where there are many: so only the places of the rows
    are sorted, and each is fetched then. Without the LIMIT it would not sort inside."""
    return (
        f"SELECT {columns} FROM (SELECT rowid AS at {mine} LIMIT -1) AS placed"  # noqa: S608 - as above
        f" CROSS JOIN {table} ON {table}.rowid = placed.at"
    )


def _in_words(columns: str) -> str:
    """On PostgreSQL documents are wanted as text: their digests see to the rest."""
    return columns.replace("payload,", "payload::text,").replace("headers,", "headers::text,")


def _key(row: Row) -> str:
    """The key of a row of messages or events, as people see it."""
    return _shown(row[VALUES + 1])


def _shown(key: Any) -> str:
    if isinstance(key, bytes) and len(key) == _ID_SIZE:
        return format_id(MessageId(int.from_bytes(key)))
    return repr(key)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
