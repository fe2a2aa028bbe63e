"""A node's way in and its way out, on fakeredis and on a real server."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.consumer import Consumer
from actorbus.bus.transports.redis.lanes import Accepted, Parcel, Refused
from actorbus.bus.transports.redis.loads import Taken
from actorbus.bus.transports.redis.log import Fetched, InboxLog, Letter
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.bus.transports.redis.ownership import START, Fenced
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.bus.transports.redis.items import Item
    from actorbus.bus.transports.redis.lanes import News
    from actorbus.bus.transports.redis.reading import Reading
    from actorbus.bus.transports.redis.shortcut import Shortcut

DEADLINE = 20.0


class Agent:
    """Handles each message at once, or when it is told to."""

    def __init__(self, consumer: Consumer, name: str, *, waits: bool = False) -> None:
        self.name = name
        self.found: list[str] = []
        self.in_hand: list[Item] = []
        self.told_at = 0
        self.was_lost = threading.Event()
        self._consumer = consumer
        self._waits = waits
        self._changed = threading.Condition()

    def take(self, items: Sequence[Item], now: int) -> None:
        with self._changed:
            self.found += [item.blob.decode() for item in items]
            self.in_hand += items
            self.told_at = now
            self._changed.notify_all()
        if not self._waits:
            self.handle()

    def handle(self) -> None:
        items, self.in_hand = self.in_hand, []
        for item in items:
            self._consumer.done(self.name, item.id)

    def give_up(self, item: Item, letter: Letter, now: int) -> None:
        self._consumer.done(self.name, item.id, letter)

    def lost(self, reading: Reading) -> None:
        self.was_lost.set()

    def has(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.found) >= count, DEADLINE)


class Way:
    """An outbox and what became of its messages."""

    def __init__(self, log: InboxLog, **options: Any) -> None:
        self.news: list[News] = []
        self.outbox = Outbox(log, uuid4().hex, told=self.news.append, **options)
        self.outbox.start()

    def send(self, agent: str, *texts: str, level: int = 2, deadline: float = 1e9) -> None:
        for text in texts:
            sent = self.outbox.put(Parcel(agent, level, uuid4().bytes, text.encode(), deadline))
            assert sent, "no room"

    def send_at_once(self, agent: str, *texts: str) -> None:
        for text in texts:
            sent = self.outbox.put_at_once(Parcel(agent, 2, uuid4().bytes, text.encode(), 1e9))
            assert sent, "no room"

    @property
    def shortcut(self) -> Shortcut:
        return self.outbox._shortcut

    @property
    def line(self) -> Any:
        return self.shortcut._dial.line

    def break_line(self) -> None:
        if self.line is not None:
            self.line._connection._sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def way(log: InboxLog) -> Iterator[Way]:
    way = Way(log)
    yield way
    way.outbox.close(1.0)


@pytest.fixture
def consumer(log: InboxLog, server: RedisServer) -> Iterator[Consumer]:
    consumer = Consumer(log, server, "n1")
    consumer.start()
    yield consumer
    consumer.close(DEADLINE)


def own(log: InboxLog, consumer: Consumer, name: str = "a", **options: Any) -> Agent:
    agent = Agent(consumer, name, **options)
    consumer.read(log.acquire(name, "n1", ttl=10), agent)
    return agent


def test_what_is_sent_arrives_in_order_and_is_acknowledged(
    log: InboxLog, consumer: Consumer, way: Way
) -> None:
    agent = own(log, consumer)

    way.send("a", *map(str, range(500)))

    assert agent.has(500)
    assert agent.found == [str(number) for number in range(500)]
    assert way.outbox.flush(DEADLINE) == 0
    assert all(isinstance(one, Accepted) for one in way.news)
    until(lambda: log.depth("a") == 0)


def test_many_agents_are_served(log: InboxLog, consumer: Consumer, way: Way) -> None:
    agents = [own(log, consumer, f"agent-{number}") for number in range(100)]

    for agent in agents:
        way.send(agent.name, "one", "two")

    assert all(agent.has(2) for agent in agents)
    assert {tuple(agent.found) for agent in agents} == {("one", "two")}


def test_what_came_between_owning_an_agent_and_reading_for_it_waits_for_no_sweep(
    log: InboxLog, server: RedisServer, way: Way
) -> None:
    consumer = Consumer(log, server, "n1", sweep=1_000.0)
    consumer.start()
    agent = Agent(consumer, "a")
    ownership = log.acquire("a", "n1", ttl=10)
    way.send("a", "early")
    until(lambda: "a" in consumer._early)

    consumer.read(ownership, agent)
    way.send("a", "late")

    assert agent.has(2)
    assert agent.found == ["early", "late"]
    consumer.close(DEADLINE)


def test_reading_for_new_agents_asks_the_server_nothing(
    log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches: list[int] = []
    exchange = log.exchange

    def count_and_exchange(done: Any, wanted: Sequence[Any], **how: Any) -> Any:
        fetches.append(len(wanted))
        return exchange(done, wanted, **how)

    monkeypatch.setattr(log, "exchange", count_and_exchange)
    hears = threading.Event()
    consumer = Consumer(log, server, "n1", due=hears.set)
    consumer.start()
    # When it begins to hear it asks for all it has, and only then for what rings.
    until(lambda: bool(server.client.publish(log.due_bell(log.tags[0]), b"due")))
    assert hears.wait(DEADLINE)

    agents = [own(log, consumer, f"a{number}") for number in range(100)]
    way.send("a50", "hello")

    assert agents[50].has(1)
    assert sum(fetches) <= 10
    consumer.close(DEADLINE)


def test_what_comes_along_with_a_bell_is_not_fetched(
    log: InboxLog, consumer: Consumer, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = own(log, consumer)
    way.send("a", "hello")
    assert agent.has(1)
    fetches: list[int] = []
    exchange = log.exchange

    def count_and_exchange(done: Any, wanted: Sequence[Any], **how: Any) -> Any:
        fetches.append(len(wanted))
        return exchange(done, wanted, **how)

    monkeypatch.setattr(log, "exchange", count_and_exchange)

    for count in range(2, 50):
        way.send("a", str(count))
        assert agent.has(count)

    assert agent.found == ["hello", *map(str, range(2, 50))]
    assert sum(fetches) < 25  # the sweep's, and where a bell came before the first fetch was over
    until(lambda: log.depth("a") == 0)


def test_a_bell_that_rings_for_two_is_heard_as_both(log: InboxLog, server: RedisServer) -> None:
    heard: list[bytes] = []
    consumer = Consumer(log, server, "n1", hints={b"ok ": heard.append})

    consumer._hear_of(b"wi 8 ok thankok again")

    assert heard == [b"thank", b"again"]


def test_a_bell_with_messages_that_nobody_heard_costs_only_time(
    log: InboxLog, consumer: Consumer, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = own(log, consumer)
    way.send("a", "first")
    assert agent.has(1)
    heard = consumer._hear_of
    monkeypatch.setattr(consumer, "_hear_of", lambda _: None)
    way.send("a", "second")
    assert way.outbox.flush(DEADLINE) == 0
    monkeypatch.setattr(consumer, "_hear_of", heard)

    way.send("a", "third")

    assert agent.has(3)
    assert agent.found == ["first", "second", "third"]


def test_what_is_on_its_way_from_the_server_is_pending(
    log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_its_way, may_arrive = threading.Event(), threading.Event()
    exchange = log.exchange

    def exchange_slowly(done: Any, wanted: Any, **how: Any) -> Any:
        freed, found = exchange(done, wanted, **how)
        if any(isinstance(one, Fetched) and one.unread for one in found):
            on_its_way.set()
            assert may_arrive.wait(DEADLINE)
        return freed, found

    monkeypatch.setattr(log, "exchange", exchange_slowly)
    consumer = Consumer(log, server, "n1")
    agent = own(log, consumer)
    way.send("a", "hello")
    way.outbox.flush(DEADLINE)
    consumer.start()
    assert on_its_way.wait(DEADLINE)

    meanwhile = log.ready("n1"), consumer.pending(["a"])
    may_arrive.set()

    assert meanwhile == ([], 1)
    assert agent.has(1)
    until(lambda: consumer.pending(["a"]) == 0)
    consumer.close(DEADLINE)


def test_what_is_not_done_is_not_acknowledged_and_the_window_is_kept(
    log: InboxLog, server: RedisServer, way: Way
) -> None:
    consumer = Consumer(log, server, "n1", window=8)
    consumer.start()
    agent = own(log, consumer, waits=True)
    way.send("a", *map(str, range(50)))
    way.outbox.flush(DEADLINE)
    assert agent.has(12)

    assert len(agent.found) == 12
    assert log.depth("a") == 50
    while len(agent.found) < 50:
        agent.handle()
    agent.handle()
    until(lambda: log.depth("a") == 0)
    consumer.close(DEADLINE)


def test_an_agent_that_another_node_took_is_lost_and_its_work_is_done_there(
    log: InboxLog, server: RedisServer, consumer: Consumer, way: Way
) -> None:
    first = own(log, consumer, waits=True)
    way.send("a", "1", "2", "3")
    assert first.has(3)
    other = Consumer(log, server, "n2")
    other.start()
    second = Agent(other, "a")

    other.read(log.acquire("a", "n2", ttl=10), second)
    first.handle()

    assert second.has(3)
    assert second.found == ["1", "2", "3"]
    assert first.was_lost.wait(DEADLINE)
    other.close(DEADLINE)
    assert log.depth("a") == 0


def test_who_starts_with_what_a_dead_owner_had_knows_the_time_of_the_server(
    log: InboxLog, server: RedisServer, way: Way
) -> None:
    """Else what expired meanwhile would be handled all the same."""
    dead = log.acquire("a", "n1", ttl=10)
    way.send("a", "text")
    until(lambda: log.depth("a") == 1)
    sent = log.fetch(dead, START).now
    consumer = Consumer(log, server, "n2")
    consumer.start()
    agent = Agent(consumer, "a")

    consumer.read(log.acquire("a", "n2", ttl=10), agent)

    assert agent.has(1)
    assert sent <= agent.told_at < sent + 60_000
    consumer.close(DEADLINE)


def test_an_agent_that_is_given_up_repeats_nothing_elsewhere(
    log: InboxLog, server: RedisServer, consumer: Consumer, way: Way
) -> None:
    first = own(log, consumer)
    way.send("a", *map(str, range(100)))
    assert first.has(100)

    (ownership,) = consumer.give_up(["a", "nobody"], DEADLINE)

    theirs = log.hand_off(ownership, "n2")
    consumer.done("a", b"whatever")
    assert log.depth("a") == 0
    assert log.fetch(theirs, theirs.cursors).items == ()


def test_an_agent_that_is_busy_is_given_up_once_it_is_done_with_what_it_has(
    log: InboxLog, consumer: Consumer, way: Way
) -> None:
    agent = own(log, consumer, waits=True)
    way.send("a", *map(str, range(30)))
    assert agent.has(12)

    too_early = consumer.give_up(["a"], 0.0)
    agent.handle()
    (ownership,) = consumer.give_up(["a"], DEADLINE)

    assert too_early == []
    assert len(agent.found) == 12
    assert log.depth("a") == 18
    assert ownership.agent == "a"


def test_what_was_not_handled_is_a_dead_letter(log: InboxLog, consumer: Consumer, way: Way) -> None:
    agent = own(log, consumer, waits=True)
    way.send("a", "1", "2")
    assert agent.has(2)

    consumer.done("a", agent.in_hand[0].id, Letter(0, 0, "rejected", 1, "why"))
    consumer.done("a", agent.in_hand[1].id)

    until(lambda: log.depth("a") == 0)
    assert [(one["reason"], one["blob"]) for one in log.letters()] == [("rejected", b"1")]


def test_without_bells_everything_arrives_all_the_same(
    log: InboxLog, server: RedisServer, way: Way
) -> None:
    deaf = Consumer(log, server, "n1", sweep=0.05, bells=False)
    deaf.start()
    agent = own(log, deaf)

    for number in range(20):
        way.send("a", str(number))
        way.outbox.flush(DEADLINE)

    assert agent.has(20)
    assert agent.found == [str(number) for number in range(20)]
    deaf.close(DEADLINE)


def test_nobody_of_that_name_is_said(log: InboxLog, way: Way) -> None:
    way.send("nobody", "1")

    assert way.outbox.flush(DEADLINE) == 0
    (refused,) = way.news
    assert isinstance(refused, Refused)
    assert refused.taken is Taken.NO_AGENT


def test_an_outbox_holds_so_many(log: InboxLog) -> None:
    way = Way(log, limit=3)
    log.acquire("a", "n1", ttl=10)
    way.outbox.close(0.0)
    idle = Outbox(log, "idle", told=way.news.append, limit=3)
    parcels = [Parcel("a", 2, uuid4().bytes, b"x", 1e9) for _ in range(5)]

    taken = [idle.put(parcel) for parcel in parcels]

    assert taken == [True, True, True, False, False]
    assert idle.flush(0.0) == 3
    assert idle.close(0.0) == parcels[:3]
    assert not idle.put(parcels[0])
    assert not way.outbox.put(parcels[0])


class Trips:
    """The round trips of a consumer: what happens in them besides.

    Args:
        brings: called once the first is over that brings messages, before any are handed out.
        next_one: called instead of the one after that; its last argument is to be called meanwhile.
    """

    def __init__(
        self,
        log: InboxLog,
        monkeypatch: pytest.MonkeyPatch,
        *,
        brings: Callable[[], object] = lambda: None,
        next_one: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        self._exchange = log.exchange
        self._brings = brings
        self._next_one = next_one
        self.brought = threading.Event()
        monkeypatch.setattr(log, "exchange", self._make)

    def _make(self, done: Any, wanted: Any, *, meanwhile: Callable[[], object]) -> Any:
        if self.brought.is_set() and self._next_one is not None:
            self._next_one(meanwhile)
            return self._exchange(done, wanted)
        freed, found = self._exchange(done, wanted, meanwhile=meanwhile)
        if any(isinstance(one, Fetched) and one.unread for one in found):
            if not self.brought.is_set():
                self._brings()
            self.brought.set()
        return freed, found


class TestWhatWasBrought:
    """It is handed out while the next round trip is under way."""

    def test_most_is_handed_out_during_a_round_trip_in_order_and_once(
        self, log: InboxLog, consumer: Consumer, way: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        during: list[int] = []
        exchange = log.exchange

        def count(done: Any, wanted: Any, *, meanwhile: Callable[[], object]) -> Any:
            def counted() -> None:
                before = sum(len(one.found) for one in agents)
                meanwhile()
                during.append(sum(len(one.found) for one in agents) - before)

            return exchange(done, wanted, meanwhile=counted)

        agents = [Agent(consumer, f"a{number}") for number in range(60)]
        texts = [str(number) for number in range(50)]
        owned = [log.acquire(agent.name, "n1", ttl=10) for agent in agents]
        for agent in agents:
            way.send(agent.name, *texts)
        way.outbox.flush(DEADLINE)
        monkeypatch.setattr(log, "exchange", count)

        for agent, ownership in zip(agents, owned, strict=True):
            consumer.read(ownership, agent)

        assert all(agent.has(50) for agent in agents)
        assert [agent.found for agent in agents] == [texts] * 60
        assert sum(during) > 1_000
        until(lambda: all(log.depth(agent.name) == 0 for agent in agents))

    @pytest.mark.parametrize("fails", ["the sweep", "the trip", "the trip, and says so late"])
    def test_is_handed_out_though_the_server_is_away_since(
        self,
        log: InboxLog,
        server: RedisServer,
        way: Way,
        monkeypatch: pytest.MonkeyPatch,
        fails: str,
    ) -> None:
        def be_away(*_: object, **__: object) -> Any:
            raise TransportUnavailable("away")

        def vanish() -> None:
            patch.setattr(log, "ready", be_away)
            if fails == "the sweep":
                consumer._ring()
            else:
                consumer._hear_of(b"at b")

        def fail(meanwhile: Callable[[], object]) -> None:
            found_before.append(list(agent.found))
            if fails == "the trip, and says so late":
                meanwhile()
            be_away()

        found_before: list[list[str]] = []
        with monkeypatch.context() as patch:
            consumer = Consumer(log, server, "n1", bells=False)
            agent = own(log, consumer)
            own(log, consumer, "b")
            way.send("a", "1", "2")
            assert way.outbox.flush(DEADLINE) == 0
            Trips(log, patch, brings=vanish, next_one=fail)
            consumer.start()

            arrived = agent.has(2)
            depth = log.depth("a")

        assert arrived
        assert depth == 2
        assert fails == "the sweep" or found_before[0] == []
        until(lambda: log.depth("a") == 0)
        assert agent.found == ["1", "2"]
        consumer.close(DEADLINE)

    def test_is_pending_until_it_is_handed_out(
        self, log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pending: list[int] = []
        consumer = Consumer(log, server, "n1")
        Trips(log, monkeypatch, brings=lambda: pending.append(consumer.pending(["a"])))
        agent = own(log, consumer)
        way.send("a", "hello")
        way.outbox.flush(DEADLINE)

        consumer.start()

        assert agent.has(1)
        assert pending == [1]
        until(lambda: consumer.pending(["a"]) == 0)
        consumer.close(DEADLINE)

    def test_is_left_to_the_next_owner_where_the_consumer_closes(
        self, log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def close() -> None:
            closing.start()
            until(lambda: first._closing)

        with monkeypatch.context() as patch:
            trips = Trips(log, patch, brings=close)
            first, second = Consumer(log, server, "n1"), Consumer(log, server, "n2")
            closing = threading.Thread(target=first.close, args=(DEADLINE,))
            early = own(log, first)
            way.send("a", "1", "2")
            way.outbox.flush(DEADLINE)
            first.start()
            assert trips.brought.wait(DEADLINE)
            closing.join(DEADLINE)

        late = Agent(second, "a")
        second.start()
        second.read(log.acquire("a", "n2", ttl=10), late)

        assert late.has(2)
        assert (early.found, late.found) == ([], ["1", "2"])
        until(lambda: log.depth("a") == 0)
        second.close(DEADLINE)

    def test_is_left_to_the_next_owner_of_an_agent_that_is_given_up(
        self, log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[Any] = []
        first, second = Consumer(log, server, "n1"), Consumer(log, server, "n2")
        Trips(log, monkeypatch, brings=lambda: given.extend(first.give_up(["a"], 0.0)))
        early = own(log, first)
        way.send("a", "1", "2")
        way.outbox.flush(DEADLINE)
        first.start()
        until(lambda: bool(given))

        late = Agent(second, "a")
        second.start()
        second.read(log.hand_off(given[0], "n2"), late)

        assert late.has(2)
        assert (early.found, late.found) == ([], ["1", "2"])
        until(lambda: log.depth("a") == 0)
        first.close(DEADLINE)
        second.close(DEADLINE)

    def test_is_left_in_the_inbox_of_an_agent_that_is_held(
        self, log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        consumer = Consumer(log, server, "n1")
        trips = Trips(log, monkeypatch, brings=lambda: consumer.hold(["a"]))
        agent = own(log, consumer)
        way.send("a", "1", "2")
        way.outbox.flush(DEADLINE)
        consumer.start()
        assert trips.brought.wait(DEADLINE)

        until(lambda: consumer._readings["a"][0].waiting == 2)

        assert agent.found == []
        assert len(consumer.give_up(["a"], DEADLINE)) == 1
        assert log.depth("a") == 2
        consumer.close(DEADLINE)

    def test_says_nothing_of_an_agent_that_was_had_again_since(
        self, log: InboxLog, server: RedisServer, way: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers: list[Any] = []
        exchange = log.exchange

        def have_again(done: Any, wanted: Any, **how: Any) -> Any:
            if wanted and not answers:
                reading, _ = consumer._readings["a"]
                again = log.hand_off(log.hand_off(reading.ownership, "n2"), "n1")
                freed, found = exchange(done, wanted, **how)
                answers.extend(found)
                consumer.read(again, agent, after=reading)
                return freed, found
            return exchange(done, wanted, **how)

        monkeypatch.setattr(log, "exchange", have_again)
        consumer = Consumer(log, server, "n1")
        agent = own(log, consumer)
        way.send("a", "1", "2")
        way.outbox.flush(DEADLINE)

        consumer.start()

        assert agent.has(2)
        until(lambda: log.depth("a") == 0)
        assert isinstance(answers[0], Fenced)
        assert agent.found == ["1", "2"]
        assert not agent.was_lost.is_set()
        consumer.close(DEADLINE)


class TestServerAway:
    def test_nothing_is_lost_or_doubled_when_the_server_is_killed_and_comes_back(
        self, start_redis: Callable[..., Any]
    ) -> None:
        process = start_redis("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        server = RedisServer(process.url)
        log = InboxLog(server)
        consumer = Consumer(log, server, "n1")
        consumer.start()
        agent = own(log, consumer)
        way = Way(log)
        way.send("a", *map(str, range(1_000)))
        assert agent.has(100)

        process.kill()
        way.send("a", *map(str, range(1_000, 2_000)))
        process.start()

        assert agent.has(2_000)
        assert agent.found == [str(number) for number in range(2_000)]
        until(lambda: log.depth("a") == 0)
        way.outbox.close(DEADLINE)
        consumer.close(DEADLINE)
        server.close()

    def test_what_the_server_lost_is_sent_again_while_its_sender_lives(
        self, start_redis: Callable[..., Any]
    ) -> None:
        process = start_redis()  # keeps nothing
        server = RedisServer(process.url)
        log = InboxLog(server)
        way = Way(log, create=True)
        way.send("a", "1", "2", "3")
        assert way.outbox.flush(DEADLINE) == 0

        process.kill()
        process.start()
        way.send("a", "4")

        assert way.outbox.flush(DEADLINE) == 0
        consumer = Consumer(log, server, "n1")
        consumer.start()
        agent = own(log, consumer)
        assert agent.has(4)
        assert agent.found == ["1", "2", "3", "4"]
        way.outbox.close(DEADLINE)
        consumer.close(DEADLINE)
        server.close()

    def test_a_server_without_memory_makes_senders_wait_and_is_emptied_all_the_same(
        self, start_redis: Callable[..., Any]
    ) -> None:
        process = start_redis(
            "--maxmemory", "4mb", "--maxmemory-policy", "noeviction", "--save", ""
        )  # fmt: skip
        server = RedisServer(process.url)
        log = InboxLog(server)
        owner = log.acquire("a", "n1", ttl=10)
        way = Way(log, limit=10_000)
        way.send("a", *(f"{number} {'x' * 2_000}" for number in range(3_000)))
        until(lambda: way.outbox.problem is not None)
        assert "maxmemory" in str(way.outbox.problem)

        log.beat("n1", ttl=10)
        consumer = Consumer(log, server, "n1")
        consumer.start()
        agent = Agent(consumer, "a")
        consumer.read(owner, agent)

        assert agent.has(3_000)
        assert [text.split()[0] for text in agent.found] == [str(one) for one in range(3_000)]
        assert way.outbox.flush(DEADLINE) == 0
        way.outbox.close(DEADLINE)
        consumer.close(DEADLINE)
        server.close()


class TestWhatIsSentAtOnce:
    """By whoever puts it in; on fakeredis it all goes the long way."""

    def test_it_arrives_in_order_with_what_is_sent_otherwise(
        self, log: InboxLog, consumer: Consumer, way: Way
    ) -> None:
        agent = own(log, consumer)
        texts = [str(number) for number in range(200)]

        for text in texts:
            if int(text) % 3:
                way.send_at_once("a", text)
            else:
                way.send("a", text)

        assert agent.has(200)
        assert agent.found == texts
        assert way.outbox.flush(DEADLINE) == 0
        assert sum(len(one.parcels) for one in way.news if isinstance(one, Accepted)) == 200

    def test_one_by_one_nobody_else_sends_it(
        self,
        log: InboxLog,
        server: RedisServer,
        consumer: Consumer,
        way: Way,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        agent = own(log, consumer)
        way.send_at_once("a", "first")
        assert agent.has(1)
        until(lambda: not way.shortcut.wanted)
        if way.line is None:
            pytest.skip("no short cut on fakeredis")
        monkeypatch.setattr(log, "ship", None)

        for count in range(2, 20):
            way.send_at_once("a", str(count))
            assert agent.has(count)

        assert way.outbox.flush(DEADLINE) == 0
        assert len(way.news) == 19

    def test_what_became_of_it_is_told_though_nothing_follows(
        self, log: InboxLog, consumer: Consumer, way: Way
    ) -> None:
        own(log, consumer)

        for count in range(1, 4):
            way.send_at_once("a", str(count))
            until(lambda count=count: len(way.news) == count)  # type: ignore[misc]

        assert way.outbox.waiting == 0

    def test_an_agent_that_nobody_knows_is_refused(self, log: InboxLog, way: Way) -> None:
        for count in range(1, 4):
            way.send_at_once("nobody", "hello")
            until(lambda count=count: len(way.news) == count)  # type: ignore[misc]

        assert all(isinstance(one, Refused) for one in way.news)

    def test_a_connection_that_breaks_costs_only_time(
        self, log: InboxLog, server: RedisServer, consumer: Consumer, way: Way
    ) -> None:
        agent = own(log, consumer)
        for count in range(1, 30):
            way.send_at_once("a", str(count))
            if count % 7 == 0:
                way.break_line()

        assert agent.has(29)
        assert agent.found == [str(count) for count in range(1, 30)]
        assert way.outbox.flush(DEADLINE) == 0

    def test_an_answer_that_was_lost_makes_nothing_arrive_twice(
        self, log: InboxLog, server: RedisServer, consumer: Consumer, way: Way
    ) -> None:
        agent = own(log, consumer)
        way.send_at_once("a", "1")
        assert agent.has(1)
        until(lambda: not way.outbox.waiting)

        way.send_at_once("a", "2")
        assert agent.has(2)
        way.break_line()
        way.send_at_once("a", "3")

        assert agent.has(3)
        assert agent.found == ["1", "2", "3"]
        assert way.outbox.flush(DEADLINE) == 0

    def test_scripts_that_the_server_forgot_are_loaded(
        self, log: InboxLog, server: RedisServer, consumer: Consumer, way: Way
    ) -> None:
        agent = own(log, consumer)
        way.send_at_once("a", "1")
        assert agent.has(1)

        server.client.script_flush()
        way.send_at_once("a", "2", "3")

        assert agent.has(3)
        assert agent.found == ["1", "2", "3"]
