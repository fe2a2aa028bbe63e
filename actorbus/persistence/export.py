"""History out of the database: JSON lines, CSV, CloudEvents.

One message at a time goes through, so memory does not grow with history.
"""

from __future__ import annotations

import csv
import json
from io import StringIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from actorbus.errors import InvalidQuery, did_you_mean
from actorbus.message import format_id
from actorbus.persistence.drawing.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from actorbus.persistence.answers import MessageView

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS: Final = (
    "id",
    "created_at",
    "kind",
    "type",
    "sender",
    "recipient",
    "topic",
    "priority",
    "status",
    "reason",
    "error",
    "attempts",
    "started_at",
    "ended_at",
    "deadline",
    "waited",
    "took",
    "correlation_id",
    "causation_id",
    "run_id",
    "node",
    "hops",
    "headers",
    "payload",
)


def cloud_event(view: MessageView) -> dict[str, Any]:
    """A message as a CloudEvent 1.0; its ``data`` is what JSON lines say of it."""
    event = {
        "specversion": "1.0",
        "id": format_id(view.id),
        "source": f"/actorbus/nodes/{quote(view.node, safe='')}",
        "type": f"actorbus.message.{view.kind}",
        "time": view.created_at.isoformat(),
        "datacontenttype": "application/json",
        "data": plain(view),
        "correlationid": format_id(view.correlation_id),
    }
    subject = view.recipient or view.topic
    if subject:
        event["subject"] = subject
    if view.causation_id is not None:
        event["causationid"] = format_id(view.causation_id)
    return event


def json_lines(views: Iterable[MessageView]) -> Iterator[str]:
    """A message a line, in ASCII."""
    for view in views:
        yield json.dumps(plain(view)) + "\n"


def cloud_event_lines(views: Iterable[MessageView]) -> Iterator[str]:
    """A CloudEvent a line, in ASCII."""
    for view in views:
        yield json.dumps(cloud_event(view)) + "\n"


def csv_lines(views: Iterable[MessageView]) -> Iterator[str]:
    """RFC 4180 with a header; headers and payload are JSON.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, and what a
    terminal would obey is shown as an escape.
    """
    line = StringIO()
    writer = csv.writer(line)
    writer.writerow(_COLUMNS)
    yield _taken(line)
    for view in views:
        row = plain(view)
        row["headers"], row["payload"] = json.dumps(row["headers"]), json.dumps(row["payload"])
        writer.writerow([cell(row[name]) for name in _COLUMNS])
        yield _taken(line)


def cell(value: object) -> object:
    """A value that does nothing in a spreadsheet or a terminal but to be shown."""
    if not isinstance(value, str):
        return value
    shown = "".join(
        char if char.isprintable() or char == "\n" else _escaped(char) for char in value
    )
    return f"'{shown}" if value.startswith(_FORMULA) else shown


FORMATS: Final[Mapping[str, Callable[[Iterable[MessageView]], Iterator[str]]]] = {
    "jsonl": json_lines,
    "csv": csv_lines,
    "cloudevents": cloud_event_lines,
}


def lines(format: str, views: Iterable[MessageView]) -> Iterator[str]:
    """The text of an export, in parts that end with a line's end.

    Raises:
        InvalidQuery: there is no such format.
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        meant = did_you_mean(str(format), FORMATS)
        raise InvalidQuery(f"no format {str(format)[:32]!r}.{meant} Use one of {known}")
    return FORMATS[format](views)


def _taken(line: StringIO) -> str:
    text = line.getvalue()
    line.seek(0)
    line.truncate()
    return text


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
