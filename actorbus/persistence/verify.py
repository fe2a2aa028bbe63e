"""Verifies the history of a tenant against its chains and their anchors.

One pass over the rows in the order of their chains, in which the database sorts them. History
may be written and deleted meanwhile: anchors are read first, then one state of the database.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from actorbus.message import format_id
from actorbus.persistence.acts import Kind, hashed, tenant_key
from actorbus.persistence.chain import (
    HASH_SIZE,
    NO_DIGEST,
    Finding,
    Flaw,
    Head,
    Incarnation,
    Link,
    Malformed,
    Seal,
    canonical_digest,
    check_event,
    check_message,
    digest,
    walk,
)
from actorbus.persistence.chains import ACTS, EVENT_WIDTH, MESSAGE_WIDTH, incarnation_of, plain
from actorbus.persistence.columns import id_encoder
from actorbus.persistence.models import AgentMessage, AuditAct, Base, Chain, MessageEvent
from actorbus.persistence.redaction import digest_of_taken, is_redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection

    from actorbus.persistence.anchors import Anchor, Verifier
    from actorbus.persistence.database import Database

MOST_FINDINGS: Final = 1_000
_EVERY: Final = 10_000
_PAYLOAD, _HEADERS = 11, 12
_MESSAGE_ERROR, _EVENT_ERROR = 20, 7
_PLACE: Final = ("chain", "seq", "hash")
_MS: Final = 80


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


@dataclass(slots=True)
class _Known:
    """One chain as the database tells of it, and what others say about it."""

    chain: Incarnation
    head: Head
    genesis: bytes
    tombstone: Head | None = None
    anchored: dict[int, bytes] = field(default_factory=dict)

    def start(self) -> list[Head]:
        if self.tombstone is not None:
            return [self.tombstone]
        return [self.chain.genesis(), Head(0, self.genesis)]


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
            examination.add(_anchor_flaw(None, None, f"line {line:,} of {place} is no anchor"))
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
        self._digest = canonical_digest if self._postgresql else digest
        self._verifier = verifier
        self._progress = progress or (lambda done, total: None)
        self._seal = Seal()
        self._findings: list[Finding] = []
        self._rows = 0
        self._total = 0
        self._redacted: set[str] = set()
        self._recorded: set[str] = set()

    def add(self, *findings: Finding) -> None:
        self._findings += findings[: MOST_FINDINGS - len(self._findings)]

    def run(self, anchors: Iterable[Anchor]) -> Verification:
        mine = [one for one in anchors if one.tenant == self._tenant.to_bytes(16).hex()]
        known = self._chains()
        self._total = sum(one.head.seq for one in known.values())
        self._link(known)
        self._anchor(known, mine)
        deleted = self._acts(known)
        self._history(known)
        unchained = self._unchained(known)
        order = sorted(self._findings, key=lambda one: (one.chain or 0, one.seq or 0))
        return Verification(
            findings=tuple(order),
            rows=self._rows,
            chains=len(known),
            anchors=len(mine),
            signed=self._verifier is not None,
            deleted=deleted,
            redacted=len(self._redacted),
            unchained=unchained,
        )

    # -- chains and what is said of them

    def _chains(self) -> dict[int, _Known]:
        table = Chain.__table__
        rows = self._connection.execute(
            select(table).where(table.c.tenant_id == self._tenant).order_by(table.c.number)
        ).mappings()
        known: dict[int, _Known] = {}
        for row in rows:
            chain = incarnation_of(row)
            one = _Known(chain, Head(row["seq"], bytes(row["hash"])), bytes(row["genesis"]))
            known[chain.number] = one
            if chain.genesis().hash != one.genesis:
                self.add(_chain_flaw(Flaw.CHANGED, chain.number, "is not what was written"))
        return known

    def _link(self, known: Mapping[int, _Known]) -> None:
        """Let each chain say where the one before it stood."""
        for number, one in known.items():
            previous = one.chain.previous
            if previous is None:
                continue
            before = known.get(previous)
            if before is None:
                says = f"follows chain {previous}, which is gone"
                self.add(_chain_flaw(Flaw.UNLINKED, number, says))
            elif one.chain.link_seq == 0 and one.chain.link != before.genesis:
                says = f"does not follow from chain {previous}"
                self.add(_chain_flaw(Flaw.UNLINKED, number, says))
            elif one.chain.link_seq:
                before.anchored[one.chain.link_seq] = one.chain.link

    def _anchor(self, known: Mapping[int, _Known], anchors: Iterable[Anchor]) -> None:
        by_chain: dict[int, list[Anchor]] = defaultdict(list)
        for anchor in anchors:
            if self._verifier is not None and not self._verifier.is_signed(anchor):
                says = "an anchor is not signed with that key"
                self.add(_anchor_flaw(anchor.chain, anchor.seq, says))
            else:
                by_chain[anchor.chain].append(anchor)
        for number in sorted(by_chain.keys() - known.keys()):
            says = "the chain is gone: an anchor knows of it"
            self.add(_chain_flaw(Flaw.MISSING, number, says))
        for number, one in known.items():
            self._anchor_one(one, by_chain.get(number, []))

    def _anchor_one(self, one: _Known, anchors: list[Anchor]) -> None:
        number = one.chain.number
        if one.chain.anchors is not None and not anchors and one.chain.node != ACTS:
            says = f"its anchors are gone; they were kept in {one.chain.anchors}"
            self.add(_anchor_flaw(number, None, says))
        count = 0
        for anchor in anchors:
            count += 1
            if one.chain.node != ACTS and anchor.number != count:
                says = f"anchor {count} of this chain is missing"
                self.add(_anchor_flaw(number, anchor.seq, says))
                count = anchor.number
            self._expect(one, anchor.seq, bytes.fromhex(anchor.hash))

    def _expect(self, one: _Known, seq: int, expected: bytes) -> None:
        number = one.chain.number
        if seq == 0 and expected != one.genesis:
            self.add(_chain_flaw(Flaw.REWRITTEN, number, "is not the one that was anchored"))
        elif seq and one.anchored.setdefault(seq, expected) != expected:
            says = f"two witnesses tell of different rows {seq:,}"
            self.add(_anchor_flaw(number, seq, says))

    # -- rows

    def _acts(self, known: Mapping[int, _Known]) -> int:
        """Check what was done to history, and take note of it; how many rows were deleted."""
        table = AuditAct.__table__
        own = [number for number, one in known.items() if one.chain.node == ACTS]
        rows = self._connection.execute(
            select(table)
            .where((table.c.tenant_id == self._tenant) | table.c.chain.in_(own))
            .order_by(table.c.chain, table.c.seq)
        ).mappings()
        places = [(row["chain"], row["seq"], self._act(row)) for row in rows.all()]
        for number, group in groupby(places, key=lambda place: place[0]):
            self._walk(known, number, (link for _, _, link in group), of_acts=True)
        for number in own:
            if number not in {place[0] for place in places}:
                self._walk(known, number, (), of_acts=True)
        return self._bury(known)

    def _bury(self, known: Mapping[int, _Known]) -> int:
        table = AuditAct.__table__.c
        deleted = 0
        for row in self._connection.execute(
            select(table.kind, table.target, table.target_seq, table.target_hash, table.rows)
            .where(table.tenant_id == self._tenant)
            .order_by(table.seq)
        ):
            if row.kind == Kind.REDACTED.value:
                self._recorded.add(row.target)
            elif row.kind == Kind.DELETED.value:
                deleted += row.rows or 0
                one = known.get(int(row.target)) if row.target.isdecimal() else None
                if one is not None and row.target_seq is not None:
                    tombstone = Head(row.target_seq, bytes(row.target_hash or b""))
                    self._check_tombstone(one, tombstone)
                    one.tombstone = tombstone
        return deleted

    def _check_tombstone(self, one: _Known, tombstone: Head) -> None:
        expected = one.anchored.get(tombstone.seq)
        if expected is not None and expected != tombstone.hash:
            says = "was deleted with another hash than the one that was anchored"
            self.add(
                Finding(Flaw.REWRITTEN, one.chain.number, tombstone.seq, "audit_acts", None, says)
            )

    def _history(self, known: Mapping[int, _Known]) -> None:
        walked = set()
        both = heapq.merge(
            self._links(AgentMessage, MESSAGE_WIDTH, self._message),
            self._links(MessageEvent, EVENT_WIDTH, self._event),
            key=lambda place: place[:2],
        )
        for number, group in groupby(both, key=lambda place: place[0]):
            walked.add(number)
            self._walk(known, number, (link for _, _, link in group))
        for number, one in known.items():
            if number not in walked and one.chain.node != ACTS:
                self._walk(known, number, ())

    def _walk(
        self,
        known: Mapping[int, _Known],
        number: int,
        links: Iterable[Link],
        *,
        of_acts: bool = False,
    ) -> None:
        one = known.get(number)
        if one is None or (one.chain.node == ACTS) != of_acts:
            for link in links:
                says = "is in no chain of this tenant"
                self.add(Finding(Flaw.ADDED, number, link.seq, link.table, link.id, says))
            return
        head = one.head
        later: list[int] = []
        gone = 0 if one.tombstone is None else one.tombstone.seq
        left = {seq: known_hash for seq, known_hash in one.anchored.items() if seq > gone}
        self.add(*walk(number, one.start(), _up_to(head.seq, links, later), head, left))
        if later and (last := max(later)) > self._head_now(number):
            says = f"the chain ends at row {head.seq:,}, and row {last:,} is there"
            self.add(Finding(Flaw.ADDED, number, head.seq + 1, None, None, says))

    def _head_now(self, number: int) -> int:
        table = Chain.__table__.c
        return self._connection.scalar(select(table.seq).where(table.number == number)) or 0

    def _links(
        self, model: type[Base], width: int, rehash: Callable[..., Callable[[bytes], bytes]]
    ) -> Iterator[tuple[int, int, Link]]:
        """The rows of a table by chain and place."""
        table = model.__tablename__
        columns = _columns(model, width, cast=self._postgresql)
        mark = "%s" if self._postgresql else "?"
        key = id_encoder(self._connection.dialect.name)(self._tenant)
        result = self._connection.execution_options(stream_results=True).exec_driver_sql(
            f"SELECT {columns} FROM {table} WHERE chain IS NOT NULL AND seq IS NOT NULL"  # noqa: S608 - names from our models
            f" AND (tenant_id = {mark} OR chain IN"
            f" (SELECT number FROM chains WHERE tenant_id = {mark})) ORDER BY chain, seq",
            (key, key),
        )
        for row in result.yield_per(_EVERY // 10):
            values: Any = plain(row) if self._postgresql else row
            chain, seq, stored = values[width : width + 3]
            if self._rows % _EVERY == 0:
                self._progress(self._rows, self._total)
            self._rows += 1
            yield chain, seq, Link(seq, table, _shown(values[1]), stored, rehash(seq, values))

    def _message(self, seq: int, values: Any) -> Callable[[bytes], bytes]:
        payload_digest, headers_digest = values[MESSAGE_WIDTH + 3 :]
        if payload_digest is not None or headers_digest is not None:
            self._note_redaction(values)

        def rehash(previous: bytes) -> bytes:
            row = values[:MESSAGE_WIDTH]
            check_message(row)
            headers = headers_digest
            if headers is None:
                text = row[_HEADERS]
                headers = NO_DIGEST if text is None else self._digest(text)
            payload = payload_digest or self._digest(row[_PAYLOAD])
            if len(payload) != HASH_SIZE or len(headers) != HASH_SIZE:
                raise Malformed("a digest has another length")
            if payload_digest is not None and not is_redacted(row[_PAYLOAD], payload_digest):
                raise Malformed("a payload stands where one was taken away")
            if headers_digest is not None and row[_HEADERS] is not None:
                raise Malformed("headers stand where some were taken away")
            taken = self._taken(row[1], row[_MESSAGE_ERROR])
            hashes = [
                self._seal.message(previous, seq, row, payload, headers, one) for one in taken
            ]
            return _the_one(hashes, values[MESSAGE_WIDTH + 2])

        return rehash

    def _event(self, seq: int, values: Any) -> Callable[[bytes], bytes]:
        def rehash(previous: bytes) -> bytes:
            row = values[:EVENT_WIDTH]
            check_event(row)
            taken = self._taken(row[2], row[_EVENT_ERROR])
            hashes = [self._seal.event(previous, seq, row, one) for one in taken]
            return _the_one(hashes, values[EVENT_WIDTH + 2])

        return rehash

    def _taken(self, message: Any, error: Any) -> tuple[bytes | None, ...]:
        """Digests that may stand for an error: None for its own, and what a redaction left."""
        digest = None if error is None else digest_of_taken(str(error))
        if digest is None or _shown(message) not in self._recorded:
            return (None,)
        return (digest, None)

    def _act(self, row: Any) -> Link:
        def rehash(previous: bytes) -> bytes:
            return self._seal.act(previous, row["seq"], hashed(row))

        self._rows += 1
        stored = row["hash"] if row["hash"] is None else bytes(row["hash"])
        return Link(row["seq"], AuditAct.__tablename__, format_id(row["id"]), stored, rehash)

    def _note_redaction(self, values: Any) -> None:
        own = _shown(values[1])
        self._redacted.add(own)
        if own not in self._recorded:
            self.add(
                Finding(
                    Flaw.UNRECORDED,
                    values[MESSAGE_WIDTH],
                    values[MESSAGE_WIDTH + 1],
                    AgentMessage.__tablename__,
                    own,
                    "was redacted, and nobody answers for it",
                )
            )

    def _unchained(self, known: Mapping[int, _Known]) -> int:
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


def _the_one(hashes: list[bytes], stored: Any) -> bytes:
    """The hash that is stored, if it is among them."""
    return next((one for one in hashes if one == stored), hashes[0])


def _up_to(last: int, links: Iterable[Link], later: list[int]) -> Iterator[Link]:
    """The links up to a place; of those after it, the places."""
    for link in links:
        if link.seq <= last:
            yield link
        else:
            later.append(link.seq)


def _columns(model: type[Base], width: int, *, cast: bool) -> str:
    names = [column.name for column in model.__table__.columns][:width]
    if cast:
        names = [f"{name}::text" if name in ("payload", "headers") else name for name in names]
    digests = ["payload_digest", "headers_digest"] if model is AgentMessage else []
    return ", ".join([*names, *_PLACE, *digests])


def _shown(key: Any) -> str:
    """``format_id`` of a row's key, in a quarter of the time: each row has one."""
    if isinstance(key, bytes) and len(key) == 16:
        digits = key.hex()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return repr(key)


def _chain_flaw(flaw: Flaw, number: int, says: str) -> Finding:
    return Finding(flaw, number, None, Chain.__tablename__, str(number), says)


def _anchor_flaw(number: int | None, seq: int | None, says: str) -> Finding:
    return Finding(Flaw.ANCHOR, number, seq, None, None, says)
