"""What is new in history, with no gap and nothing twice.

Ids are no order of commits: several nodes write one database, and what one of them sent early
may be committed late. But each node incarnation has a chain, which numbers its rows without a
gap in the order of their commits, and its head moves in the transaction that adds them. So a
reader keeps its place in each chain and reads on from there up to the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from actorbus.persistence.models import Chain
from actorbus.persistence.questions.conditions import conditions, matches
from actorbus.persistence.questions.scope import messages
from actorbus.persistence.questions.views import views_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from actorbus.message import MessageId
    from actorbus.persistence.answers import MessageView
    from actorbus.persistence.filters import Filter
    from actorbus.persistence.questions.scope import Scope

_AT_ONCE: Final = 500
_ROWS: Final = 2_000

_chains: Final = Chain.__table__.c


class News(NamedTuple):
    """Messages of one chain with their places in it, and how far it was read for them."""

    chain: int
    found: list[tuple[int, MessageView]]
    read: int


def heads(connection: Connection, scope: Scope) -> dict[int, int]:
    """How far each chain of the tenant goes."""
    rows = connection.execute(
        select(_chains.number, _chains.seq)
        .where(_chains.tenant_id == scope.tenant)
        .order_by(_chains.number)
    )
    return {number: seq for number, seq in rows}  # noqa: C416 - rows are no pairs to mypy


def news(
    connection: Connection, scope: Scope, wanted: Filter, places: Mapping[int, int]
) -> News | None:
    """Some of what a chain holds beyond its place; None if there is nothing new in any."""
    for chain, head in heads(connection, scope).items():
        place = places.get(chain, 0)
        if place < head:
            return _of_chain(connection, scope, wanted, chain, place, min(head, place + _ROWS))
    return None


def _of_chain(
    connection: Connection, scope: Scope, wanted: Filter, chain: int, place: int, until: int
) -> News:
    rows = connection.execute(
        select(messages.id, messages.seq)
        .where(messages.chain == chain, messages.seq > place, messages.seq <= until)
        .where(scope.mine, *conditions(wanted))
        .order_by(messages.seq)
        .limit(_AT_ONCE)
    ).all()
    places: dict[MessageId, int] = {row.id: row.seq for row in rows}
    found = [
        (places[view.id], view)
        for view in views_of(connection, scope, list(places))
        if matches(view, wanted)
    ]
    return News(chain, found, rows[-1].seq if len(rows) == _AT_ONCE else until)
