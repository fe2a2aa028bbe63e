"""A filter in SQL.

A status can change in an event, so SQL only narrows down, and ``matches`` decides on the
merged view.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import Text, cast, or_

from actorbus.message import MessageId, Status
from actorbus.persistence.questions.scope import has_event, messages, told_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any

    from actorbus.persistence.answers import MessageView
    from actorbus.persistence.filters import Filter
    from actorbus.persistence.questions.scope import Condition

_SKEW_MS: Final = 60_000
"""An id is made within this of its message's ``created_at``, however busy the machine."""


def matches(view: MessageView, wanted: Filter) -> bool:
    return wanted.status in (None, view.status) and wanted.reason in (None, view.reason)


def conditions(wanted: Filter) -> Iterator[Condition]:
    """All that must hold for a message, as far as SQL can tell."""
    for column, value in (
        (messages.sender, wanted.sender),
        (messages.type, wanted.type),
        (messages.topic, wanted.topic),
        (messages.kind, wanted.kind),
        (messages.run_id, wanted.run),
        (messages.node, wanted.node),
        (messages.correlation_id, wanted.conversation),
    ):
        if value is not None:
            yield column == value
    if wanted.recipient is not None:
        yield _reached(wanted.recipient)
    if wanted.agent is not None:
        yield or_(messages.sender == wanted.agent, _reached(wanted.agent))
    yield from _endings(wanted)
    if wanted.since is not None:
        yield messages.created_at >= wanted.since
    if wanted.until is not None:
        yield messages.created_at < wanted.until
    if wanted.text is not None:
        yield _says(wanted.text)


def id_range(wanted: Filter, id: Any) -> Iterator[Condition]:
    """The stretch of ids in which messages of that time lie, and others near by."""
    if wanted.since is not None:
        yield id >= _first_id(wanted.since, -_SKEW_MS)
    if wanted.until is not None:
        yield id < _first_id(wanted.until, _SKEW_MS)


def _reached(recipient: str) -> Condition:
    return or_(messages.recipient == recipient, has_event(told_of.c.recipient == recipient))


def _endings(wanted: Filter) -> Iterator[Condition]:
    if wanted.status is Status.ACCEPTED:
        yield messages.status == wanted.status
        yield ~has_event()
    elif wanted.status is not None:
        yield or_(messages.status == wanted.status, has_event(told_of.c.status == wanted.status))
    if wanted.reason is not None:
        yield or_(messages.reason == wanted.reason, has_event(told_of.c.reason == wanted.reason))


def _says(text: str) -> Condition:
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    return or_(
        cast(messages.payload, Text).icontains(inside, autoescape=True),
        messages.error.icontains(text, autoescape=True),
        has_event(told_of.c.error.icontains(text, autoescape=True)),
    )


def _first_id(moment: datetime, skew_ms: int) -> MessageId:
    milliseconds = int(moment.timestamp() * 1000) + skew_ms
    return MessageId(min(max(milliseconds, 0), (1 << 48) - 1) << 80)
