"""The table in Redis: what can be asked of it and told to it, each one round trip.

Every call may be sent again when its answer was lost, and changes nothing by that.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from actorbus.errors import NameTaken, TransportUnavailable, Undecodable
from actorbus.redis_client import Kind as ServerKind
from actorbus.redis_client import Script, encoded, run_all
from actorbus.registry.directories.redis.records import Figures, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from redis import Redis

    from actorbus.redis_client import BusKind, RedisServer

LAYOUT: Final = "1"
MOST_AGENTS: Final = 300
"""In one script: while it runs the server does nothing else, and Lua takes no more arguments."""

_TABLES: Final[Mapping[BusKind, str]] = {"durable": "reg", "pubsub": "live"}
_FORGET_AFTER: Final = 3600.0
_PAGE: Final = 1_000
_SCAN: Final = 500


class Position(NamedTuple):
    """How far one has read: the latest id in the log, and in the loads."""

    log: int = 0
    loads: int = 0


_LAST: Final = Position(2**53 - 1, 2**53 - 1)


class Change(NamedTuple):
    """One entry of the log; ``after`` is the id of the one before."""

    id: int
    after: int
    what: bytes
    whom: bytes
    rest: bytes

    @property
    def record(self) -> Record:
        """Of an agent that joined.

        Raises:
            Undecodable: it holds none.
        """
        return Record.read(b"%d %b" % (self.id, self.rest))


class Loads(NamedTuple):
    """One entry of the loads: how agents of one node stand, by name and number."""

    id: int
    after: int
    token: str
    figures: list[tuple[str, int, Figures]]


class News(NamedTuple):
    """What changed after ``since``, or the beginning of it."""

    epoch: bytes
    since: Position
    latest: Position
    log: list[Change]
    loads: list[Loads]

    @property
    def complete(self) -> bool:
        """Whether that is all there was."""
        return _reaches(self.log, self.latest.log) and _reaches(self.loads, self.latest.loads)


class Joining(NamedTuple):
    """An agent that is to join a node, which gives it its number."""

    name: str
    number: int
    kind: int
    figures: Figures


class Departure(NamedTuple):
    """An agent that left its node. ``kind``: the number of that, if it was the last of it."""

    token: str
    name: str
    number: int
    kind: int | None


class Table:
    """All nodes and agents of one deployment. Safe from any thread.

    Every call raises ``TransportUnavailable`` where the server is away: after some attempts, JOIN
    and a patient REGISTER, as somebody waits for them; all others at once, as they come again.
    """

    def __init__(
        self, server: RedisServer, namespace: str, bus: BusKind, *, dead_after: float
    ) -> None:
        self._server = server
        self._tag = f"{{{encoded(namespace)}.{_TABLES[bus]}}}"
        self._limits = (micros(dead_after), micros(max(_FORGET_AFTER, dead_after)))
        self._wake = f"{self._tag}:wake:{uuid4().hex}"
        self._impatient: Redis | None = None
        self._join = _script("join")
        self._beat = _script("beat")
        self._silences = _script("silences")
        self._leave = _script("leave")
        self._register = _script("register")
        self._unregister = _script("unregister")
        self._loads = _script("loads")
        self._news = _script("news")
        self._forget = _script("forget")

    def join(self, node: str, token: str, facts: bytes) -> dict[str, float]:
        """How long each node has been silent, in seconds. `facts` is for who asks for ``facts()``.

        Raises:
            NameTaken: a node that is not dead has the name, under another token.
            TransportUnavailable: also where the table is another version's.
        """
        arguments = (*self._limits, node, token, LAYOUT, uuid4().hex, facts)
        with self._server.errors():
            told = self._join(self._server.client, [self._tag], arguments)
        if told[0] == b"TAKEN":
            raise NameTaken(node, what="node")
        if told[0] == b"LAYOUT":
            raise TransportUnavailable(
                f"{self._server.shown} holds a registry of layout {told[1].decode()}; this"
                f" program knows {LAYOUT}: let all nodes run the same release"
            )
        return _silences(told)

    def beat(self, node: str, token: str) -> dict[str, float] | None:
        """How long each node has been silent; None where the table knows no such token."""
        told = self._call(self._beat, *self._limits, node, token)
        return None if told[0] == b"UNKNOWN" else _silences(told)

    def silences(self) -> dict[str, float]:
        """How long each node has been silent, in seconds."""
        return _silences(self._call(self._silences))

    def leave(self, token: str) -> None:
        """The node is no more; its agents are nobody's."""
        self._call(self._leave, token)

    def forget(self, names: Iterable[str]) -> None:
        """Take out those of these agents that are nobody's."""
        for some in _batches(names, MOST_AGENTS):
            self._call(self._forget, *some)

    def register(
        self,
        token: str,
        kinds: Mapping[int, bytes],
        agents: Sequence[Joining],
        since: Position,
        *,
        takes: bool = False,
        patiently: bool = False,
    ) -> tuple[list[str] | None, News]:
        """At most ``MOST_AGENTS``. `takes` names from whoever has them. For each '', or the
        node where its name is taken; None where the table knows no such token. And the news
        after that."""
        arguments: list[Any] = [0 if takes else self._limits[0], token, len(kinds)]
        for kind in kinds.items():
            arguments += kind
        for one in agents:
            arguments += (one.name, one.number, one.kind, str(one.figures))
        with self._server.errors():
            told, news = run_all(
                self._server.client if patiently else self._client,
                [
                    (self._register, [self._tag], arguments),
                    (self._news, [self._tag], [*since, _PAGE]),
                ],
            )
            for one in (told, news):
                if isinstance(one, Exception):
                    raise one
        answers = None if told[0] == b"UNKNOWN" else [owner.decode() for owner in told[1:]]
        return answers, _read_news(since, news)

    def unregister(self, token: str, departures: Iterable[Departure]) -> None:
        """At most ``MOST_AGENTS``, all of the node with that token."""
        arguments: list[Any] = [token]
        for one in departures:
            arguments += (one.name, one.number, "" if one.kind is None else one.kind)
        self._call(self._unregister, *arguments)

    def tell_loads(self, token: str, figures: Iterable[tuple[str, int, Figures]]) -> None:
        """At most ``MOST_AGENTS``."""
        arguments: list[Any] = [token]
        for name, number, its in figures:
            arguments += (name, number, str(its))
        self._call(self._loads, *arguments)

    def latest(self) -> News:
        """How far the log and the loads have come, and nothing of what is in them."""
        return self.news(_LAST)

    def news(self, since: Position) -> News:
        """What changed after `since`, or the beginning of it."""
        return _read_news(since, self._call(self._news, *since, _PAGE))

    def wait(self, since: Position, seconds: float) -> None:
        """Return when there is news, or ``wake`` was called, or after `seconds`."""
        streams: Any = {
            f"{self._tag}:log": f"{since.log}-0",
            f"{self._tag}:loads": f"{since.loads}-0",
            self._wake: "0",
        }
        with self._server.errors():
            self._client.xread(streams, count=1, block=round(seconds * 1000))

    def wake(self) -> None:
        """Let the one thread that waits, or will, return."""
        with self._server.errors():
            pipeline = self._client.pipeline()
            pipeline.xadd(self._wake, {"up": 1}, maxlen=1)
            pipeline.expire(self._wake, 10)
            pipeline.execute()

    def nodes(self) -> dict[str, str]:
        """The names of all nodes, by token."""
        with self._server.errors():
            found: Any = self._client.hgetall(f"{self._tag}:nodes")
        return {
            token.decode(): _text(stamp_and_name.partition(b" ")[2])
            for token, stamp_and_name in found.items()
        }

    def facts(self) -> dict[str, bytes]:
        """What each node told of itself when it joined, by token."""
        with self._server.errors():
            found: Any = self._client.hgetall(f"{self._tag}:facts")
        return {token.decode(): told for token, told in found.items()}

    def agents(self) -> dict[bytes, bytes]:
        """The records of all agents, by name. Those that join or leave meanwhile may lack."""
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            with self._server.errors():
                told: Any = self._client.hscan(f"{self._tag}:agents", cursor, count=_SCAN)
            cursor = int(told[0])
            found.update(told[1])
            if not cursor:
                return found

    def kinds(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """The kinds of these numbers on the nodes with these tokens; None for one no more there."""
        found: list[bytes | None] = []
        for some in _batches(wanted, _SCAN):
            with self._server.errors():
                pipeline = self._client.pipeline(transaction=False)
                for token, number in some:
                    pipeline.hget(f"{self._tag}:kinds:{token}", str(number))
                found += pipeline.execute()
        return found

    def close(self) -> None:
        """Let go of the connections that are this one's own. Idempotent."""
        client, self._impatient = self._impatient, None
        if client is not None:
            client.close()

    @property
    def _client(self) -> Redis:
        if self._server.kind is ServerKind.CLUSTER:
            return self._server.client  # a publisher is at any server, and keys at one
        if self._impatient is None:
            self._impatient = self._server.publisher()
        return self._impatient

    def _call(self, script: Script, *arguments: Any) -> Any:
        with self._server.errors():
            return script(self._client, [self._tag], arguments)


def micros(seconds: float) -> int:
    """As the scripts take them."""
    return round(seconds * 1_000_000)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _script(name: str) -> Script:
    return Script.beside(__file__, "table", name)


def _silences(told: Sequence[bytes]) -> dict[str, float]:
    return {
        _text(name): int(silence) / 1_000_000
        for name, silence in zip(told[1::2], told[2::2], strict=True)
    }


def _read_news(since: Position, told: Any) -> News:
    epoch, log, changes, loads, figures = told
    return News(
        epoch,
        since,
        Position(int(log), int(loads)),
        [_change(*entry) for entry in changes],
        [_loads(*entry) for entry in figures],
    )


def _change(found: bytes, fields: Sequence[bytes]) -> Change:
    _, after, what, whom, _, rest = fields
    return Change(_id(found), int(after), what, whom, rest)


def _loads(found: bytes, fields: Sequence[bytes]) -> Loads:
    figures = []
    for name, words in zip(fields[4::2], fields[5::2], strict=True):
        number, *rest = words.split(b" ")
        figures.append((_text(name), int(number), Figures.read(rest)))
    return Loads(_id(found), int(fields[1]), _text(fields[3]), figures)


def _id(found: bytes) -> int:
    return int(found.partition(b"-")[0])


def _reaches(entries: Sequence[Change] | Sequence[Loads], latest: int) -> bool:
    return not entries or entries[-1].id >= latest


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Undecodable("a name in the registry is no text") from None
