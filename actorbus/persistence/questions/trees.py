"""What caused a message and what it caused.

A cause and its effects share one conversation, so the index by conversation leads to all of
them: no index by cause, which would cost the writer with every message.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from actorbus.persistence.answers import Effect, Tree
from actorbus.persistence.questions.scope import messages
from actorbus.persistence.questions.views import views_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from actorbus.message import MessageId
    from actorbus.persistence.questions.scope import Scope

_LOOKED_THROUGH: Final = 100_000
"""Messages of one conversation; two ids of each are held."""


def tree(
    connection: Connection, scope: Scope, id: MessageId, *, depth: int, limit: int
) -> Tree | None:
    """None if history has no such message."""
    found = views_of(connection, scope, [id])
    if not found:
        return None
    causes, lost = _causes(connection, scope, found[0].causation_id, depth)
    below, complete = _below(connection, scope, found[0].correlation_id)
    depths, left_out = nearest(below, id, depth=depth, limit=limit)
    views = {view.id: view for view in views_of(connection, scope, list(depths))}
    return Tree(
        causes=tuple(views_of(connection, scope, causes[::-1])),
        message=found[0],
        effects=tuple(
            Effect(views[one], depths[one]) for one in drawn(below, id, depths) if one in views
        ),
        left_out=left_out,
        complete=complete,
        lost_cause=lost,
    )


def nearest(
    below: Mapping[MessageId, list[MessageId]], root: MessageId, *, depth: int, limit: int
) -> tuple[dict[MessageId, int], int]:
    """The depth of each of the `limit` effects nearest to the root; how many more there are.

    Level by level, so that a ring, which only a forged history has, ends.
    """
    depths: dict[MessageId, int] = {}
    seen, level, at, left_out = {root}, [root], 0, 0
    while level:
        at += 1
        level = [one for above in level for one in below.get(above, ()) if one not in seen]
        level = list(dict.fromkeys(level))
        seen.update(level)
        room = limit - len(depths) if at <= depth else 0
        depths.update(dict.fromkeys(level[:room], at))
        left_out += len(level[room:])
    return depths, left_out


def drawn(
    below: Mapping[MessageId, list[MessageId]], root: MessageId, depths: Mapping[MessageId, int]
) -> Iterator[MessageId]:
    """Each effect below its cause, in the order they were sent."""
    waiting = [root]
    done = {root}
    while waiting:
        one = waiting.pop()
        if one != root:
            yield one
        later = [child for child in below.get(one, ()) if child in depths and child not in done]
        done.update(later)
        waiting += reversed(later)


def _causes(
    connection: Connection, scope: Scope, cause: MessageId | None, depth: int
) -> tuple[list[MessageId], MessageId | None]:
    """From the nearest cause up to the first, and the one beyond that is not there."""
    up: list[MessageId] = []
    while cause is not None and len(up) < depth and cause not in up:
        row = connection.execute(
            select(messages.causation_id).where(scope.mine, messages.id == cause)
        ).first()
        if row is None:
            break
        up.append(cause)
        cause = row.causation_id
    return up, cause


def _below(
    connection: Connection, scope: Scope, conversation: MessageId
) -> tuple[dict[MessageId, list[MessageId]], bool]:
    """Who caused whom in a conversation, in the order of sending; False if that is a part."""
    rows = connection.execute(
        select(messages.id, messages.causation_id)
        .where(scope.mine, messages.correlation_id == conversation)
        .order_by(messages.id)
        .limit(_LOOKED_THROUGH + 1)
    )
    below: dict[MessageId, list[MessageId]] = defaultdict(list)
    read = 0
    for sent, cause in rows:
        read += 1
        if cause is not None and read <= _LOOKED_THROUGH:
            below[cause].append(sent)
    return below, read <= _LOOKED_THROUGH
