"""Limits: slow consumers, huge payloads, a full server, a wrong one, and all agents at once."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus import Node, PayloadTooLarge, Priority, TransportUnavailable
from actorbus.bus.transports.redis.deployment import LAYOUT, check_in, key_of
from actorbus.bus.transports.redis.reading import ACK_BATCH
from actorbus.redis_client import RedisServer
from actorbus.settings import Settings
from tests.faults.deployment import (
    AGENTS,
    AT_LENGTH,
    SWEEP,
    TTL,
    Deployment,
    Entry,
    check_ledger,
    p99,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.faults

MIB = 1 << 20
SLOW = "slow-1"
CAPACITY = 100
"""Of a slow worker."""
MEASURED = 4_000 if AT_LENGTH else 2_000
"""Messages of a turn in which latencies are measured."""
TURNS = 7 if AT_LENGTH else 1
IN_HAND = ITS_OWN = 1.0
"""Seconds that a slow worker takes for what it has in hand, and for what is urgent itself."""
FULL_BYTES = 64 * MIB
LARGE = 100_000


# -- a slow consumer


class Flood:
    """Offers a slow worker far more than it takes, and looks how many are in its inbox."""

    def __init__(self, deployment: Deployment) -> None:
        self.deepest = 0
        self.refused = 0
        self.offered = 0
        self._log = deployment.log
        self._node = Node(deployment.url, settings=Settings(send_timeout=2.0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flood:
        self._node.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        self.refused = len(self._node.dead_letters.list(reason="mailbox-full"))
        self._node.stop()

    def _run(self) -> None:
        ref = self._node.ref(SLOW)
        while not self._over.wait(0.02):
            for _ in range(20):
                ref.tell(f"flood {self.offered} ")
                self.offered += 1
            self.deepest = max(self.deepest, self._log.depth(SLOW))


def test_14_a_slow_consumer_fills_its_inbox_and_nobody_elses(deployment: Deployment) -> None:
    agents = AGENTS[:10]
    deployment.node("n1", [*agents, SLOW])
    calm, flooded = [], []

    def latencies(*senders: str) -> list[float]:
        began = time.monotonic()
        deployment.send(MEASURED, agents=agents, rate=800, senders=senders)
        deployment.finish()
        return deployment.latencies(agents, since=began)

    for turn in range(TURNS):
        calm.append(latencies(f"p{turn}", f"q{turn}"))
        with Flood(deployment) as flood:
            deployment.wait(lambda: flood.deepest >= CAPACITY, "a full inbox")
            flooded.append(latencies(f"r{turn}", f"s{turn}"))
            deepest = flood.deepest
            # A tenth more is for what is urgent.
            before, seconds = handled_before_an_urgent_one(deployment, turn)

        assert deepest == CAPACITY
        assert flood.refused > 0
        assert before <= 2
        if AT_LENGTH:
            assert seconds <= IN_HAND + ITS_OWN + SWEEP
    assert [len(some) for some in calm + flooded] == [MEASURED] * 2 * TURNS
    assert deployment.repeats() == {}
    if AT_LENGTH:
        # What else the machine did just then is in one turn, or in both halves of it.
        pairs = zip(map(p99, flooded), map(p99, calm), strict=True)
        assert median(one / other for one, other in pairs) <= 1.2


def handled_before_an_urgent_one(deployment: Deployment, number: int) -> tuple[int, float]:
    """How many messages the slow worker ends before an urgent one that is sent now: that in its
    hands, and perhaps another; and how long that takes."""

    def handled() -> list[Entry]:
        return [one for one in deployment.ran() if one.agent == SLOW]

    def is_urgent(entry: Entry) -> bool:
        return entry.message == f"{SLOW} urgent {number}"

    with Node(deployment.url) as node:
        sent = time.monotonic()
        node.ref(SLOW).tell(f"urgent {number} ", priority=Priority.URGENT)
        node.flush(5.0)
    deployment.wait(lambda: any(map(is_urgent, handled())), "the urgent message")
    (at,) = (one.at for one in handled() if is_urgent(one))
    return sum(sent < one.at < at for one in handled()), at - sent


# -- huge payloads


@pytest.mark.parametrize("size", [MIB + 1, 64 * MIB, 512 * MIB])
def test_20_a_huge_payload_is_refused_at_its_sender(deployment: Deployment, size: int) -> None:
    deployment.node("n1", AGENTS)
    with Node(deployment.url) as node:
        ref = node.ref(AGENTS[0])
        before = received(deployment)

        with pytest.raises(PayloadTooLarge):
            ref.tell(b"x" * size)
        node.flush(5.0)

        # What beats and looks for work meanwhile is little.
        assert received(deployment) - before < MIB
        assert deployment.log.depth(AGENTS[0]) == 0


def received(deployment: Deployment) -> int:
    """Bytes that the server has got."""
    told: Any = deployment.server.client.info("stats")
    return int(told["total_net_input_bytes"])


# -- a server that is full


@pytest.fixture
def small(deploy: Callable[[str], Deployment], start_redis: Callable[..., Any]) -> Deployment:
    """A deployment whose workers wait, with more sent than its server has room for; n2 is idle."""
    options = ("--maxmemory", str(FULL_BYTES), "--maxmemory-policy", "noeviction", "--save", "")
    deployment = deploy(start_redis(*options).url)
    deployment.node("n1", AGENTS)
    deployment.node("n2", [])
    deployment.hold.touch()
    deployment.send(1_600, size=LARGE, rate=0)
    deployment.wait(lambda: is_full(deployment), "a full server")
    return deployment


def is_full(deployment: Deployment) -> bool:
    told: Any = deployment.server.client.info("memory")
    return int(told["used_memory"]) > FULL_BYTES - LARGE


def senders_wait(deployment: Deployment) -> bool:
    return all(sender.poll() is None for sender in deployment.senders)


def test_22_a_full_server_holds_senders_back_and_kills_nobody(small: Deployment) -> None:
    owners = small.owners()
    tokens = small.tokens()

    time.sleep(3 * TTL)
    held_back = senders_wait(small)
    small.hold.unlink()

    small.finish()
    check_ledger(small, repeats_an_agent=0, messages=1_600)
    assert held_back
    assert small.owners() == owners
    assert small.tokens() == tokens


def test_22_agents_are_taken_over_on_a_full_server(small: Deployment) -> None:
    small.nodes["n1"].kill()
    killed = time.monotonic()
    small.wait(lambda: set(small.owners().values()) == {"n2"}, "n2 to own all")
    held_back = senders_wait(small)
    small.hold.unlink()

    small.finish()
    check_ledger(small, repeats_an_agent=ACK_BATCH, messages=1_600)
    small.recovered_from(killed)
    assert held_back


def test_22_a_node_that_starts_on_a_full_server_empties_it(small: Deployment) -> None:
    small.node("n3", ["newcomer"])
    for name in ("n1", "n2"):
        small.nodes[name].kill()
    killed = time.monotonic()
    small.wait(lambda: set(small.owners().values()) == {"n3"}, "n3 to own all")
    held_back = senders_wait(small)
    small.hold.unlink()

    small.finish()
    check_ledger(small, repeats_an_agent=ACK_BATCH, messages=1_600)
    small.recovered_from(killed)
    assert held_back
    assert small.owners(["newcomer"]) == {"newcomer": "n3"}


# -- a server that is not as it should be


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"), "set maxmemory-policy"),
        (("--replicaof", "127.0.0.1", "1"), "the address of the primary"),
    ],
    ids=["evicts", "replica"],
)
def test_23_a_server_that_would_lose_messages_is_refused(
    start_redis: Callable[..., Any], options: tuple[str, ...], why: str
) -> None:
    redis = start_redis("--save", "", *options)

    with pytest.raises(TransportUnavailable, match=why):
        Node(redis.url).start()


def test_23_and_43_a_deployment_of_a_newer_layout_is_refused_and_left_as_it_is(
    redis_url: str,
) -> None:
    namespace = uuid4().hex
    with closing(RedisServer(redis_url)) as server:
        check_in(server, namespace)
        server.client.hset(key_of(namespace), "layout", LAYOUT + 1)

        with pytest.raises(TransportUnavailable, match=f"of layout {LAYOUT + 1}"):
            Node(redis_url, settings=Settings(namespace=namespace)).start()

        assert server.client.keys(f"*{namespace}*") == [key_of(namespace).encode()]


def test_23_a_deployment_of_other_partitions_is_refused(redis_url: str) -> None:
    namespace = uuid4().hex
    with closing(RedisServer(redis_url)) as server:
        check_in(server, namespace, 64)

    with pytest.raises(TransportUnavailable, match="64 partitions, not 1"):
        Node(redis_url, settings=Settings(namespace=namespace)).start()


# -- all at once


HERD = 10_000 if AT_LENGTH else 1_000


def test_33_agents_that_are_all_ready_at_once_are_served(deployment: Deployment) -> None:
    herd = [f"herd-{number}" for number in range(HERD)]
    deployment.node("n1", herd)
    deployment.send(2 * HERD, agents=herd, senders=("p",), rate=0)

    deployment.finish()

    assert deployment.repeats() == {}
    assert len(deployment.ran()) == 2 * HERD
    assert not any(map(deployment.log.depth, herd[:: HERD // 100]))


def test_33_a_server_that_comes_back_is_not_stormed(deployment: Deployment, redis: Any) -> None:
    for name, agents in (("n1", AGENTS[::3]), ("n2", AGENTS[1::3]), ("n3", AGENTS[2::3])):
        deployment.node(name, agents)
    deployment.send(2_000, rate=500)
    deployment.finish()
    steady = connected(deployment)

    redis.kill()
    time.sleep(2 * TTL)
    redis.start()
    busy = busy_seconds(deployment, 6.0)
    made = int(told(deployment, "stats")["total_connections_received"])

    deployment.send(2_000, rate=500, senders=("r", "s"))
    deployment.finish()
    assert made <= 2 * steady
    if AT_LENGTH:
        assert busy < 5.0


def told(deployment: Deployment, section: str) -> Any:
    return deployment.server.client.info(section)


def connected(deployment: Deployment) -> int:
    return int(told(deployment, "clients")["connected_clients"])


def busy_seconds(deployment: Deployment, seconds: float) -> float:
    """For how many of these seconds the server had a core to itself, or nearly."""
    busy, until = 0.0, time.monotonic() + seconds
    before, cpu = time.monotonic(), cpu_of(deployment)
    while before < until:
        time.sleep(0.25)
        now, used = time.monotonic(), cpu_of(deployment)
        if used - cpu > 0.95 * (now - before):
            busy += now - before
        before, cpu = now, used
    return busy


def cpu_of(deployment: Deployment) -> float:
    used = told(deployment, "cpu")
    return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])
