"""``python -m benchmarks.million``: pages of a history of 1,000,000 messages, by each filter.

Fills a database through the recorder, then asks for three pages in a row of each filter, for
values that are frequent and for such as there are hardly any. Exit status: 0 if every page took
at most 50 ms, else 1. ``--url`` names a database, which is filled only if it is empty;
otherwise a file is made and removed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from actorbus.clock import SystemClock
from actorbus.errors import AuditUnavailable
from actorbus.message import IdSource, Message, MessageKind, Priority, Reason, Status
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actorbus.message import MessageId
    from actorbus.persistence.recorder import Recorder

_MUST: Final = 0.050
_PAGES: Final = 3
_TRIES: Final = 5
_RARELY: Final = 200_000
_AT_ONCE: Final = 20_000
_SECONDS_A_MESSAGE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Look:
    """How long the slowest of some pages took, each at the best of its tries, in seconds."""

    filters: dict[str, Any]
    slowest: float
    found: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--url", help="a history database; default: a new SQLite file")
    parser.add_argument("--messages", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() if options.url is None else nullcontext(".") as folder:
        url = options.url or f"sqlite:///{Path(folder) / 'million.db'}"
        audit = Audit(url, anchors=False)
        if _is_empty(audit):
            fill(audit, options.messages)
            analyse(url)
        looks = [look(audit, filters) for filters in questions(audit)]
        audit.close()
    _print(looks)
    return 0 if all(one.slowest <= _MUST for one in looks) else 1


def fill(audit: Audit, messages: int) -> None:
    """Conversations of ten messages among twenty agents; some fail, some end late."""
    clock, ids = SystemClock(), IdSource()
    recorder = audit.record(node="node-1", settings=Settings(), telemetry=Telemetry(), clock=clock)
    recorder.start()
    began = time.perf_counter()
    start = clock.now() - messages * _SECONDS_A_MESSAGE
    root: MessageId | None = None
    late: list[Message[Any]] = []
    for number in range(messages):
        at = start + number * _SECONDS_A_MESSAGE
        root = None if number % 10 == 0 else root
        message = _message(number, ids.make(at), root, at)
        root = root or message.id
        recorder.sent(message)
        if number % 10 == 3:
            late.append(message)
        elif number % _RARELY != 1:
            _end(recorder, message, number)
        if number % _AT_ONCE == _AT_ONCE - 1:
            recorder.flush(60)
            for one in late:
                _end(recorder, one, 0 if one.id % 2 else 7)
            late.clear()
    recorder.flush(60)
    recorder.close(60)
    took = time.perf_counter() - began
    print(f"{messages:,} messages written in {took:.0f} s", file=sys.stderr)


def analyse(url: str) -> None:
    """Let the database see what is in its tables, as PostgreSQL does by itself in a minute."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    engine.dispose()


def questions(audit: Audit) -> Iterator[dict[str, Any]]:
    """Each filter with what is frequent, then with what is rare or not there at all."""
    some = audit.messages(limit=1)[0]
    middle = some.created_at.timestamp() - 100_000 * _SECONDS_A_MESSAGE
    yield {}
    for name, values in {
        "sender": ("agent-1", "nobody"),
        "recipient": ("agent-2", "listener", "nobody"),
        "agent": ("agent-1", "listener", "nobody"),
        "type": ("Type0", "Rare", "None"),
        "topic": ("prices.eur", "rare", "none"),
        "kind": ("tell", "broadcast", "error"),
        "status": ("handled", "accepted", "failed", "dead"),
        "reason": ("handler-error", "expired"),
        "run": ("run-1", "no-run"),
        "node": ("node-1", "node-2"),
        "conversation": (some.correlation_id,),
        "since": (middle,),
        "until": (middle,),
        "text": ("finding 1", "needle", "nowhere"),
    }.items():
        for value in values:
            yield {name: value}
    yield {"sender": "agent-1", "type": "Rare"}
    yield {"agent": "agent-1", "status": "dead", "since": middle}
    yield {"run": "run-1", "kind": "error"}


def look(audit: Audit, filters: dict[str, Any]) -> Look:
    cursor, slowest, found = None, 0.0, 0
    for _ in range(_PAGES):
        best = float("inf")
        for _ in range(_TRIES):
            began = time.perf_counter()
            page = audit.page(cursor=cursor, **filters)
            best = min(best, time.perf_counter() - began)
        slowest, found, cursor = max(slowest, best), found + len(page.messages), page.next
        if cursor is None:
            break
    return Look(filters, slowest, found)


def _is_empty(audit: Audit) -> bool:
    try:
        return not audit.messages(limit=1)
    except AuditUnavailable:
        return True


def _message(number: int, id: MessageId, root: MessageId | None, at: float) -> Message[Any]:
    rare = number % _RARELY == 2
    kind = MessageKind.TELL
    topic = None
    if number % 100 == 5:
        kind = MessageKind.BROADCAST
    elif number % 50 == 6 or rare:
        kind, topic = MessageKind.EVENT, "rare" if rare else "prices.eur"
    word = "needle" if rare else f"finding {number}"
    return Message(
        id=id,
        kind=kind,
        sender=f"agent-{number % 20}",
        recipient=f"agent-{number * 7 % 20}" if kind is MessageKind.TELL else None,
        topic=topic,
        payload={"text": word, "of": ["one", "two", "three"], "number": number},
        priority=Priority.NORMAL,
        created_at=at,
        deadline=None,
        correlation_id=root or id,
        causation_id=root,
        run_id=f"run-{number // 1000 % 100}" if number % 2 else None,
        attempt=1,
        hops=0,
        headers=None,
        type="Rare" if rare else f"Type{number % 10}",
    )


def _end(recorder: Recorder, message: Message[Any], number: int) -> None:
    to = message.recipient or "listener"
    at = message.created_at
    if number % 100 == 7:
        recorder.ended(message, to, Status.DEAD, Reason.HANDLER_ERROR, "it broke", at, at + 0.01)
    else:
        recorder.ended(message, to, Status.HANDLED, None, None, at + 0.001, at + 0.002)


def _print(looks: Sequence[Look]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("asked for")
    table.add_column("found", justify="right")
    table.add_column("slowest page", justify="right")
    for one in looks:
        asked = ", ".join(f"{name}={value}" for name, value in one.filters.items()) or "all"
        late = one.slowest > _MUST
        table.add_row(
            asked[:60], str(one.found), f"{one.slowest * 1000:.1f} ms", style="red" if late else ""
        )
    Console(highlight=False, markup=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
