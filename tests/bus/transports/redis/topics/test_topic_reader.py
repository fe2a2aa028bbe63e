"""Events from publishers to agents of several nodes, on fakeredis and on a real server."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.gap import Gap
from actorbus.bus.routing import Route
from actorbus.bus.transports.redis.lanes import Parcel
from actorbus.bus.transports.redis.loads import Outgoing
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.bus.transports.redis.ownership import Fenced
from actorbus.bus.transports.redis.topics.following import AHEAD
from actorbus.bus.transports.redis.topics.log import TOPICS, TopicLog, event
from actorbus.bus.transports.redis.topics.reader import TopicReader
from actorbus.bus.where import compiled, gt
from actorbus.codec import Codec, TypeBook
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.bus.transports.redis.topics.log import Broken, Entry
    from tests.conftest import RedisProcess

DEADLINE = 20.0
CODEC = Codec(TypeBook(), limit=1 << 20)


class Node:
    """A node whose agents handle each event at once, but for those that are `slow`."""

    def __init__(self, server: RedisServer, log: InboxLog, name: str, **options: Any) -> None:
        self.found: dict[str, list[Any]] = {}
        self.in_hand: dict[str, list[bytes]] = {}
        self.slow: set[str] = set()
        self.gaps: list[tuple[str, Gap]] = []
        self.broken: list[Broken] = []
        self.troubles: list[TransportUnavailable] = []
        self.is_dead = False
        self._changed = threading.Condition()
        retention = {key: options.pop(key) for key in ("most", "age") if key in options}
        self.name = name
        self.topics = TopicLog(server, log, **retention)
        self.reader = TopicReader(
            self.topics,
            server,
            name,
            self,
            codec=CODEC,
            payload=lambda entry: CODEC.decode_payload(entry.blob),
            failed=self.troubles.append,
            **options,
        )
        self.reader.start()

    def take_event(self, agents: Sequence[str], entry: Entry, now: int) -> None:
        self._take(agents, CODEC.decode_payload(entry.blob), entry.id)

    def take_gap(self, agent: str, gap: Gap, gap_id: bytes) -> None:
        self.gaps.append((agent, gap))
        self._take([agent], gap, gap_id)

    def broken_event(self, broken: Broken) -> None:
        self.broken.append(broken)

    def _take(self, agents: Sequence[str], what: Any, event_id: bytes) -> None:
        if self.is_dead:
            return
        with self._changed:
            for agent in agents:
                self.found.setdefault(agent, []).append(what)
                self.in_hand.setdefault(agent, []).append(event_id)
            self._changed.notify_all()
        for agent in agents:
            if agent not in self.slow:
                self.handle(agent)

    def handle(self, agent: str, most: int = 1_000_000) -> None:
        with self._changed:
            some = self.in_hand.get(agent, [])[:most]
            del self.in_hand.get(agent, [])[:most]
        for event_id in some:
            self.reader.done(agent, event_id)

    def has(self, agent: str, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.found.get(agent, ())) >= count, DEADLINE)

    def has_had(self, agent: str, what: Any) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: what in self.found.get(agent, ()), DEADLINE)

    def die(self) -> None:
        """As if the process was killed: nothing more is said to the server."""
        self.is_dead = True
        self.reader._record.call = _killed  # type: ignore[method-assign]


def _killed(*_: Any, **__: Any) -> Any:
    raise TransportUnavailable("killed")


class Deployment:
    """Nodes and publishers on one server."""

    def __init__(self, server: RedisServer, log: InboxLog) -> None:
        self.server = server
        self.log = log
        self._ends = ExitStack()
        self._outboxes: dict[str, Outbox] = {}

    def node(self, name: str = "n1", **options: Any) -> Node:
        node = Node(self.server, self.log, name, **options)
        self._ends.callback(node.reader.close, 1.0)
        return node

    def publish(
        self,
        *payloads: Any,
        topic: str | None = None,
        sender: str | None = None,
        producer: str = "p",
        flush: bool = True,
    ) -> None:
        outbox = self._outboxes.get(producer)
        if outbox is None:
            outbox = Outbox(self.log, producer + uuid4().hex, told=lambda _: None)
            outbox.start()
            self._outboxes[producer] = outbox
            self._ends.callback(outbox.close, 1.0)
        for payload in payloads:
            agent, blob = event(topic, sender, CODEC.encode_payload(payload))
            assert outbox.put(Parcel(agent, 2, uuid4().bytes, blob, 1e9))
        if flush:
            assert outbox.flush(DEADLINE) == 0

    def close(self) -> None:
        self._ends.close()


@pytest.fixture
def deployment(server: RedisServer, log: InboxLog) -> Iterator[Deployment]:
    deployment = Deployment(server, log)
    yield deployment
    deployment.close()


def enter(deployment: Deployment, node: Node, agent: str, *patterns: str) -> bool:
    """A new agent begins with what it subscribes to, if it may without a call of its own."""
    asked = node.reader.entering(agent)
    _, told = deployment.log.acquire_and_ask(agent, node.name, asked.call, ttl=10)
    return node.reader.enter(agent, asked, told, [Route(agent, one) for one in patterns])


class TestEntering:
    def test_a_new_agent_gets_what_comes_from_then_on_and_nothing_before(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node()
        node.reader.join(["witness"])
        deployment.publish("before")
        assert node.has("witness", 1)

        until(lambda: enter(deployment, node, "a", "prices.>"))
        deployment.publish("after")
        deployment.publish(1, topic="prices.eur")
        deployment.publish(2, topic="orders.eur")
        deployment.publish("last")

        assert node.has_had("a", "last")
        assert node.found["a"] == ["after", 1, "last"]

    def test_a_broadcast_that_was_not_read_yet_is_not_for_who_comes_after_it(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node(bells=False, sweep=1_000.0)
        deployment.publish("before")

        assert not enter(deployment, node, "a")  # so it is to join
        node.reader.join(["a"])
        deployment.publish("after")
        node.reader._ring()

        assert node.has("a", 1)
        assert node.found["a"] == ["after"]

    def test_an_agent_of_which_something_is_kept_does_not_enter_as_new(
        self, deployment: Deployment
    ) -> None:
        one, two = deployment.node("n1"), deployment.node("n2")
        one.reader.join(["parked", "subscribed", "moved"])
        one.reader.subscribe(Route("subscribed", "prices.>"))
        one.reader.lost(["subscribed"])
        one.reader.park(["parked"], 1.0)
        two.reader.resume({"moved": "n1"})
        one.reader.lost(["moved"])

        entered = {name: enter(deployment, one, name) for name in ("parked", "subscribed", "moved")}

        assert entered == {"parked": False, "subscribed": False, "moved": False}
        assert one.reader.subscriptions("parked") == []
        until(lambda: enter(deployment, one, "new"))

    def test_who_died_before_a_word_of_a_new_agent_is_followed_from_where_that_began(
        self, deployment: Deployment
    ) -> None:
        one = deployment.node("n1")
        until(lambda: enter(deployment, one, "a"))
        one.die()
        deployment.publish("missed")

        two = deployment.node("n2")
        two.reader.resume({"a": "n1"})

        assert two.has("a", 1)
        assert two.found["a"] == ["missed"]


class TestDelivery:
    def test_a_broadcast_reaches_all_agents_of_all_nodes_but_its_sender(
        self, deployment: Deployment
    ) -> None:
        one, two = deployment.node("n1"), deployment.node("n2")
        one.reader.join(["a", "b"])
        two.reader.join(["c"])

        deployment.publish("from a", sender="a")
        deployment.publish("last")

        assert one.has("a", 1)
        assert one.has("b", 2)
        assert two.has("c", 2)
        assert one.found == {"a": ["last"], "b": ["from a", "last"]}

    def test_an_event_reaches_each_subscriber_of_its_topic_once_but_not_its_sender(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node()
        node.reader.join(["a", "b", "c"])
        for pattern in ("prices.*", "prices.>", "prices.eur"):
            node.reader.subscribe(Route("a", pattern))
        node.reader.subscribe(Route("b", "prices.>"))
        node.reader.subscribe(Route("c", "orders.>"))

        deployment.publish(1, topic="prices.eur", sender="b")
        deployment.publish(2, topic="prices.eur.x")
        deployment.publish("end")

        assert node.has("a", 3)
        assert node.has("b", 2)
        assert node.has("c", 1)
        assert node.found == {"a": [1, 2, "end"], "b": [2, "end"], "c": ["end"]}

    def test_a_filter_sees_the_payload(self, deployment: Deployment) -> None:
        node = deployment.node()
        node.reader.join(["a"])
        node.reader.subscribe(Route("a", "orders.>", compiled({"total": gt(100)})))

        deployment.publish({"total": 100}, {"total": 101}, {}, topic="orders.no")
        deployment.publish("end")

        assert node.has("a", 2)
        assert node.found["a"] == [{"total": 101}, "end"]

    def test_events_of_a_publisher_come_in_order_whatever_their_topics(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node()
        node.reader.join(["a"])
        node.reader.subscribe(Route("a", ">"))

        for number in range(300):
            deployment.publish(number, topic=f"t.{number % 3}" if number % 4 else None, flush=False)

        assert node.has("a", 300)
        assert node.found["a"] == list(range(300))

    def test_bytes_that_none_of_us_wrote_hold_nobody_up(self, deployment: Deployment) -> None:
        node = deployment.node()
        node.reader.join(["a"])

        deployment.log.send("x", [Outgoing(TOPICS, 1, 2, uuid4().bytes, b"\xff")])
        deployment.publish("after")

        assert node.has("a", 1)
        assert [one.raw[-1:] for one in node.broken] == [b"\xff"]


class TestSubscribing:
    def test_it_begins_exactly_when_it_returns(self, deployment: Deployment) -> None:
        node = deployment.node(sweep=0.05)
        node.reader.join(["a"])

        for number in range(30):
            deployment.publish(f"before {number}", topic=f"t{number}")
            node.reader.subscribe(Route("a", f"t{number}"))
            deployment.publish(f"after {number}", topic=f"t{number}")

        assert node.has("a", 30)
        assert node.found["a"] == [f"after {number}" for number in range(30)]

    def test_who_joins_sees_nothing_from_before(self, deployment: Deployment) -> None:
        node = deployment.node(sweep=0.05)

        for number in range(20):
            deployment.publish("before")
            node.reader.join([f"a{number}"])
        deployment.publish("end")

        assert all(node.has(f"a{number}", 20 - number) for number in range(20))
        assert node.found["a19"] == ["end"]
        assert node.found["a0"] == ["before"] * 19 + ["end"]

    def test_it_ends_when_it_is_ended_unless_another_is_like_it(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node()
        node.reader.join(["a"])
        one, two = Route("a", "t"), Route("a", "t")
        node.reader.subscribe(one)
        node.reader.subscribe(two)
        node.reader.unsubscribe(one)
        node.reader.unsubscribe(one)
        deployment.publish(1, topic="t")
        assert node.has("a", 1)

        node.reader.unsubscribe(two)

        deployment.publish(2, topic="t")
        deployment.publish("end")
        assert node.has("a", 2)
        assert node.found["a"] == [1, "end"]
        assert node.topics.subscriptions(["a"]) == [{}]

    def test_what_is_declared_before_an_agent_begins_misses_nothing(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node()
        node.reader.join(["a"], begin=False)
        deployment.publish(1, topic="t")
        node.reader.join(["other"])
        deployment.publish("all")
        assert node.has("other", 1)

        node.reader.declare(Route("a", "t"))
        node.reader.begin(["a"])

        assert node.has("a", 2)
        assert node.found["a"] == [1, "all"]

    def test_who_is_forgotten_gets_no_more_and_leaves_nothing(self, deployment: Deployment) -> None:
        node = deployment.node()
        node.reader.join(["a", "b"])
        node.reader.subscribe(Route("a", "t"))

        node.reader.forget(["a"])
        node.reader.forget(["a"])

        deployment.publish("x", topic="t")
        deployment.publish("end")
        assert node.has("b", 1)
        assert "a" not in node.found
        assert node.topics.subscriptions(["a"]) == [{}]


class TestMoving:
    def test_a_parked_agent_gets_the_rest_elsewhere_once_and_in_order(
        self, deployment: Deployment
    ) -> None:
        one = deployment.node("n1")
        one.reader.join(["a"])
        one.reader.subscribe(Route("a", "t", compiled({"n": gt(-1)})))
        for number in range(100):
            deployment.publish({"n": number}, topic="t", flush=False)
        assert one.has("a", 20)

        assert one.reader.park(["a"], DEADLINE) == ["a"]
        two = deployment.node("n2")
        deployment.publish({"n": 100}, topic="t")
        assert two.reader.resume({"a": None}) == {"a": True}
        deployment.publish({"n": 101}, topic="t")

        assert two.has("a", 102 - len(one.found["a"]))
        assert one.found["a"] + two.found["a"] == [{"n": number} for number in range(102)]
        assert [route.pattern for route in two.reader.subscriptions("a")] == ["t"]

    def test_a_dead_nodes_agents_get_what_they_missed_and_few_twice(
        self, deployment: Deployment
    ) -> None:
        one = deployment.node("n1")
        one.reader.join(["a", "b", "idle"])
        one.slow.add("b")
        one.reader.subscribe(Route("a", "t"))
        one.reader.subscribe(Route("b", "t"))
        deployment.publish(*range(500), topic="t")
        assert one.has("a", 400)
        one.die()
        had = {name: list(found) for name, found in one.found.items()}
        deployment.publish(*range(500, 700), topic="t")

        two = deployment.node("n2")
        two.reader.resume({"a": "n1", "b": "n1", "idle": "n1"})
        deployment.publish("end")

        for name, first in (("a", 400), ("b", 0)):
            assert two.has_had(name, "end")
            found = two.found[name]
            assert found[:-1] == list(range(found[0], 700))
            assert first - AHEAD <= found[0] <= len(had[name])
            assert len(had[name]) - found[0] <= AHEAD
        assert two.found["idle"] == ["end"]

    def test_an_agent_that_was_taken_is_not_the_former_nodes_to_change(
        self, deployment: Deployment
    ) -> None:
        one, two = deployment.node("n1"), deployment.node("n2")
        one.reader.join(["a"])
        two.reader.resume({"a": "n1"})

        with pytest.raises(Fenced):
            one.reader.subscribe(Route("a", "t"))
        one.reader.lost(["a"])
        deployment.publish("end")

        assert two.has("a", 1)
        assert "a" not in one.found

    def test_a_subscription_that_moved_is_taken_over_by_its_like_and_can_be_ended(
        self, deployment: Deployment
    ) -> None:
        one, two = deployment.node("n1"), deployment.node("n2")
        one.reader.join(["a"])
        one.reader.subscribe(Route("a", "t"))
        one.reader.park(["a"], DEADLINE)
        two.reader.resume({"a": None})
        again = Route("a", "t")
        two.reader.subscribe(again)

        two.reader.unsubscribe(again)

        deployment.publish(1, topic="t")
        deployment.publish("end")
        assert two.has("a", 1)
        assert two.found["a"] == ["end"]

    def test_whom_nobody_knows_begins_as_if_new(self, deployment: Deployment) -> None:
        deployment.publish("before")
        node = deployment.node()

        assert node.reader.resume({"a": "nobody", "b": None}) == {"a": False, "b": False}

        deployment.publish("end")
        assert node.has("a", 1)
        assert node.found["a"] == ["end"]


class TestSlowSubscribers:
    def test_one_that_hangs_holds_up_nobody_and_gets_all_when_it_goes_on(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node()
        node.slow.add("slow")
        node.reader.join(["slow", "quick"])

        deployment.publish(*range(400))

        assert node.has("quick", 400)
        assert node.reader.lagging == {"slow"}
        assert node.reader.pending("slow") <= 2 * 64
        assert len(node.found["slow"]) == AHEAD
        node.slow.clear()
        node.handle("slow")
        assert node.has("slow", 400)
        assert node.found["slow"] == list(range(400))
        until(lambda: not node.reader.lagging)
        until(lambda: not node.topics.lagging("n1"))

    def test_what_retention_took_is_one_gap_of_the_right_count(
        self, deployment: Deployment
    ) -> None:
        node = deployment.node(most=200)
        node.slow.add("slow")
        node.reader.join(["slow", "quick"])
        deployment.publish(*range(1_000))
        assert node.has("quick", 1_000)

        node.topics.trim("n1", "p")
        node.slow.clear()
        node.handle("slow")

        until(lambda: 999 in node.found["slow"])
        found = node.found["slow"]
        (gap,) = [one for one in found if isinstance(one, Gap)]
        at = found.index(gap)
        assert found[:at] == list(range(at))
        assert found[at + 1 :] == list(range(at + gap.count, 1_000))
        assert (gap.first, gap.last) == (at + 1, at + gap.count)
        assert node.gaps == [("slow", gap)]

    def test_one_that_was_away_gets_all_broadcasts_on_return_in_order_once(
        self, redis_url: str
    ) -> None:
        server = RedisServer(redis_url)
        deployment = Deployment(server, InboxLog(server, namespace=uuid4().hex))
        one = deployment.node("n1")
        one.reader.join(["a"])
        one.reader.park(["a"], DEADLINE)
        one.reader.close(DEADLINE)

        deployment.publish(*range(10_000))
        two = deployment.node("n2")
        two.reader.resume({"a": None})

        assert two.has("a", 10_000)
        assert two.found["a"] == list(range(10_000))
        deployment.close()
        server.close()


class TestCost:
    def test_idle_agents_cost_the_server_nothing(self, deployment: Deployment) -> None:
        node = deployment.node()
        node.reader.join(f"agent-{number}" for number in range(2_500))

        deployment.publish("to all")

        assert all(node.has(f"agent-{number}", 1) for number in range(2_500))
        until(lambda: not node.topics.lagging("n1"))

    def test_a_node_that_leaves_in_good_order_leaves_nothing(self, deployment: Deployment) -> None:
        node = deployment.node()
        node.reader.join(["a"])
        deployment.publish("x")
        assert node.has("a", 1)
        node.reader.forget(["a"])

        node.reader.close(DEADLINE)
        node.reader.close(DEADLINE)

        tag = deployment.log.tag(TOPICS)
        assert not deployment.server.client.exists(f"{tag}:t:n:n1", f"{tag}:t:lag:n1")


class TestTrouble:
    def test_all_is_as_before_after_the_server_was_killed_and_started_again(
        self, start_redis: Callable[..., RedisProcess]
    ) -> None:
        redis = start_redis("--appendonly", "yes", "--appendfsync", "always")
        server = RedisServer(redis.url)
        deployment = Deployment(server, InboxLog(server))
        node = deployment.node()
        node.reader.join(["a"])
        node.reader.subscribe(Route("a", "t"))
        deployment.publish(*range(50), topic="t")
        assert node.has("a", 50)

        redis.kill()
        deployment.publish(*range(50, 100), topic="t", flush=False)
        with pytest.raises(TransportUnavailable):
            node.reader.subscribe(Route("a", "u"))
        until(lambda: node.troubles)
        redis.start()
        deployment.publish(*range(100, 150), topic="t")

        assert node.has("a", 150)
        assert node.found["a"] == list(range(150))
        node.reader.subscribe(Route("a", "u"))
        deployment.publish("end", topic="u")
        assert node.has("a", 151)
        deployment.close()
        server.close()

    def test_a_server_that_lost_its_tail_costs_no_event_and_repeats_none(
        self, start_redis: Callable[..., RedisProcess]
    ) -> None:
        redis = start_redis()
        server = RedisServer(redis.url)
        deployment = Deployment(server, InboxLog(server))
        node = deployment.node()
        node.slow.add("slow")
        node.reader.join(["a", "slow"])
        node.reader.subscribe(Route("a", "t"))
        deployment.publish(*range(100), topic="t")
        assert node.has("a", 100)
        client: Any = server.client
        before = {key: client.dump(key) for key in client.keys("*")}
        deployment.publish(*range(100, 300), topic="t")
        deployment.publish(*range(90))
        node.reader.subscribe(Route("a", "u"))
        assert node.has("a", 390)

        pipeline = client.pipeline(transaction=True)
        pipeline.flushdb()
        for key, value in before.items():
            pipeline.restore(key, 0, value)
        pipeline.execute()
        deployment.publish("new", topic="u", producer="q")
        deployment.publish("more", topic="t")

        until(lambda: {"new", "more"} <= set(map(str, node.found["a"])))
        found = node.found["a"]
        assert [one for one in found if one != "new"] == [*range(300), *range(90), "more"]
        node.slow.clear()
        node.handle("slow")
        assert node.has("slow", 90)
        node.die()
        two = deployment.node("n2")
        two.reader.resume({"a": "n1", "slow": "n1"})
        deployment.publish("end", topic="u")
        until(lambda: "end" in two.found.get("a", ()))
        assert len(two.found["a"]) <= AHEAD + 1
        deployment.close()
        server.close()

    def test_answers_that_are_lost_lose_no_event_and_repeat_none(self, redis_url: str) -> None:
        from redis import Redis
        from redis.client import Pipeline
        from redis.exceptions import ConnectionError as Broken

        chance = random.Random(7)
        lost = [0]

        def lose(answer: Any) -> Any:
            if chance.random() < 0.2:
                lost[0] += 1
                raise Broken("the answer was lost")
            return answer

        class LossyPipeline(Pipeline):
            def execute(self, raise_on_error: bool = True) -> Any:
                return lose(super().execute(raise_on_error))

        class Lossy(Redis):
            def execute_command(self, *arguments: Any, **options: Any) -> Any:
                run: Any = super().execute_command
                return lose(run(*arguments, **options))

            def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
                return LossyPipeline(
                    self.connection_pool, self.response_callbacks, transaction, shard_hint
                )

        def make(**options: Any) -> Redis:
            options.pop("socket_keepalive")  # a socket of the file system knows none
            return Lossy.from_url(redis_url, **options)

        server = RedisServer(redis_url, make=make)
        deployment = Deployment(server, InboxLog(server, namespace=uuid4().hex))
        node = _until_it_works(deployment.node)
        _until_it_works(lambda: node.reader.join(["a"]))
        _until_it_works(lambda: node.reader.subscribe(Route("a", "t")))

        deployment.publish(*range(1_000), topic="t")

        assert node.has("a", 1_000)
        _until_it_works(lambda: node.reader.park(["a"], DEADLINE))
        two = _until_it_works(lambda: deployment.node("n2"))
        _until_it_works(lambda: two.reader.resume({"a": "n1"}))
        deployment.publish("end", topic="t")
        assert two.has("a", 1)
        assert node.found["a"] + two.found["a"] == [*range(1_000), "end"]
        assert lost[0] > 20
        deployment.close()
        server.close()


def _until_it_works(call: Callable[[], Any]) -> Any:
    for _ in range(50):
        try:
            return call()
        except TransportUnavailable:
            continue
    raise AssertionError("it never worked")


def test_agents_that_are_done_do_not_wait_while_events_are_placed(deployment: Deployment) -> None:
    node = deployment.node()
    agents = ["a", "b", "c"]
    node.slow.update(agents)
    node.reader.join(agents)
    deployment.publish("one")
    assert all(node.has(agent, 1) for agent in agents)
    handlers = [threading.Thread(target=node.handle, args=(agent,)) for agent in agents]

    with node.reader._changed:  # as the reader does then
        for handler in handlers:
            handler.start()
        # One of them at most is about to wake the reader.
        until(lambda: sum(handler.is_alive() for handler in handlers) <= 1)

    for handler in handlers:
        handler.join(DEADLINE)
    until(lambda: not any(map(node.reader.pending, agents)))
