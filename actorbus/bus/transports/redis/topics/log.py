"""Events and broadcasts in Redis: one log for all topics, read by every node.

Theory. An event is written once, whoever subscribes; nothing is copied to subscribers. The log
numbers what it takes, from 1 by 1, so that what is missing can be counted. An agent's *point*
divides the log in what it has had and what it has not; the server keeps one *watermark* for
all agents of a node, and points only of those that are elsewhere, so 10,000 agents that keep up
cost nothing. Who takes an agent over goes on at its point.

Publishing is a send to ``TOPICS``, a name that no agent can have: numbered by its producer, so
an event that is sent twice is taken once, and in the producer's order, whatever the topics.

A point carries the server's time beside the number, and readers name the id of the message that
they read last: a server that lost its tail, and hands out the same numbers again, is found out.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.bus.transports.redis.items import ID_SIZE
from actorbus.bus.transports.redis.newest import newest_of
from actorbus.errors import InvalidName
from actorbus.message import check_topic
from actorbus.redis_client import Script, decoded, encoded, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.redis_client import RedisServer

TOPICS: Final = " topics"
"""Where events are sent to. No agent can have the name: it begins with a space."""
_KEPT: Final = 7 * 24 * 3_600
"""Seconds for which a node that says no more is remembered."""
_EXPIRY: Final = 13
_HEAD: Final = _EXPIRY + 1
_LENGTH: Final = 2


class Point(NamedTuple):
    """Between entry `number` and the next; `time` is the server's, in milliseconds."""

    number: int = 0
    time: int = 0

    def __str__(self) -> str:
        return f"{self.time}-{self.number}"


START: Final = Point()


class Entry(NamedTuple):
    """An event, or without a topic a broadcast. ``expiry`` in server milliseconds; 0: never."""

    point: Point
    level: int
    id: bytes
    expiry: int
    topic: str | None
    sender: str | None
    blob: bytes

    @property
    def before(self) -> Point:
        """Between the entry before this one and this one."""
        return Point(self.point.number - 1, self.point.time)


class Broken(NamedTuple):
    """An entry that none of us wrote."""

    point: Point
    id: bytes
    raw: bytes

    @property
    def before(self) -> Point:
        return Point(self.point.number - 1, self.point.time)


class Found(NamedTuple):
    """What comes after a point. Where its first entry is not the next, those between are gone."""

    entries: tuple[Entry | Broken, ...]
    now: int
    """Server time, in milliseconds."""
    last: Point
    """The end of the log."""


class Rewound(NamedTuple):
    """The log is not the one that was read: the server lost its tail."""

    last: Point
    first: Point | None
    """What is kept begins with that entry; None: nothing is."""


class Save(NamedTuple):
    """What the server is to know from now on, about the points of a node's agents."""

    read: Point
    read_id: bytes
    watermark: Point
    points: tuple[tuple[str, Point], ...]
    """Those that are not at the watermark."""
    cleared: tuple[str, ...]
    """Those that are at the watermark again."""
    anew: bool = False
    """Whether what it knew of others is to go."""

    def without(self, agent: str) -> Save:
        """The same, for all others."""
        return self._replace(
            points=tuple(one for one in self.points if one[0] != agent),
            cleared=tuple(one for one in self.cleared if one != agent),
        )


class Answer(NamedTuple):
    """What came of a call: a word, and its points."""

    word: str
    rest: tuple[str, ...] = ()


def event(topic: str | None, sender: str | None, blob: bytes) -> tuple[str, bytes]:
    """The ``agent`` and ``blob`` of the parcel that publishes `blob`; no topic: to everyone.

    The parcel's delay is not looked at: an event is taken at once.
    """
    return TOPICS, _text(topic) + _text(sender) + blob


class TopicLog:
    """The log of a deployment. Safe from any thread.

    What redis-py raises comes out as ``TransportUnavailable``.

    Args:
        inboxes: whose server partition the log shares, and its bells.
        most: entries that are kept, of so many `size` bytes together, and `age`: for how many
            seconds. What is beyond any of these goes.
    """

    def __init__(
        self,
        server: RedisServer,
        inboxes: InboxLog,
        *,
        most: int = 100_000,
        size: int = 256 * 1024 * 1024,
        age: float = 3_600.0,
    ) -> None:
        self._server = server
        self._most = most
        self._size = size
        self._age = age
        self._tag = inboxes.tag(TOPICS)
        self.bell = inboxes.bell(self._tag, TOPICS)
        """The channel that rings when something was published."""
        self._read = Script.beside(__file__, "read")
        self._keep = Script.beside(__file__, "keep")
        self._enter = Script.beside(__file__, "enter")
        self._trim = Script.beside(__file__, "trim")

    def ring(self) -> None:
        """Have everybody look."""
        with self._server.errors():
            self._client.publish(self.bell, "look")

    def read(
        self, after: Sequence[tuple[Point, bytes | None]], *, count: int, size: int
    ) -> list[Found | Rewound]:
        """What comes after each point, in one round trip; `size` in bytes, of each.

        With a point goes the id of the entry there, b"" if it is not known; None for a point
        that may lie between two entries.
        """
        calls = [
            (self._read, (self._tag,), (str(point), b"-" if id_ is None else id_, count, size))
            for point, id_ in after
        ]
        with self._server.errors():
            told = run_all(self._client, calls)
            for one in told:
                if isinstance(one, Exception):
                    raise one
        return [_found(one) for one in told]

    def keep(self, what: str, node: str, before: int, this: int, *arguments: Any) -> Answer:
        """One numbered call of a node's record; see ``keep.lua``."""
        with self._server.errors():
            told = self._keep(
                self._client, [self._tag], [what, encoded(node), before, this, _KEPT, *arguments]
            )
        word, *rest = told.decode().split(" ")
        return Answer(word, tuple(rest))

    def entering(self, node: str, agent: str) -> tuple[Script, tuple[str, ...]]:
        """The call of ``enter.lua``, to be sent with others; ``entrance`` reads its answer."""
        return self._enter, (self._tag, encoded(node), encoded(agent))

    def trim(self, node: str, producer: str) -> int:
        """Drop what is beyond the bounds, and say that `node` goes on; how many entries went."""
        with self._server.errors():
            return int(
                self._trim(
                    self._client,
                    [self._tag],
                    [
                        self._most,
                        int(self._age * 1_000),
                        encoded(node),
                        producer,
                        _KEPT,
                        self._size,
                    ],
                )
            )

    def subscriptions(self, agents: Sequence[str]) -> list[dict[bytes, Point]]:
        """What each agent subscribed to while it ran, and since when; see ``audience.py``."""
        with self._server.errors():
            pipeline = self._client.pipeline(transaction=False)
            for agent in agents:
                pipeline.hgetall(f"{self._tag}:t:subs:{encoded(agent)}")
            told: list[dict[bytes, bytes]] = pipeline.execute()
        return [{what: point_of(since.decode()) for what, since in one.items()} for one in told]

    def lagging(self, node: str) -> dict[str, Point]:
        """The agents of a node that are not at its watermark, as the server knows it."""
        with self._server.errors():
            told: Any = self._client.hgetall(f"{self._tag}:t:lag:{encoded(node)}")
        return {
            decoded(agent): point_of(point.decode())
            for agent, point in told.items()
            if not point.startswith(b">")
        }

    def end(self) -> Point:
        """Where the next entry will come. For people; readers are told with what they read."""
        with self._server.errors():
            number, ms = self._client.hmget(f"{self._tag}:t", ["n", "ms"])
        return Point(int(number or 0), int(ms or 0))

    def newest(self, limit: int) -> list[Entry | Broken]:
        """The newest entries, newest first. For people."""
        with self._server.errors():
            found = islice(newest_of(self._client, f"{self._tag}:t:log", b"e"), limit)
            return [_entry(point_of(at.decode()), fields[b"e"]) for at, fields in found]

    @property
    def _client(self) -> Redis:
        return self._server.client


def saving(save: Save) -> list[Any]:
    """The arguments of a save."""
    return [
        str(save.read),
        save.read_id,
        str(save.watermark),
        int(save.anew),
        len(save.points),
        *(word for agent, point in save.points for word in (encoded(agent), str(point))),
        *map(encoded, save.cleared),
    ]


def entrance(told: Sequence[Any]) -> Point | None:
    """The end of the log, if an agent can begin there without a word to the server."""
    last, is_there = told
    return point_of(last.decode()) if is_there else None


def point_of(text: str) -> Point:
    time, _, number = text.partition("-")
    return Point(int(number), int(time))


def _text(text: str | None) -> bytes:
    data = (text or "").encode()
    return len(data).to_bytes(_LENGTH, "big") + data


def _found(told: Sequence[Any]) -> Found | Rewound:
    if told[0] == b"RESET":
        first = told[2].decode()
        return Rewound(point_of(told[1].decode()), point_of(first) if first else None)
    pairs = zip(told[3][::2], told[3][1::2], strict=True)
    entries = tuple(_entry(point_of(point.decode()), raw) for point, raw in pairs)
    return Found(entries, int(told[1]), point_of(told[2].decode()))


def _entry(point: Point, raw: bytes) -> Entry | Broken:
    body = _HEAD + ID_SIZE
    message_id = raw[_HEAD:body]
    try:
        topic, rest = _cut(raw[body:])
        if topic:
            check_topic(topic)
        sender, blob = _cut(rest)
        level, expiry = int(raw[_EXPIRY:_HEAD]), int(raw[:_EXPIRY])
    except (ValueError, InvalidName):
        return Broken(point, message_id, raw)
    return Entry(point, level, message_id, expiry, topic or None, sender or None, blob)


def _cut(data: bytes) -> tuple[str, bytes]:
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    if len(data) < max(end, _LENGTH):
        raise ValueError("cut short")
    return data[_LENGTH:end].decode(), data[end:]
