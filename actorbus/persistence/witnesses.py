"""What the chains of a tenant must be, by all that tells of them: their heads, the chains that
follow them, their anchors, and the tombstones of what was deleted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from actorbus.persistence.acts import Kind
from actorbus.persistence.chain import Finding, Flaw, Head, Incarnation
from actorbus.persistence.chains import ACTS, incarnation_of
from actorbus.persistence.models import AuditAct, Chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    from actorbus.message import MessageId
    from actorbus.persistence.anchors import Anchor, Verifier


@dataclass(slots=True)
class Told:
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


class Witnesses:
    """
    Args:
        verifier: checks the signatures of anchors.
        add: called with what is wrong.
    """

    def __init__(
        self,
        connection: Connection,
        tenant: MessageId,
        verifier: Verifier | None,
        add: Callable[[Finding], object],
    ) -> None:
        self._connection = connection
        self._tenant = tenant
        self._verifier = verifier
        self._add = add
        self.redactions: set[str] = set()
        """The messages of which somebody says that they were redacted."""

    def chains(self, anchors: Iterable[Anchor]) -> dict[int, Told]:
        """The tenant's chains by number, as all but the tombstones tell of them."""
        known = self._chains()
        self._link(known)
        self._anchor(known, anchors)
        return known

    def bury(self, known: Mapping[int, Told]) -> int:
        """Take note of what was deleted and redacted; how many rows were deleted."""
        table = AuditAct.__table__.c
        deleted = 0
        for row in self._connection.execute(
            select(table.kind, table.target, table.target_seq, table.target_hash, table.rows)
            .where(table.tenant_id == self._tenant)
            .order_by(table.seq)
        ):
            if row.kind == Kind.REDACTED.value:
                self.redactions.add(row.target)
            elif row.kind == Kind.DELETED.value:
                deleted += row.rows or 0
                one = known.get(int(row.target)) if row.target.isdecimal() else None
                if one is not None and row.target_seq is not None:
                    tombstone = Head(row.target_seq, bytes(row.target_hash or b""))
                    self._check_tombstone(one, tombstone)
                    one.tombstone = tombstone
        return deleted

    def _check_tombstone(self, one: Told, tombstone: Head) -> None:
        expected = one.anchored.get(tombstone.seq)
        if expected is not None and expected != tombstone.hash:
            says = "was deleted with another hash than the one that was anchored"
            self._add(
                Finding(Flaw.REWRITTEN, one.chain.number, tombstone.seq, "audit_acts", None, says)
            )

    def _chains(self) -> dict[int, Told]:
        table = Chain.__table__
        rows = self._connection.execute(
            select(table).where(table.c.tenant_id == self._tenant).order_by(table.c.number)
        ).mappings()
        known: dict[int, Told] = {}
        for row in rows:
            chain = incarnation_of(row)
            one = Told(chain, _head(row), bytes(row["genesis"]))
            if one.head.seq != row["seq"]:
                self._add(_chain_flaw(Flaw.CHANGED, chain.number, "its end is no number"))
            known[chain.number] = one
            if chain.genesis().hash != one.genesis:
                self._add(_chain_flaw(Flaw.CHANGED, chain.number, "is not what was written"))
        return known

    def _link(self, known: Mapping[int, Told]) -> None:
        """Let each chain say where the one before it stood."""
        for number, one in known.items():
            previous = one.chain.previous
            if previous is None:
                continue
            before = known.get(previous)
            if before is None:
                says = f"follows chain {previous}, which is gone"
                self._add(_chain_flaw(Flaw.UNLINKED, number, says))
            elif one.chain.link_seq == 0 and one.chain.link != before.genesis:
                says = f"does not follow from chain {previous}"
                self._add(_chain_flaw(Flaw.UNLINKED, number, says))
            elif one.chain.link_seq:
                before.anchored[one.chain.link_seq] = one.chain.link

    def _anchor(self, known: Mapping[int, Told], anchors: Iterable[Anchor]) -> None:
        by_chain: dict[int, list[Anchor]] = defaultdict(list)
        unsigned: dict[int, set[int]] = defaultdict(set)
        for anchor in anchors:
            if self._verifier is not None and not self._verifier.is_signed(anchor):
                says = "an anchor is not signed with that key"
                self._add(anchor_flaw(anchor.chain, anchor.seq, says))
                unsigned[anchor.chain].add(anchor.number)
            else:
                by_chain[anchor.chain].append(anchor)
        for number in sorted(by_chain.keys() - known.keys()):
            says = "the chain is gone: an anchor knows of it"
            self._add(_chain_flaw(Flaw.MISSING, number, says))
        for number, one in known.items():
            trusted = by_chain.get(number, [])
            if not trusted and number not in unsigned:
                self._miss_anchors(one)
            self._anchor_one(one, trusted, unsigned[number])

    def _miss_anchors(self, one: Told) -> None:
        if one.chain.anchors is not None and one.chain.node != ACTS:
            says = f"its anchors are gone; they were kept in {one.chain.anchors}"
            self._add(anchor_flaw(one.chain.number, None, says))

    def _anchor_one(self, one: Told, anchors: list[Anchor], unsigned: set[int]) -> None:
        """`unsigned`: the numbers of anchors that are there, but not to be trusted."""
        number = one.chain.number
        count = 0
        for anchor in anchors:
            count += 1
            while count in unsigned and count < anchor.number:
                count += 1
            if one.chain.node != ACTS and anchor.number != count:
                says = f"anchor {count} of this chain is missing"
                self._add(anchor_flaw(number, anchor.seq, says))
                count = anchor.number
            self._expect(one, anchor.seq, bytes.fromhex(anchor.hash))

    def _expect(self, one: Told, seq: int, expected: bytes) -> None:
        number = one.chain.number
        if seq == 0 and expected != one.genesis:
            self._add(_chain_flaw(Flaw.REWRITTEN, number, "is not the one that was anchored"))
        elif seq and one.anchored.setdefault(seq, expected) != expected:
            says = f"two witnesses tell of different rows {seq:,}"
            self._add(anchor_flaw(number, seq, says))


def _head(row: Mapping[Any, Any]) -> Head:
    """Where a chain ends; at its start, where that is damaged."""
    seq = row["seq"]
    return Head(seq if isinstance(seq, int) else 0, bytes(row["hash"]))


def _chain_flaw(flaw: Flaw, number: int, says: str) -> Finding:
    return Finding(flaw, number, None, Chain.__tablename__, str(number), says)


def anchor_flaw(number: int | None, seq: int | None, says: str) -> Finding:
    return Finding(Flaw.ANCHOR, number, seq, None, None, says)
