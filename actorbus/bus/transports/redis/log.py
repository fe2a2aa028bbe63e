"""Inboxes in Redis: each a log a level, with one owner that reads, works, and acknowledges.

Theory. An agent has one consumer, which works in order; so an inbox needs no pending list, no
visibility time-out and no reaper, only positions as in Kafka. The owner *fetches* from its
cursor (a read, which may be repeated), and *acknowledges* up to a position. Who dies loses its
ownership, never messages: the next owner begins at the last acknowledged position, so what was
handled and not acknowledged is handled again, in order.

- Who owns an agent is decided by a *fencing token* in every call: a former owner's is refused.
- Producers number what they send to each agent: a repeated send is taken once, and what failed
  cannot be overtaken by what came after it.
- Positions are checked against the id of the message before them: a server that lost its tail,
  and hands out the same positions again, makes the owner begin anew instead of skip.

Time is the server's. All scripts may be sent twice; none writes before it has checked.
Source of the design: Kafka's consumer positions; fencing tokens as in Kleppmann, "How to do
distributed locking" (2016).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from actorbus.bus.transports.redis.items import (
    HEAD,
    ID_SIZE,
    LEVELS,
    Item,
    read_item,
)
from actorbus.bus.transports.redis.loads import (
    MOST_AT_ONCE,
    NOT_SHIPPED,
    TAKEN,
    Load,
    Outgoing,
    Sent,
    Shipped,
    add_words,
    behind,
    few_enough,
    loads_of,
    shipped,
)
from actorbus.bus.transports.redis.ownership import (
    CAPACITY,
    CAPACITY_BYTES,
    OVERFLOW,
    Cursor,
    Cursors,
    Fenced,
    Known,
    OwnedBy,
    Ownership,
    Reset,
    Terms,
)
from actorbus.redis_client import Dial, Express, Script, decoded, encoded, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

    from actorbus.redis_client import RedisServer

_AGENTS_AT_ONCE: Final = 200
"""Agents in a script that sees to many."""
_FETCHED_AT_ONCE: Final = 4 << 20
"""Bytes that a script fetches."""
_SHELVES: Final = 64
"""As in ``shelves.lua``."""


Ring = tuple[str, bytes]
"""A bell, and what it is rung with."""
NO_RING: Final[Ring] = ("", b"")

Unread = tuple[int, int, bytes]
"""Level, position and bytes of what ``read_item`` makes an item of. Thousands may wait to be read,
and the garbage collector does not look at plain tuples of such."""


@dataclass(frozen=True, slots=True)
class Fetched:
    unread: Sequence[Unread]
    now: int
    """Server time, in milliseconds."""
    unseen: int
    """How many messages wait behind these."""

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(read_item(*one) for one in self.unread)


class Along(NamedTuple):
    """Messages that came along with a bell: those from `cursor` on, which nobody has fetched."""

    agent: str
    token: str
    level: int
    cursor: Cursor
    items: tuple[Item, ...]
    now: int
    """Server time, in milliseconds."""


class Letter(NamedTuple):
    """Why a message will not be handled; kept when it is acknowledged."""

    level: int
    position: int
    reason: str
    attempts: int
    error: str


class Done(NamedTuple):
    """Everything of an agent before `up_to` is over, and `letters` say what was not handled."""

    ownership: Ownership
    up_to: Cursors
    letters: Sequence[Letter] = ()
    sizes: Sequence[int | None] = (None, None, None, None)
    """Bytes that this frees on each level, from the heads of `ownership` on; None: count them."""


class Wanted(NamedTuple):
    """The next messages of an agent from `cursors` on: at most so many; 0: a few URGENT ones."""

    ownership: Ownership
    cursors: Cursors
    most: int = 64


class InboxLog:
    """The inboxes of a deployment. Safe from any thread; every call is one round trip or few.

    What redis-py raises comes out as ``TransportUnavailable``.

    Args:
        namespace: what separates deployments on one server.
        partitions: fixed for a deployment: 1 on a single server; more let a cluster share it.
        capacity: messages that an inbox holds, and `capacity_bytes` bytes; URGENT ones find
            room for a tenth more.
    """

    def __init__(
        self,
        server: RedisServer,
        *,
        namespace: str = "actorbus",
        partitions: int = 1,
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        self._server = server
        self._express = Express(server)
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._namespace = encoded(namespace)
        self.divide(partitions)
        self.server_ahead = 0.0
        """The server's time less our monotonic clock, in seconds, as of the last beat."""
        self._send = Script.beside(__file__, "send")
        self._fetch = Script.beside(__file__, "fetch")
        self._ack = Script.beside(__file__, "ack")
        self._own = Script.beside(__file__, "shelves", "own")
        self._beat = Script.beside(__file__, "shelves", "beat")
        self._tick = Script.beside(__file__, "tick")
        self._drop = Script.beside(__file__, "shelves", "drop")
        self._try = Script.beside(__file__, "try")
        self._peek = Script.beside(__file__, "peek")

    def divide(self, partitions: int) -> None:
        """Use so many partitions, as the deployment does. Before anything else."""
        self.tags = [f"{{{self._namespace}.p{number}}}" for number in range(partitions)]

    def tag(self, agent: str) -> str:
        """The partition of an agent."""
        tags = self.tags
        return tags[0] if len(tags) == 1 else tags[crc32(agent.encode()) % len(tags)]

    def bell(self, tag: str, node: str | None) -> str:
        """The channel that rings when an agent of `node`, or of nobody, has work there."""
        return f"{tag}:bell:{'-' if node is None else encoded(node)}"

    def due_bell(self, tag: str) -> str:
        """The channel that says "due" when a message is put off there for less long than others."""
        return f"{tag}:bell"

    def ring(self, node: str) -> None:
        """Have `node` look for work."""
        with self._server.errors():
            self._client.publish(self.bell(self.tags[0], node), "look")

    # -- producers

    def send(
        self, producer: str, messages: Sequence[Outgoing], *, create: bool = False
    ) -> list[Sent]:
        """Send messages, those to one agent in order; what became of each.

        `create`: an agent that nobody knows gets an inbox.

        Raises:
            TransportUnavailable: what became of them is unknown. Sending the same again is safe.
        """
        loads = loads_of(messages)
        answers: list[Sent] = []
        for load, (taken, refused) in zip(
            loads, self.ship(producer, loads, create=create), strict=True
        ):
            answers += [TAKEN] * taken
            if refused is not None:
                answers += [refused, *[behind(load, taken, refused)] * (len(load) - taken - 1)]
        return answers

    def ship(self, producer: str, loads: Sequence[Load], *, create: bool = False) -> list[Shipped]:
        """``send`` in bulk: what became of each load. Those of a partition go in one script.

        Raises:
            TransportUnavailable: as for ``send``.
        """
        by_tag: dict[str, list[int]] = {}
        for at, load in enumerate(loads):
            by_tag.setdefault(self.tag(load.agent), []).append(at)
        answers: list[Shipped] = [NOT_SHIPPED] * len(loads)
        for tag, mine in by_tag.items():
            for some in few_enough(loads, mine):
                words: list[Any] = [
                    producer,
                    self._capacity,
                    self._capacity_bytes,
                    int(create),
                    *NO_RING,
                ]
                for at in some:
                    add_words(words, loads[at])
                told = self._run(self._send, tag, *words)
                for at, word in zip(some, told, strict=True):
                    answers[at] = shipped(loads[at], word)
        return answers

    def dial(self) -> Dial:
        """A line that ``shipping`` may be sent on."""
        return Dial(self._server)

    def shipping(
        self, producer: str, load: Load, *, create: bool = False, ring: Ring = NO_RING
    ) -> list[Any]:
        """The command that ``ship`` would send; ``shipped`` reads the one word of its answer.

        `ring`: a bell of the same server, and what it is rung with besides. If that is the bell of
        the agent's owner, it rings once for both; see ``read_with``.
        """
        tag = self.tag(load.agent)
        bounds = (producer, self._capacity, self._capacity_bytes, int(create))
        words: list[Any] = ["EVALSHA", self._send.digest, 1, tag, *bounds, *ring]
        add_words(words, load)
        return words

    # -- owners

    def acquire(
        self, agent: str, node: str, *, ttl: float, terms: Terms | None = None
    ) -> Ownership:
        """Become the owner, if nobody alive is. Once more by the owner keeps its token.

        Without `terms` its inbox stays what it was.

        Raises:
            OwnedBy: another node owns it, and has beaten within `ttl` seconds.
        """
        told = self._run(self._own, *self._acquiring(agent, node, ttl, terms))
        if told[0] == b"OWNED":
            raise OwnedBy(agent, decoded(told[1]))
        return self._ownership(agent, node, told)

    def acquire_and_ask(
        self,
        agent: str,
        node: str,
        question: tuple[Script, tuple[Any, ...]],
        *,
        ttl: float,
        terms: Terms | None = None,
    ) -> tuple[Ownership, Any]:
        """``acquire``, and what a script that only reads says after it, in one round trip.

        Raises:
            OwnedBy: as ``acquire``.
        """
        told, answer = self._run_all(
            [(self._own, self._acquiring(agent, node, ttl, terms)), question]
        )
        if told[0] == b"OWNED":
            raise OwnedBy(agent, decoded(told[1]))
        return self._ownership(agent, node, told), answer

    def acquire_many(
        self, agents: Sequence[str], node: str, *, ttl: float
    ) -> list[Ownership | OwnedBy]:
        """``acquire`` for many agents in few round trips; what one would raise is in its place."""
        acquired: list[Ownership | OwnedBy] = []
        for start in range(0, len(agents), MOST_AT_ONCE):
            some = agents[start : start + MOST_AT_ONCE]
            calls = [(self._own, self._acquiring(agent, node, ttl, None)) for agent in some]
            acquired += [
                OwnedBy(agent, decoded(told[1]))
                if told[0] == b"OWNED"
                else self._ownership(agent, node, told)
                for agent, told in zip(some, self._run_all(calls), strict=True)
            ]
        return acquired

    def offer(self, agent: str, terms: Terms) -> None:
        """Let an agent that nobody runs yet have an inbox; if it has one, nothing changes."""
        self._run(
            self._own,
            self.tag(agent),
            "offer",
            encoded(agent),
            "",
            *self._spelled(terms),
        )

    def end(self, ownership: Ownership) -> Ownership:
        """Senders hear from now on that nobody has the name; what waits is still to be read.

        Raises:
            Fenced: it is not ours any more.
        """
        (ended,) = self.end_many([ownership])
        if isinstance(ended, Fenced):
            raise ended
        return ended

    def end_many(self, ownerships: Sequence[Ownership]) -> list[Ownership | Fenced]:
        """``end`` for many agents in few round trips, and how they stand now."""
        ended: list[Ownership | Fenced] = []
        for start in range(0, len(ownerships), MOST_AT_ONCE):
            some = ownerships[start : start + MOST_AT_ONCE]
            calls = [(self._own, (self.tag(one.agent), *_giving(one, "end"))) for one in some]
            ended += [
                Fenced(one.agent)
                if told[0] == b"FENCED"
                else self._ownership(one.agent, one.node, told)
                for one, told in zip(some, self._run_all(calls), strict=True)
            ]
        return ended

    def known(self, agents: Sequence[str]) -> list[Known | None]:
        """What is known of each agent; None: nobody has the name."""
        found: list[Known | None] = []
        with self._server.errors():
            pipeline = self._client.pipeline(transaction=False)
            for agent in agents:
                meta = f"{self.tag(agent)}:a:{encoded(agent)}"
                pipeline.hmget(meta, ["v", "end", "node", "spec", "cap", "ovf"])
            for version, ended, node, spec, capacity, overflow in pipeline.execute():
                if version is None or ended is not None:
                    found.append(None)
                    continue
                terms = int(capacity or self._capacity), decoded(overflow or b"") or OVERFLOW
                found.append(Known(decoded(node or b""), spec or b"", *terms))
        return found

    def names(self, *, limit: int = 1_000) -> list[str]:
        """Agents that have an inbox, of whatever node; some of them if there are more."""
        found: dict[str, None] = {}
        with self._server.errors():
            for tag in self.tags:
                told: Any = self._client.zrange(f"{tag}:nodes", 0, -1)
                for node in (*told, b"-"):
                    names = self._owned(tag, node.decode())
                    found.update(dict.fromkeys(names[: limit - len(found)]))
        return list(found)

    def release(self, ownership: Ownership) -> None:
        """Leave the agent to whoever comes; its inbox goes on accepting.

        Raises:
            Fenced: it is not ours any more.
        """
        self._give(ownership, "release")

    def release_many(self, ownerships: Sequence[Ownership]) -> list[Fenced | None]:
        """``release`` for many agents in few round trips; what one would raise is in its place."""
        released: list[Fenced | None] = []
        for start in range(0, len(ownerships), MOST_AT_ONCE):
            some = ownerships[start : start + MOST_AT_ONCE]
            calls = [(self._own, (self.tag(one.agent), *_giving(one, "release"))) for one in some]
            released += [
                Fenced(one.agent) if told[0] == b"FENCED" else None
                for one, told in zip(some, self._run_all(calls), strict=True)
            ]
        return released

    def hand_off(self, ownership: Ownership, node: str) -> Ownership:
        """Give the agent to another node, with a token of its own.

        Raises:
            Fenced: it is not ours any more.
        """
        told = self._give(ownership, "handoff", encoded(node))
        return self._ownership(ownership.agent, node, told)

    def fetch(
        self, ownership: Ownership, cursors: Cursors, *, count: int = 64, size: int = 1 << 20
    ) -> Fetched:
        """The next messages that were not seen, highest level first; `size` in bytes.

        At least one comes, however large, if any waits.

        Raises:
            Fenced, Reset: see there.
        """
        wanted = Wanted(ownership, cursors, min(count, MOST_AT_ONCE))
        _, (found,) = self.exchange([], [wanted], size=size)
        if isinstance(found, Fetched):
            return found
        raise found

    def acknowledge(
        self, ownership: Ownership, up_to: Cursors, letters: Sequence[Letter] = ()
    ) -> int:
        """What ``Done`` says; how many messages that freed. Once more with the same frees none.

        Raises:
            Fenced, Reset: see there; nothing was acknowledged.
        """
        (freed,), _ = self.exchange([Done(ownership, up_to, letters)], [])
        if isinstance(freed, int):
            return freed
        raise freed

    def exchange(
        self,
        done: Sequence[Done],
        wanted: Sequence[Wanted],
        *,
        size: int = 1 << 20,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> tuple[list[int | Fenced | Reset], list[Fetched | Fenced | Reset]]:
        """``acknowledge`` and then ``fetch`` for many agents in one round trip.

        What one would raise stands in its place. Of some agents nothing may come, though
        messages wait, where those of others are many bytes. `meanwhile` is called once, whatever
        happens: during the round trip, if that may be.
        """
        freed: list[Any] = [None] * len(done)
        found: list[Any] = [None] * len(wanted)
        acks = self._parts([one.ownership for one in done])
        fetches = self._parts([one.ownership for one in wanted])
        told = self._run_all(
            [
                *(
                    (self._ack, (tag, *chain.from_iterable(_acking(done[at]) for at in some)))
                    for tag, some in acks
                ),
                *(
                    (
                        self._fetch,
                        (
                            tag,
                            size,
                            _FETCHED_AT_ONCE,
                            *chain.from_iterable(_fetching(wanted[at]) for at in some),
                        ),
                    )
                    for tag, some in fetches
                ),
            ],
            express=True,
            meanwhile=meanwhile,
        )
        for (_, some), answers in zip(acks, told, strict=False):
            for at, answer in zip(some, answers, strict=True):
                freed[at] = _caught(_freed, done[at].ownership, answer)
        for (_, some), (now, *answers) in zip(fetches, told[len(acks) :], strict=True):
            for at, answer in zip(some, answers, strict=True):
                found[at] = _caught(
                    partial(_fetched, wanted[at].cursors, int(now)), wanted[at].ownership, answer
                )
        return freed, found

    def peek(
        self, ownership: Ownership, level: int, position: int, *, count: int = 64
    ) -> tuple[int, list[Item]]:
        """The messages on a level from `position` on, fetched before or not, and where they begin.

        At least one if there is any, and few of large ones. They count as unseen as before.

        Raises:
            Fenced: it is not ours any more.
        """
        agent = ownership.agent
        where = (encoded(agent), ownership.token, level, position, count)
        told = self._run(self._peek, self.tag(agent), *where)
        if told[0] == b"FENCED":
            raise Fenced(agent)
        first = int(told[1])
        return first, [read_item(level, at, item) for at, item in enumerate(told[2:], first)]

    def try_again(self, suspects: Sequence[tuple[Ownership, Item, str]]) -> list[int | Fenced]:
        """Count that messages are begun that former owners may have died of; how many tries each.

        A word names each try: the same once more is not counted. What is not ours any more is
        ``Fenced``.
        """
        calls = [
            (
                self._try,
                (
                    self.tag(one.agent),
                    encoded(one.agent),
                    one.token,
                    item.level,
                    item.position,
                    word,
                ),
            )
            for one, item, word in suspects
        ]
        return [
            Fenced(one.agent) if told[0] == b"FENCED" else int(told[1])
            for (one, _, _), told in zip(suspects, self._run_all(calls), strict=True)
        ]

    def drop(self, ownership: Ownership, reason: str) -> None:
        """The agent ends for good: what waits for it becomes dead letters, its inbox goes.

        Without a `reason` what waits goes with it.

        Raises:
            Fenced: it is not ours any more.
        """
        for fenced in self.drop_many([ownership], reason):
            raise fenced

    def drop_many(self, ownerships: Sequence[Ownership], reason: str) -> list[Fenced]:
        """``drop`` for many agents in few round trips; those that are not ours any more."""
        fenced: list[Fenced] = []
        left = list(ownerships)
        while left:
            some, left = left[:MOST_AT_ONCE], left[MOST_AT_ONCE:]
            calls = [
                (
                    self._drop,
                    (self.tag(one.agent), encoded(one.agent), one.token, reason, MOST_AT_ONCE),
                )
                for one in some
            ]
            for one, told in zip(some, self._run_all(calls), strict=True):
                if told[0] == b"FENCED":
                    fenced.append(Fenced(one.agent))
                elif told[1]:
                    left.append(one)
        return fenced

    # -- nodes

    def beat(self, node: str, *, ttl: float) -> list[str]:
        """Say in every partition that `node` lives; who is dead and still owns agents."""
        dead: dict[str, None] = {}
        asked = time.monotonic()
        calls = [(self._beat, (tag, encoded(node), int(ttl * 1_000), 0)) for tag in self.tags]
        for now, *others in self._run_all(calls):
            self.server_ahead = int(now) / 1_000 - (asked + time.monotonic()) / 2
            dead.update((decoded(one), None) for one in others)
        return list(dead)

    def leave(self, node: str, *, ttl: float) -> None:
        """The node goes. Agents that it still owns are a dead node's from now on."""
        calls = [(self._beat, (tag, encoded(node), int(ttl * 1_000), 1)) for tag in self.tags]
        self._run_all(calls)

    def silence(self, node: str) -> float:
        """Seconds since a node was last heard of; 0 for one that nobody knows."""
        with self._server.errors():
            seconds, micros = self._client.time()
            stamps: list[Any] = [
                self._client.zscore(f"{tag}:nodes", encoded(node)) for tag in self.tags
            ]
        known = [float(one) for one in stamps if one is not None]
        return max(0.0, seconds + micros / 1e6 - max(known) / 1_000) if known else 0.0

    def tick(self, *, most: int = 200) -> tuple[int, float | None]:
        """Put what is due into the inboxes: how many, and seconds until more is (None: never)."""
        moved, wait = 0, None
        bounds = (most, self._capacity, self._capacity_bytes)
        for count, left in self._run_all([(self._tick, (tag, *bounds)) for tag in self.tags]):
            moved += count
            if left >= 0:
                wait = left / 1_000 if wait is None else min(wait, left / 1_000)
        return moved, wait

    def owned(self, node: str) -> list[str]:
        """The agents of a node."""
        with self._server.errors():
            return [one for tag in self.tags for one in self._owned(tag, encoded(node))]

    def ready(self, node: str | None) -> list[str]:
        """The agents of a node that have messages it has not seen; of None, those of nobody."""
        return self._members(f"rdy:{'-' if node is None else encoded(node)}")

    def depth(self, agent: str) -> int:
        """How many messages wait for an agent, those in its owner's hands included."""
        with self._server.errors():
            found: Any = self._client.hget(f"{self.tag(agent)}:a:{encoded(agent)}", "depth")
        return int(found or 0)

    def depths(self, agents: Sequence[str]) -> list[int]:
        """``depth`` of each agent, in few round trips."""
        found: list[int] = []
        for start in range(0, len(agents), MOST_AT_ONCE):
            with self._server.errors():
                pipeline = self._client.pipeline(transaction=False)
                for agent in agents[start : start + MOST_AT_ONCE]:
                    pipeline.hget(f"{self.tag(agent)}:a:{encoded(agent)}", "depth")
                found += [int(one or 0) for one in pipeline.execute()]
        return found

    def letters(self, *, limit: int = 1_000) -> list[dict[str, Any]]:
        """The dead letters, newest first, as they are kept."""
        found: list[dict[str, Any]] = []
        with self._server.errors():
            for tag in self.tags:
                told: Any = self._client.xrevrange(f"{tag}:dlq", count=limit)
                found += [_letter(fields) for _, fields in told]
        return found[:limit]

    # --

    @property
    def _client(self) -> Redis:
        return self._server.client

    def _run(self, script: Script, tag: str, *arguments: Any) -> Any:
        with self._server.errors():
            return script(self._client, [tag], arguments)

    def _run_all(
        self,
        calls: Sequence[tuple[Script, tuple[Any, ...]]],
        *,
        express: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> list[Any]:
        spelled = [(script, call[:1], call[1:]) for script, call in calls]
        with self._server.errors():
            if express:
                told = self._express.run_all(spelled, meanwhile)
            else:
                told = run_all(self._client, spelled)
            for one in told:
                if isinstance(one, Exception):
                    raise one
        return told

    def _acquiring(self, agent: str, node: str, ttl: float, terms: Terms | None) -> tuple[Any, ...]:
        how = ("", "", "") if terms is None else self._spelled(terms)
        return (self.tag(agent), "acquire", encoded(agent), encoded(node), int(ttl * 1_000), *how)

    def _spelled(self, terms: Terms) -> tuple[Any, ...]:
        """What is usual takes no room in the record of an agent."""
        capacity = "-" if terms.capacity == self._capacity else terms.capacity
        overflow = "-" if terms.overflow == OVERFLOW else terms.overflow
        return (capacity, overflow, terms.spec)

    def _owned(self, tag: str, node: str) -> list[str]:
        pipeline = self._client.pipeline(transaction=False)
        for shelf in range(_SHELVES):
            pipeline.hkeys(f"{tag}:own:{node}:{shelf}")
        return [decoded(one) for names in pipeline.execute() for one in names]

    def _members(self, name: str) -> list[str]:
        found: list[str] = []
        with self._server.errors():
            for tag in self.tags:
                found += map(decoded, self._client.sscan_iter(f"{tag}:{name}", count=1_000))
        return found

    def _give(self, ownership: Ownership, what: str, *more: Any) -> Any:
        tag = self.tag(ownership.agent)
        told = self._run(self._own, tag, *_giving(ownership, what), *more)
        if told[0] == b"FENCED":
            raise Fenced(ownership.agent)
        return told

    def _ownership(self, agent: str, node: str, told: Sequence[Any]) -> Ownership:
        a, b, c, d, e, f, g, h = (int(one) for one in told[3:11])
        return Ownership(
            agent=agent,
            node=node,
            token=told[1].decode(),
            depth=int(told[2]),
            heads=(a, b, c, d),
            delivered=(e, f, g, h),
            fresh=bool(told[11]),
            tried=_tried(told[12]),
            before=decoded(told[13]),
        )

    def _parts(self, ownerships: Sequence[Ownership]) -> list[tuple[str, list[int]]]:
        """Which of them one script may see to, and the partition that they are in."""
        by_tag: dict[str, list[int]] = {}
        for at, one in enumerate(ownerships):
            by_tag.setdefault(self.tag(one.agent), []).append(at)
        return [
            (tag, mine[start : start + _AGENTS_AT_ONCE])
            for tag, mine in by_tag.items()
            for start in range(0, len(mine), _AGENTS_AT_ONCE)
        ]


def _tried(word: bytes) -> tuple[int, int] | None:
    if not word:
        return None
    level, position, _, _ = word.split(b" ")
    return int(level), int(position)


def _giving(ownership: Ownership, what: str) -> tuple[str, str, str, str]:
    return what, encoded(ownership.agent), encoded(ownership.node), ownership.token


def _acking(done: Done) -> list[Any]:
    ownership, up_to, letters, sizes = done
    words: list[Any] = [encoded(ownership.agent), ownership.token, 0]
    for level, head, cursor, size in zip(LEVELS, ownership.heads, up_to, sizes, strict=True):
        if cursor.position != head:
            words += (level, cursor.position, cursor.id, head, "" if size is None else size)
            words[2] += 1
    words.append(len(letters))
    for letter in letters:
        words += letter
    return words


def _fetching(wanted: Wanted) -> tuple[Any, ...]:
    ownership, (a, b, c, d), most = wanted
    return (encoded(ownership.agent), ownership.token, most, *a, *b, *c, *d)


def _check_owner(ownership: Ownership, told: Sequence[Any]) -> None:
    if told[0] == b"FENCED":
        raise Fenced(ownership.agent)
    if told[0] == b"RESET":
        a, b, c, d = (int(one) for one in told[1:])
        raise Reset(ownership.agent, (a, b, c, d))


def _fetched(cursors: Cursors, now: int, ownership: Ownership, told: Sequence[Any]) -> Fetched:
    _check_owner(ownership, told)
    unread = [
        (level, position, item)
        for level, (first, _), found in zip(LEVELS, cursors, told[2:], strict=True)
        for position, item in enumerate(found, first)
    ]
    return Fetched(unread, now, int(told[1]))


def _freed(ownership: Ownership, told: Sequence[Any]) -> int:
    _check_owner(ownership, told)
    return int(told[1])


def _caught(read: Any, ownership: Ownership, told: Sequence[Any]) -> Any:
    try:
        return read(ownership, told)
    except (Fenced, Reset) as what:
        return what


def read_with(data: bytes) -> tuple[bytes, bytes]:
    """Both that SEND rings with at once, if it begins with ``wi``."""
    size, _, rest = data[3:].partition(b" ")
    return rest[: int(size)], rest[int(size) :]


def read_along(data: bytes) -> Along:
    """What SEND rings with, if it begins with ``in``."""
    line, _, rest = data.partition(b"\n")
    _, agent, token, level, position, now, *sizes = line.split(b" ")
    first, at = int(position), ID_SIZE
    items = []
    for offset, size in enumerate(map(int, sizes)):
        items.append(read_item(int(level), first + offset, rest[at : at + size]))
        at += size
    cursor = Cursor(first, rest[:ID_SIZE].strip(b"\0") and rest[:ID_SIZE])
    return Along(decoded(agent), token.decode(), int(level), cursor, tuple(items), int(now))


def _letter(fields: dict[bytes, bytes]) -> dict[str, Any]:
    item = fields[b"item"]
    return {
        "agent": decoded(fields[b"agent"]),
        "level": int(fields[b"level"]),
        "reason": fields[b"reason"].decode(),
        "attempts": int(fields[b"attempts"]),
        "error": fields[b"error"].decode(errors="replace"),
        "id": item[HEAD : HEAD + ID_SIZE],
        "blob": item[HEAD + ID_SIZE :],
    }
