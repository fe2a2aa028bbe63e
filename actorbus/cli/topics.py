"""``actorbus topics``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from actorbus.cli.audit.common import AsJson, console, inert, print_json, table
from actorbus.cli.deployment import Bus, Namespace  # noqa: TC001 - typer reads the hints
from actorbus.cli.guest import failures_told, reached
from actorbus.errors import Undecodable, Untrusted
from actorbus.message import MessageId, Priority, check_pattern, format_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.bus.transports.redis.topics.log import Broken, Entry, Point, TopicLog
    from actorbus.cli.guest import Deployment

_COUNT: Final = 200
_SIZE: Final = 4 << 20
_MOST_AGENTS: Final = 10_000
_PAUSE: Final = 0.2
"""Seconds between two looks at the log."""


def topics(
    bus: Bus,
    follow: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Show events of such topics as they come, until Ctrl-C: '>'."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="With --follow: end after so many.")
    ] = None,
    look_at: Annotated[
        int, typer.Option("--last", min=1, max=100_000, help="Newest entries to count by topic.")
    ] = 10_000,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show who subscribed to what, and what the log of events holds; with --follow, read it.

    With --follow and --json each event is a line.

    Ends with 0, with 1 if the server is not there, with 2 for arguments that cannot be meant,
    and with 130 where Ctrl-C ended it.
    """
    with reached(bus, namespace) as there, failures_told():
        if follow is not None:
            check_pattern(follow)
            _follow(there, follow, count, as_json)
            return
        subscriptions = _subscriptions(there)
        log = _log_of(there)
        held = _held(log, look_at)
    if as_json:
        print_json({"subscriptions": subscriptions, "log": held})
        return
    _show(subscriptions, held)


def _subscriptions(there: Deployment) -> list[dict[str, Any]]:
    """Those of classes, as agents tell of themselves, and those made while they ran."""
    from actorbus.bus.transports.redis.topics.audience import read_back
    from actorbus.registry.directories.redis import RedisDirectory

    directory = RedisDirectory(
        there.server, there.codec, namespace=there.settings.namespace, names_held=True
    )
    try:
        directory.look()
        members = directory.members()
    finally:
        directory.close()
    found: list[dict[str, Any]] = [
        {"pattern": str(pattern), "agent": one.member.name, "where": None}
        for one in members
        for pattern in one.member.metadata.get("subscriptions", ())
    ]
    names = [one for one in there.log.names(limit=_MOST_AGENTS) if not one.startswith(" ")]
    for name, made in zip(names, _log_of(there).subscriptions(names), strict=True):
        for data in made:
            try:
                route = read_back(name, data, there.codec)
            except Undecodable:
                continue  # of a newer version, or nobody's
            where = {
                field: [one.test, _plain(one.value)] for field, one in (route.where or {}).items()
            }
            found.append({"pattern": route.pattern, "agent": name, "where": where or None})
    return sorted(found, key=lambda one: (one["pattern"], one["agent"]))


def _held(log: TopicLog, most: int) -> dict[str, Any]:
    """What the log holds, and its newest entries counted by topic."""
    found = log.newest(most)
    counts = Counter(getattr(one, "topic", None) or "(everyone)" for one in found)
    since = None if not found else _when(found[-1]).isoformat()
    return {
        "published": log.end().number,
        "looked_at": len(found),
        "since": since,
        "topics": dict(sorted(counts.items())),
    }


def _show(subscriptions: list[dict[str, Any]], held: dict[str, Any]) -> None:
    if subscriptions:
        listed = table("pattern", "agent", "where")
        for one in subscriptions:
            where = "-" if one["where"] is None else json.dumps(one["where"], ensure_ascii=False)
            listed.add_row(inert(one["pattern"]), inert(one["agent"]), inert(where))
        console().print(listed)
    else:
        console(stderr=True).print(inert("Nobody has subscribed to anything."))
    console().print()
    total = f"{held['published']:,} events and broadcasts were published"
    if not held["topics"]:
        console().print(inert(f"{total}; the log holds none."))
        return
    since = datetime.fromisoformat(held["since"]).astimezone()
    newest = f"the newest {held['looked_at']:,}, since {since:%Y-%m-%d %H:%M:%S}"
    console().print(inert(f"{total}; {newest}:"))
    counted = table("topic", "events")
    for topic, count in held["topics"].items():
        counted.add_row(inert(topic), f"{count:,}")
    console().print(counted)


def _follow(there: Deployment, pattern: str, count: int | None, as_json: bool) -> None:
    if not as_json:
        sentence = f"Following {pattern!r}. Ctrl-C ends it."
        console(stderr=True).print(inert(sentence), style="dim")
    try:
        for number, entry in enumerate(_coming(there, pattern), 1):
            _tell(there, entry, as_json)
            if number == count:
                return
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _coming(there: Deployment, pattern: str) -> Iterator[Entry]:
    from actorbus.bus.routing import topic_matches
    from actorbus.bus.transports.redis.topics.log import Entry, Rewound

    log = _log_of(there)
    after: tuple[Point, bytes | None] = (log.end(), None)
    while True:
        (found,) = log.read([after], count=_COUNT, size=_SIZE)
        if isinstance(found, Rewound):
            sentence = "The server lost the end of the log; events may have been missed."
            console(stderr=True).print(sentence, style="yellow")
            after = (found.last, None)
            continue
        for entry in found.entries:
            after = (entry.point, entry.id)
            if isinstance(entry, Entry) and entry.topic and topic_matches(pattern, entry.topic):
                yield entry
        if not found.entries:
            time.sleep(_PAUSE)


def _tell(there: Deployment, entry: Entry, as_json: bool) -> None:
    told = {
        "id": format_id(MessageId(int.from_bytes(entry.id, "big"))),
        "at": _when(entry).isoformat(),
        "topic": entry.topic,
        "sender": entry.sender,
        "priority": Priority(entry.level).name,
        **_contents(there, entry),
    }
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        return
    shown = told.get("unreadable") or json.dumps(told["payload"], ensure_ascii=False)
    line = inert(f"{_when(entry):%H:%M:%S}  {entry.topic}", style="")
    line.append_text(inert(f"  {entry.sender or '(outside)'}  ", style="dim"))
    line.append_text(inert(shown))
    console().print(line, soft_wrap=True)


def _contents(there: Deployment, entry: Entry) -> dict[str, Any]:
    from actorbus.bus.transports.redis.letters import read_message
    from actorbus.bus.transports.redis.topics.log import TOPICS

    blob = entry.blob
    try:
        if there.trust is not None:
            blob = there.trust.open(TOPICS, blob, time.time(), level=entry.level, again=True).blob
        message, _ = read_message(there.codec, blob, 0.0)
    except (Undecodable, Untrusted) as error:
        return {"unreadable": str(error)}
    return {"type": message.type, "payload": _plain(message.payload)}


def _log_of(there: Deployment) -> TopicLog:
    from actorbus.bus.transports.redis.topics.log import TopicLog

    return TopicLog(there.server, there.log)


def _when(entry: Entry | Broken) -> datetime:
    return datetime.fromtimestamp(entry.point.time / 1e3).astimezone()


def _plain(value: Any) -> Any:
    from actorbus.persistence.payloads import encode

    return json.loads(encode(value))
