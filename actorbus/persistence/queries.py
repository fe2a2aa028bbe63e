"""History's questions, each asked of one project of one tenant on a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from actorbus.persistence.questions import news, pages, sums, trees
from actorbus.persistence.questions.conditions import matches
from actorbus.persistence.questions.order import causes_first
from actorbus.persistence.questions.scope import messages, scope_of
from actorbus.persistence.questions.views import views_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from actorbus.message import MessageId
    from actorbus.persistence.answers import Counts, Exchange, MessageView, Times, Tree
    from actorbus.persistence.database import Database
    from actorbus.persistence.filters import Filter
    from actorbus.persistence.questions.news import News
    from actorbus.persistence.questions.scope import Scope

_LOOKS: Final = 4
"""At the messages that may match, for a page of those that do."""


class Found(NamedTuple):
    """Messages in order; whoever wants more goes on from `rest`, which is None at the end."""

    views: list[MessageView]
    rest: MessageId | None


class Reader:
    """Answers for one project of one tenant."""

    def __init__(self, database: Database, tenant: str, project: str) -> None:
        self._database = database
        self._tenant = tenant
        self._project = project

    def message(self, id: MessageId) -> MessageView | None:
        with self._database.reading() as connection:
            return next(iter(views_of(connection, self._scope(connection), [id])), None)

    def conversation(self, id: MessageId, limit: int) -> list[MessageView]:
        with self._database.reading() as connection:
            scope = self._scope(connection)
            return _conversation(connection, scope, id, limit) or _conversation(
                connection, scope, _conversation_of(connection, scope, id), limit
            )

    def page(self, wanted: Filter, start: MessageId | None, limit: int) -> Found:
        """What one page's worth of looking finds, newest first."""
        with self._database.reading() as connection:
            return _page(connection, self._scope(connection), wanted, start, limit)

    def messages(self, wanted: Filter, start: MessageId | None, limit: int) -> list[MessageView]:
        """The newest that match, however long the look."""
        with self._database.reading() as connection:
            scope = self._scope(connection)
            found, rest = _page(connection, scope, wanted, start, limit)
            while rest is not None and len(found) < limit:
                more, rest = _page(connection, scope, wanted, rest, limit - len(found))
                found += more
            return found

    def onward(self, wanted: Filter, start: MessageId | None, limit: int) -> Found:
        """What one page's worth of looking finds, oldest first."""
        with self._database.reading() as connection:
            scope = self._scope(connection)
            return _page(connection, scope, wanted, start, limit, forward=True)

    def newest(self) -> MessageId | None:
        with self._database.reading() as connection:
            tenant = self._scope(connection).tenant
            return connection.scalar(
                select(messages.id)
                .where(messages.tenant_id == tenant)
                .order_by(messages.id.desc())
                .limit(1)
            )

    def counts(self) -> Counts:
        with self._database.reading() as connection:
            return sums.counts(connection, self._scope(connection))

    def talk(self, wanted: Filter, limit: int) -> list[Exchange]:
        with self._database.reading() as connection:
            return sums.talk(connection, self._scope(connection), wanted, limit)

    def times(self, wanted: Filter, limit: int) -> list[Times]:
        with self._database.reading() as connection:
            return sums.times(connection, self._scope(connection), wanted, limit)

    def tree(self, id: MessageId, *, depth: int, limit: int) -> Tree | None:
        with self._database.reading() as connection:
            return trees.tree(connection, self._scope(connection), id, depth=depth, limit=limit)

    def heads(self) -> dict[int, int]:
        with self._database.reading() as connection:
            return news.heads(connection, self._scope(connection))

    def news(self, wanted: Filter, places: Mapping[int, int]) -> News | None:
        with self._database.reading() as connection:
            return news.news(connection, self._scope(connection), wanted, places)

    def _scope(self, connection: Connection) -> Scope:
        return scope_of(connection, self._tenant, self._project)


def _page(
    connection: Connection,
    scope: Scope,
    wanted: Filter,
    start: MessageId | None,
    limit: int,
    *,
    forward: bool = False,
) -> Found:
    """At most `limit` that match; SQL finds those that may, and the merged view decides."""
    found: list[MessageView] = []
    for _ in range(_LOOKS):
        room = limit - len(found)
        ids, start = pages.page(connection, scope, wanted, start=start, limit=room, forward=forward)
        found += [view for view in views_of(connection, scope, ids) if matches(view, wanted)]
        if start is None or len(found) == limit or len(ids) < room:
            break
    return Found(found, start)


def _conversation(
    connection: Connection, scope: Scope, id: MessageId | None, limit: int
) -> list[MessageView]:
    if id is None:
        return []
    ids = connection.scalars(
        select(messages.id)
        .where(scope.mine, messages.correlation_id == id)
        .order_by(messages.id)
        .limit(limit)
    ).all()
    return causes_first(views_of(connection, scope, ids))


def _conversation_of(connection: Connection, scope: Scope, id: MessageId) -> MessageId | None:
    return connection.scalar(select(messages.correlation_id).where(scope.mine, messages.id == id))
