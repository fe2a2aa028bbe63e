"""The directory of nodes that share a Redis. Read this page first; then ``scripts/table.lua``.

*The table* in Redis says which nodes there are and who runs on them. *The view* is what this
process knows of it; every search is answered from there. A log of all changes, read by one
thread that sleeps at it, keeps the view up to date: each entry names the one before, so whoever
missed some knows, and reads the whole table instead.

What this process says of its own nodes and agents is kept here too (``Home``), and a second
thread makes the table agree with it for as long as it takes: so a server that comes back empty
is told everything again, and meanwhile nobody is taken for gone.

Who is dead is decided by the server's time alone, in the scripts; see ``directory.Directory``.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.errors import BusClosed, NameTaken, TransportUnavailable, Undecodable
from actorbus.registry.directories.redis.home import Home
from actorbus.registry.directories.redis.records import Record, RemoteMember, kind_in, written
from actorbus.registry.directories.redis.table import MOST_AGENTS, Position, Table
from actorbus.registry.directories.redis.view import Row, View
from actorbus.registry.directory import ChangeKind, DirectoryChange
from actorbus.registry.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actorbus.codec import Codec
    from actorbus.redis_client import BusKind, RedisServer
    from actorbus.registry.directories.redis.records import Kind
    from actorbus.registry.directories.redis.table import Change, Departure, Joining, News

    Listener = Callable[[DirectoryChange], None]

_DEAD_AFTER: Final = 10.0
_SWEEP: Final = 1.0
"""Seconds between two looks at the log that nobody rang for, and between two reports of loads."""
_BREATH: Final = 0.02
"""Seconds that many changes get to become one look."""
_GATHER: Final = 0.005
"""Seconds that what is to be written gets to become one write."""
_LONGEST_PAUSE: Final = 1.0
_MOST_WORRIES: Final = 100
"""That wait to be told, of a table that holds what nobody can read."""
_LAST_TRY: Final = 5.0
"""Seconds that ``close`` waits for each of the two threads."""


class NodeView(NamedTuple):
    """A node as the table tells of it. ``silence`` is seconds of the server's since its last
    beat; ``load`` counts what waits and is in hand at all its agents."""

    name: str
    incarnation: str
    agents: int
    load: int
    silence: float
    host: str
    pid: int | None
    version: str


class RedisDirectory:
    """The nodes and agents of one namespace, as the ``Directory`` of the nodes in this process.

    Searches never wait for the server: while it is away they answer from the last view, which
    is ``view_age`` seconds old. ``join``, ``beat`` and ``register`` then raise
    ``TransportUnavailable`` within seconds; ``leave``, ``unregister`` and the loads are repeated
    until they succeed, and so is ``register`` with `names_held`.

    Args:
        server: whoever made it closes it, after this.
        bus: how its nodes speak to each other; those that speak otherwise are in another table.
        codec: what agents tell of themselves is packed with.
        incarnation: what people know the node's start by; by default its token here.
        version: of actorbus, for people.
        names_held: others see to it that a name has one owner, as the transport does with its
            tokens. Who registers is in the view at once, and nobody waits: the table is told
            milliseconds later, of many in one round trip. There it takes the name over from
            another node, and that one's ``failed`` is told, unless it had let go by then. Who
            could not be told of for `dead_after` takes no name any more: if a node that lives
            has it, it is out of the view, and our ``failed`` is told.
        failed: is told what went wrong in the background, once an outage.
    """

    load_age: float = _SWEEP

    def __init__(
        self,
        server: RedisServer,
        codec: Codec,
        *,
        namespace: str = "actorbus",
        bus: BusKind = "durable",
        dead_after: float = _DEAD_AFTER,
        incarnation: str | None = None,
        version: str = "",
        names_held: bool = False,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._codec = codec
        self._dead_after = dead_after
        self._incarnation = incarnation
        self._version = version
        self._names_held = names_held
        self._failed = failed
        self._table = Table(server, namespace, bus, dead_after=dead_after)
        self._view = View()
        self._homes: dict[str, Home] = {}
        self._by_token: dict[str, Home] = {}
        """Ours, and those that left, until the table says that they are gone."""
        # Taken in this order, and then the view's; none while listeners are called.
        self._writing = threading.RLock()
        self._syncing = threading.RLock()
        self._epoch: bytes | None = None
        self._position = Position()
        self._nodes: dict[str, str] = {}
        self._kinds: dict[tuple[str, int], Kind] = {}
        self._confirmed = time.monotonic()
        self._grace_until: float | None = None
        self._departures: deque[Departure] = deque()
        self._goodbyes: dict[str, list[str]] = {}
        self._orphans: dict[str, None] = {}
        self._listeners: tuple[Listener, ...] = ()
        self._changes: deque[DirectoryChange] = deque()
        self._worries: deque[Exception] = deque(maxlen=_MOST_WORRIES)
        self._delivering = threading.RLock()
        self._inside = False
        self._away = False
        self._closing = threading.Event()
        self._kick = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- nodes

    def join(self, node: str) -> Mapping[str, float]:
        """
        Raises:
            NameTaken: a live node has that name.
            TransportUnavailable: the server did not answer.
            BusClosed: the directory was closed.
        """
        if self._closing.is_set():
            raise BusClosed("the directory was closed")
        with self._writing:
            self._catch_up()
            home = Home(node)
            silences = self._table.join(node, home.token, self._facts(home))
            self._dismiss(node)
            with self._view.lock:
                self._homes[node] = self._by_token[home.token] = home
            self._catch_up()
            self._start()
        self._deliver()
        return silences

    def beat(self, node: str) -> Mapping[str, float]:
        """
        Raises:
            TransportUnavailable: the server did not answer; at once, while it is known to be away.
            BusClosed: the node has not joined.
            NameTaken: the node was dead for so long that another took its name.
        """
        home = self._home(node)
        self._check_there()
        silences = self._table.beat(node, home.token)
        return self._rejoin(home) if silences is None else silences

    def leave(self, node: str) -> None:
        with self._writing:
            home = self._homes.get(node)
            if home is not None:
                self._goodbyes[home.token] = self._dismiss(node)
                self._try_goodbyes()
        self._deliver()

    def nodes(self) -> list[NodeView]:
        """All nodes as the table tells of them now, by name.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        names, told = self._table.nodes(), self._table.facts()
        silences = self._table.silences()
        counts = dict.fromkeys(names, (0, 0))
        for record in self._records(self._table.agents()).values():
            if record.token in counts:
                agents, load = counts[record.token]
                counts[record.token] = (agents + 1, load + record.figures.load)
        found = []
        for token, name in names.items():
            facts = self._read_facts(told.get(token))
            silence = silences.get(name, 0.0)
            found.append(
                NodeView(
                    name,
                    facts.get("incarnation") or token,
                    *counts[token],
                    silence,
                    facts.get("host", ""),
                    int(facts["pid"]) if facts.get("pid", "").isdigit() else None,
                    facts.get("version", ""),
                )
            )
        return sorted(found)

    # -- agents

    def register(self, entry: Entry) -> None:
        """
        Raises:
            NameTaken, BusClosed: as every directory.
            UnsupportedPayload, PayloadTooLarge: its metadata or a schema cannot be carried.
            TransportUnavailable: the server did not answer.
        """
        for refusal in self.register_all([entry]):
            raise refusal

    def register_all(self, entries: Iterable[Entry]) -> list[NameTaken]:
        """Many at a time, in few round trips. Returns why some were not.

        Raises:
            As ``register``; those before may be registered then.
        """
        refusals: list[NameTaken] = []
        try:
            if self._names_held:
                for node, of_node in groupby(entries, key=lambda one: one.node):
                    refusals += self._take_in(node, of_node)
                self._kick.set()
                return refusals
            self._check_there()
            with self._writing:
                self._flush_departures()
                for node, of_node in groupby(entries, key=lambda one: one.node):
                    while some := list(islice(of_node, MOST_AGENTS)):
                        refusals += self._register(node, some)
        finally:
            self._deliver()
        return refusals

    def unregister(self, name: str, node: str) -> None:
        with self._view.lock:
            home = self._homes.get(node)
            own = None if home is None else home.own(name)
            if home is None or own is None:
                return
            self._withdraw(home, own.number)
        self._kick.set()
        self._deliver()

    def get(self, name: str) -> Entry | None:
        row = self._view.row(name)
        return None if row is None else row.entry

    def members(self, capability: str | None = None) -> Sequence[Entry]:
        return self._view.members(capability)

    def listen(self, listener: Listener) -> Callable[[], None]:
        with self._view.lock:
            self._listeners = (*self._listeners, listener)

        def stop_listening() -> None:
            with self._view.lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop_listening

    # -- the directory as a whole

    @property
    def view_age(self) -> float:
        """Seconds since the server last confirmed that the view is all there is."""
        return time.monotonic() - self._confirmed

    def look(self) -> None:
        """Read the table once, for whoever is no node: ``members`` answers from that.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        self._catch_up()
        self._deliver()

    def close(self) -> None:
        """Leave with all nodes, and end the threads, within seconds. Idempotent."""
        for node in list(self._homes):
            self.leave(node)
        self._closing.set()
        self._kick.set()
        if self._threads:
            with suppress(TransportUnavailable):  # then the thread finds that out by itself
                self._table.wake()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_LAST_TRY)
        self._threads = []
        self._table.close()

    # -- writing: own nodes and agents. `_writing` is held

    def _register(self, node: str, entries: Sequence[Entry]) -> list[NameTaken]:
        home = self._home(node)
        new, refusals = _new(home, entries)
        told = [(entry, written(entry.member, self._codec)) for entry in new]
        with self._view.lock:
            joining = [home.admit(entry, what) for entry, what in told]
        if not joining:
            return refusals
        try:
            owners = self._tell(home, joining, patiently=True)
        except BaseException:
            with self._view.lock:  # it may have been done all the same
                for one in joining:
                    self._withdraw(home, one.number)
            self._kick.set()
            raise
        with self._view.lock:
            for one, owner in zip(joining, owners, strict=True):
                if owner:
                    self._withdraw(home, one.number)
                    refusals.append(NameTaken(one.name, owner))
        return refusals

    def _take_in(self, node: str, entries: Iterable[Entry]) -> list[NameTaken]:
        """Register agents whose names are theirs: in the view now, in the table soon."""
        home = self._home(node)
        with self._view.lock:
            new, refusals = _new(home, entries)
            for entry in new:
                what = written(entry.member, self._codec)
                number = home.take_in(entry, what, time.monotonic())
                self._seat(entry.member.name, Row(home.token, number, entry))
        return refusals

    def _tell_arrivals(self) -> None:
        """Tell the table who is here and it was not told of."""
        for home in list(self._homes.values()):
            while True:
                with self._view.lock:
                    joining = home.to_tell(MOST_AGENTS)
                    late = [one for one in joining if self._is_late(home, one.number)]
                if not joining:
                    break
                some = late or joining
                owners = self._tell(home, some, takes=not late)
                for one, owner in zip(some, owners, strict=True):
                    with self._view.lock:
                        home.untold.pop(one.number, None)
                    if owner:
                        self._give_way(home, one.number, NameTaken(one.name, owner))
                if any(owners):
                    with self._syncing:  # who has those names was not looked at
                        self._reload(lost=False)

    def _is_late(self, home: Home, number: int) -> bool:
        """Whether somebody else may own the agent by now: we were dead to all others."""
        return time.monotonic() - home.untold[number] > self._dead_after

    def _tell(
        self,
        home: Home,
        joining: Sequence[Joining],
        *,
        takes: bool = False,
        patiently: bool = False,
    ) -> list[str]:
        """Who has each name instead, or ''; those that joined are in the view then."""
        for _ in range(2):
            owners, news = self._table.register(
                home.token,
                home.kinds(joining),
                joining,
                self._position,
                takes=takes,
                patiently=patiently,
            )
            if owners is not None:
                break
            self._rejoin(home)
        else:
            raise TransportUnavailable(f"the registry forgot node {home.name!r}; try again")
        with self._view.lock:
            for one, owner in zip(joining, owners, strict=True):
                if not owner:
                    home.settle(one.number)
        # A server that did not know the script of the first ran that of the news before it.
        if not self._take(news) or not self._in_view(home, joining, owners):
            self._catch_up()
        return owners

    def _in_view(self, home: Home, joining: Sequence[Joining], owners: Sequence[str]) -> bool:
        rows = [(one, self._view.row(one.name)) for one in joining]
        return all(
            owner or (row is not None and row.is_of(home.token, one.number))
            for (one, row), owner in zip(rows, owners, strict=True)
        )

    def _rejoin(self, home: Home) -> dict[str, float]:
        """The table does not know the node: it lost it, or took it for dead for long."""
        silences = self._table.join(home.name, home.token, self._facts(home))
        home.lost = True
        self._kick.set()
        return silences

    def _restore(self, home: Home) -> None:
        """Tell the table everything of a node. Names that others have by now are theirs."""
        home.lost = False
        try:
            with self._view.lock:
                rest = iter(home.settled())
            while joining := list(islice(rest, MOST_AGENTS)):
                joining = [one for one in joining if one.number in home.agents]
                owners = self._tell(home, joining)
                for one, owner in zip(joining, owners, strict=True):
                    if owner:
                        self._give_way(home, one.number, NameTaken(one.name, owner))
        except BaseException:
            home.lost = True
            raise

    def _give_way(self, home: Home, number: int, why: NameTaken) -> None:
        with self._view.lock:
            self._withdraw(home, number)
        self._worries.append(why)

    def _withdraw(self, home: Home, number: int) -> None:
        """An agent is here no more; the table is told in time. The view's lock is held."""
        departure = home.withdraw(number)
        if departure is None:
            return
        self._departures.append(departure)
        row = self._view.row(departure.name)
        if row is not None and row.is_of(home.token, number):
            self._remove(departure.name)

    def _dismiss(self, node: str) -> list[str]:
        """Forget a node of ours; the names of its agents."""
        with self._view.lock:
            home = self._homes.pop(node, None)
            if home is None:
                return []
            names = self._view.of(home.token)
            for name in names:
                self._remove(name)
            # Until the table says that it is gone, what is read of it is old.
            home.leave()
            return names

    def _flush_departures(self) -> None:
        while self._departures:
            token = self._departures[0].token
            some = [one for one in islice(self._departures, MOST_AGENTS) if one.token == token]
            self._table.unregister(token, some)
            gone = set(some)
            for _ in range(len(self._departures)):
                one = self._departures.popleft()
                if one not in gone:
                    self._departures.append(one)

    def _try_goodbyes(self) -> None:
        try:
            self._flush_departures()
            self._say_goodbyes()
        except TransportUnavailable as error:
            self._worries.append(error)
            self._kick.set()

    def _say_goodbyes(self) -> None:
        for token, names in list(self._goodbyes.items()):
            self._table.leave(token)
            self._table.forget(names)
            del self._goodbyes[token]

    def _tell_loads(self) -> None:
        for home in list(self._homes.values()):
            with self._view.lock:
                rest = iter(home.worth_telling())
            while some := list(islice(rest, MOST_AGENTS)):
                self._table.tell_loads(
                    home.token, [(own.entry.member.name, own.number, now) for own, now in some]
                )
                for own, now in some:
                    own.told = now

    def _sweep_orphans(self) -> None:
        with self._view.lock:
            names = list(self._orphans)
        if names:
            self._table.forget(names)
            with self._view.lock:
                for name in names:
                    self._orphans.pop(name, None)

    # -- reading: the view

    def _catch_up(self) -> None:
        """Until the view is as the table."""
        while not self._read_on():
            pass
        self._end_grace()

    def _read_on(self) -> bool:
        """One page of news; where that cannot be read, the whole table, without what cannot."""
        try:
            return self._take(self._table.news(self._position))
        except (Undecodable, ValueError) as error:
            self._worries.append(error)
            with self._syncing:
                self._reload(lost=False)
            return True

    def _take(self, news: News) -> bool:
        """Bring the view up to `news`; whether that was all."""
        read_at = time.monotonic()
        with self._syncing:
            try:
                self._learn_kinds(news)
                with self._view.lock:
                    follows = self._apply(news)
            except (Undecodable, ValueError) as error:
                self._worries.append(error)
                follows = False
            if not follows:
                self._reload(lost=news.epoch != self._epoch or _went_back(news))
        if news.complete or not follows:
            self._confirmed = read_at
            return True
        return False

    def _apply(self, news: News) -> bool:
        """Whether `news` go on where the view ends. The view's lock is held."""
        if news.epoch != self._epoch or _went_back(news):
            return False
        log, loads = self._position
        for change in news.log:
            if change.id <= log:
                continue
            if change.after != log:
                return False
            self._follow(change)
            log = change.id
        for report in news.loads:
            if report.id <= loads:
                continue
            if report.after != loads:
                return False
            self._take_loads(report.token, report.figures)
            loads = report.id
        self._position = Position(log, loads)
        return not news.complete or (log >= news.latest.log and loads >= news.latest.loads)

    def _follow(self, change: Change) -> None:
        whom, rest = change.whom, change.rest.decode()
        match change.what:
            case b"up":
                self._nodes[rest] = whom.decode()
            case b"kind":
                token, _, number = rest.partition(" ")
                self._learn((token, int(number)), whom)
            case b"unkind":
                self._kinds.pop((rest, int(whom)), None)
            case b"joined":
                self._put(whom.decode(), change.record)
            case b"left":
                token, _, number = rest.partition(" ")
                row = self._view.row(whom.decode())
                if row is not None and row.is_of(token, int(number)):
                    self._remove(whom.decode())
            case b"gone":
                self._bury(rest)

    def _put(self, name: str, record: Record) -> None:
        row = self._row(name, record)
        if row is None:
            return
        before = self._view.row(name)
        if before is not None and before.is_of(row.token, row.number):
            member = before.entry.member
            if isinstance(member, RemoteMember):
                member.take(record.figures)
            elif (home := self._by_token.get(row.token)) is not None:
                home.untold.pop(row.number, None)  # from here on whoever takes the name has it
        elif before is None or not self._is_untold(before):
            self._seat(name, row)

    def _is_untold(self, row: Row) -> bool:
        """Whether it is ours, and takes its name once the table hears of it."""
        home = self._by_token.get(row.token)
        return home is not None and row.number in home.untold

    def _seat(self, name: str, row: Row) -> None:
        """From now on the agent of that name is that one."""
        before = self._view.row(name)
        if before is not None:
            self._lose(name, before, row)
        self._view.add(name, row)
        self._note(ChangeKind.JOINED, row.entry)

    def _row(self, name: str, record: Record) -> Row | None:
        """None where its node is gone, or nobody here could read what it is."""
        home = self._by_token.get(record.token)
        if home is not None:
            own = home.agents.get(record.number)
            return None if own is None else Row(record.token, record.number, own.entry)
        node = self._nodes.get(record.token)
        kind = self._kinds.get((record.token, record.kind))
        if node is None or kind is None:
            return None
        member = RemoteMember(name, kind, record.figures)
        return Row(record.token, record.number, Entry(member, node, kind.names))

    def _lose(self, name: str, before: Row, to: Row) -> None:
        """Somebody else has the name; where it was ours, we were dead to all others."""
        self._remove(name)
        home = self._by_token.get(before.token)
        if home is not None and (departure := home.withdraw(before.number)) is not None:
            self._departures.append(departure)
            self._worries.append(NameTaken(name, to.entry.node))

    def _bury(self, token: str) -> None:
        """A node is gone; one of ours is to come again, and its agents stay."""
        self._nodes.pop(token, None)
        home = self._by_token.get(token)
        if home is not None:
            if self._homes.get(home.name) is home:
                return
            del self._by_token[token]
        for name in self._view.of(token):
            self._remove(name)
            self._orphans[name] = None
        self._kinds = {key: kind for key, kind in self._kinds.items() if key[0] != token}

    def _take_loads(self, token: str, figures: Iterable[tuple[str, int, Any]]) -> None:
        if token in self._by_token:
            return
        for name, number, its in figures:
            row = self._view.row(name)
            if row is not None and row.is_of(token, number):
                member = row.entry.member
                if isinstance(member, RemoteMember):
                    member.take(its)

    def _reload(self, *, lost: bool) -> None:
        """Read the whole table. `lost`: the server lost some of it, which is told again soon."""
        latest = self._table.latest()
        nodes = self._table.nodes()
        records = self._records(self._table.agents())
        living = {name: one for name, one in records.items() if one.token in nodes}
        wanted = {
            (one.token, one.kind) for one in living.values() if one.token not in self._by_token
        }
        kinds = self._read_kinds(sorted(wanted))
        with self._view.lock:
            if lost and self._epoch:
                self._grace_until = time.monotonic() + self._dead_after
            keeps = self._grace_until is not None
            self._nodes = {**self._nodes, **nodes} if keeps else nodes
            self._kinds = {**self._kinds, **kinds} if keeps else kinds
            for name, row in self._view.rows():
                now = living.get(name)
                if now is None or not now.is_same(row.token, row.number):
                    self._miss(name, row, keeps=keeps)
            for name, record in sorted(living.items(), key=lambda one: one[1].id):
                self._put(name, record)
            self._orphans.update(dict.fromkeys(records.keys() - living.keys()))
            self._by_token = {
                token: home
                for token, home in self._by_token.items()
                if token in nodes or self._homes.get(home.name) is home
            }
            self._epoch, self._position = latest.epoch, latest.latest

    def _miss(self, name: str, row: Row, *, keeps: bool) -> None:
        """The table does not have an agent that the view has."""
        home = self._by_token.get(row.token)
        if self._is_untold(row):
            return  # it never had it
        if home is not None:
            home.lost = True
            self._kick.set()
        elif not keeps:
            self._remove(name)

    def _end_grace(self) -> None:
        """Whoever did not say again by now that it is there is not."""
        with self._syncing:
            if self._grace_until is not None and time.monotonic() > self._grace_until:
                self._grace_until = None
                self._reload(lost=False)

    def _learn_kinds(self, news: News) -> None:
        """Those of agents that join, which no news will tell."""
        told = {change.rest for change in news.log if change.what == b"kind"}
        wanted = set()
        for change in news.log:
            if change.what == b"joined":
                record = change.record
                key = (record.token, record.kind)
                known = key in self._kinds or record.token in self._by_token
                if not known and f"{key[0]} {key[1]}".encode() not in told:
                    wanted.add(key)
        if wanted:
            found = self._read_kinds(sorted(wanted))
            with self._view.lock:
                self._kinds.update(found)

    def _read_kinds(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Kind]:
        found = {}
        for key, data in zip(wanted, self._table.kinds(wanted), strict=True):
            kind = None if data is None else self._kind_in(data)
            if kind is not None:
                found[key] = kind
        return found

    def _learn(self, key: tuple[str, int], data: bytes) -> None:
        kind = None if key[0] in self._by_token else self._kind_in(data)
        if kind is not None:
            self._kinds[key] = kind

    def _kind_in(self, data: bytes) -> Kind | None:
        try:
            return kind_in(data, self._codec)
        except Undecodable as error:
            self._worries.append(error)
            return None

    def _records(self, agents: Mapping[bytes, bytes]) -> dict[str, Record]:
        found = {}
        for name, data in agents.items():
            try:
                found[name.decode()] = Record.read(data)
            except (UnicodeDecodeError, Undecodable) as error:
                self._worries.append(error)
        return found

    # -- listeners

    def _remove(self, name: str) -> None:
        self._note(ChangeKind.LEFT, self._view.remove(name).entry)

    def _note(self, kind: ChangeKind, entry: Entry) -> None:
        if self._listeners:
            self._changes.append(DirectoryChange(kind, entry))

    def _deliver(self) -> None:
        """Hand changes to the listeners, in order; all that were noted before are heard then.

        A listener may change the directory: its changes come after those that wait.
        """
        with self._delivering:
            if self._inside:
                return
            self._inside = True
            try:
                while self._worries:
                    self._failed(self._worries.popleft())
                while self._changes:
                    change = self._changes.popleft()
                    for listener in self._listeners:
                        listener(change)
            finally:
                self._inside = False

    # -- the two threads

    def _start(self) -> None:
        if self._threads:
            return
        for work, name in ((self._read, "reader"), (self._write, "writer")):
            thread = threading.Thread(target=work, name=f"actorbus-registry-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _read(self) -> None:
        trouble = _Trouble(self._failed)
        while not self._closing.is_set():
            try:
                self._table.wait(self._position, _SWEEP)
                self._closing.wait(_BREATH)
                self._catch_up()
                self._away = False
                trouble.over()
            except Exception as error:  # noqa: BLE001 - told to `failed`, and reading goes on
                self._away = isinstance(error, TransportUnavailable)
                self._closing.wait(trouble.met(error))
            self._deliver()

    def _write(self) -> None:
        trouble = _Trouble(self._failed)
        look_at = 0.0
        while not self._closing.is_set():
            try:
                if self._kick.wait(_SWEEP * random.uniform(0.9, 1.1)):
                    self._kick.clear()
                    self._closing.wait(_GATHER)
                with self._writing:
                    self._mend()
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + _SWEEP
                    self._tell_loads()
                    self._sweep_orphans()
                trouble.over()
            except Exception as error:  # noqa: BLE001 - told to `failed`, and tried again
                self._kick.set()
                self._closing.wait(trouble.met(error))
            self._deliver()

    def _mend(self) -> None:
        """Make the table say what is so here."""
        self._flush_departures()
        self._say_goodbyes()
        for home in list(self._homes.values()):
            if home.lost:
                self._restore(home)
        self._tell_arrivals()

    # -- small things

    def _check_there(self) -> None:
        """Nobody waits for a server that is known to be away."""
        if self._away:
            raise TransportUnavailable(
                f"the registry's server has not answered for {self.view_age:.1f} s"
            )

    def _home(self, node: str) -> Home:
        home = self._homes.get(node)
        if home is None:
            raise BusClosed(f"node {node!r} has not started, so nothing can join it")
        return home

    def _facts(self, home: Home) -> bytes:
        return self._codec.encode_payload(
            {
                "incarnation": self._incarnation or home.token,
                "host": socket.gethostname(),
                "pid": str(os.getpid()),
                "version": self._version,
            }
        )

    def _read_facts(self, data: bytes | None) -> dict[str, str]:
        if data is None:
            return {}
        try:
            match self._codec.decode_payload(data):
                case dict() as facts:
                    return {str(name): str(value) for name, value in facts.items()}
        except Undecodable as error:
            self._worries.append(error)
        return {}


class _Trouble:
    """One outage: told once, and ever longer pauses, with full jitter."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._pause = 0.0
        self._told: tuple[type[Exception], str] | None = None

    def met(self, error: Exception) -> float:
        """Seconds to wait."""
        same = (type(error), str(error))
        if self._told != same:
            self._told = same
            self._failed(error)
        self._pause = min(max(0.05, 2 * self._pause), _LONGEST_PAUSE)
        return random.uniform(0, self._pause)

    def over(self) -> None:
        self._pause = 0.0
        self._told = None


def _new(home: Home, entries: Iterable[Entry]) -> tuple[list[Entry], list[NameTaken]]:
    """Those that are not on that node yet, and why some cannot be."""
    new: dict[str, Entry] = {}
    refusals = []
    for entry in entries:
        name = entry.member.name
        own = home.own(name)
        first = new.get(name) if own is None else own.entry
        if first is None:
            new[name] = entry
        elif first.member is not entry.member:
            refusals.append(NameTaken(name, home.name))
    return list(new.values()), refusals


def _went_back(news: News) -> bool:
    """Whether the server knows less than we do: it lost its tail."""
    return news.latest.log < news.since.log or news.latest.loads < news.since.loads
