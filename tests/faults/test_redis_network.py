"""What lies between nodes and Redis: cut, deaf in one direction, torn, or forgetful."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, Node, TransportUnavailable, handles
from actorbus.bus.transports.redis.lanes import Parcel
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.bus.transports.redis.reading import ACK_BATCH
from actorbus.redis_client import RedisServer
from tests.faults.deployment import (
    AGENTS,
    AT_LENGTH,
    MESSAGES,
    TTL,
    Deployment,
    check_ledger,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.conftest import Proxy

pytestmark = pytest.mark.faults

SECONDS = [1.0, 5.0, 30.0] if AT_LENGTH else [0.5 * TTL, 2.5 * TTL]
FOUND_WITHIN = 5.0


@pytest.fixture
def proxy(deployment: Deployment, make_proxy: Callable[[str], Proxy]) -> Proxy:
    return make_proxy(deployment.url)


def begun(deployment: Deployment, proxy: Proxy) -> None:
    """Load on a node and senders behind the proxy, and on a node that is not."""
    deployment.node("n1", AGENTS[::2], url=proxy.url)
    deployment.node("n2", AGENTS[1::2])
    deployment.send(url=proxy.url)
    deployment.has_run(MESSAGES // 5)


@pytest.mark.parametrize("seconds", SECONDS)
def test_11_a_node_that_is_cut_off_loses_nothing(
    deployment: Deployment, proxy: Proxy, seconds: float
) -> None:
    begun(deployment, proxy)

    proxy.away = True
    proxy.cut()
    time.sleep(seconds)
    proxy.away = False
    back = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    deployment.recovered_from(back)


@pytest.mark.parametrize("way", ["deaf", "mute"])
@pytest.mark.parametrize("seconds", SECONDS)
def test_11_a_black_hole_in_one_direction_loses_nothing(
    deployment: Deployment, proxy: Proxy, way: str, seconds: float
) -> None:
    begun(deployment, proxy)

    setattr(proxy, way, True)
    time.sleep(seconds)
    setattr(proxy, way, False)
    proxy.cut()  # what a stream has swallowed does not come back
    back = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    deployment.recovered_from(back)


def test_11_of_30_percent_torn_answers_and_requests_none_is_lost(
    deployment: Deployment, proxy: Proxy
) -> None:
    begun(deployment, proxy)

    proxy.tear = 0.3
    time.sleep(20.0 if AT_LENGTH else 5.0)
    proxy.tear = 0.0
    torn, whole = proxy.lost, time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    deployment.recovered_from(whole)
    assert torn > 5


def test_11_a_subscriber_that_went_deaf_is_found(redis_url: str, proxy: Proxy) -> None:
    with Node(proxy.url) as node:
        node.context.watch("any", lambda _: None)
        time.sleep(0.5)
        before = set(proxy.bells)

        proxy.bells_only = proxy.deaf = True
        began = time.monotonic()
        time.sleep(FOUND_WITHIN + 1.0)
        found = {one: proxy.bells[one] for one in before}
        proxy.deaf = False

    assert before
    assert all(at is not None and at - began <= FOUND_WITHIN for at in found.values()), found


def test_11_an_outbox_takes_no_more_than_it_may_hold(deployment: Deployment, proxy: Proxy) -> None:
    server = RedisServer(proxy.url)
    log = InboxLog(server)
    accepted: list[Any] = []
    outbox = Outbox(log, "sender", told=accepted.append, limit=500, create=True)
    outbox.start()

    def put() -> int:
        until = time.monotonic() + 60.0
        return sum(outbox.put(Parcel("agent", 2, b"%016d" % at, b"x", until)) for at in range(900))

    with closing(server):
        proxy.away = True
        proxy.cut()
        taken = put()
        proxy.away = False
        left = outbox.flush(30.0)
        outbox.close(1.0)

        assert taken == 500
        assert left == 0
        assert sum(len(one.parcels) for one in accepted) == log.depth("agent") == 500


def test_11_who_sends_to_a_server_that_is_away_is_told_within_its_time(
    deployment: Deployment, proxy: Proxy
) -> None:
    with Node(proxy.url) as node:
        proxy.away = True
        proxy.cut()
        began = time.monotonic()
        with pytest.raises(TransportUnavailable):
            node.ref("nobody-has-heard-of")
        took = time.monotonic() - began
        proxy.away = False

    assert took <= 10.0


@contextmanager
def forgetful(url: str, every: float) -> Iterator[list[float]]:
    """The server forgets all scripts, again and again; how often."""
    server, over, flushed = RedisServer(url), threading.Event(), list[float]()

    def forget() -> None:
        while not over.wait(every):
            server.client.script_flush()
            flushed.append(time.monotonic())

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield flushed
    finally:
        over.set()
        thread.join(10)
        server.close()


def test_42_scripts_that_the_server_forgets_are_loaded_again(deployment: Deployment) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])

    with forgetful(deployment.url, 0.005) as flushed:
        deployment.send()
        deployment.finish()

    check_ledger(deployment, repeats_an_agent=0)
    assert len(flushed) > 20


class Echo(Agent):
    @handles
    def echo(self, text: str) -> str:
        return text


def test_42_nodes_start_ask_and_stop_whenever_the_server_forgets_scripts(
    deployment: Deployment,
) -> None:
    asked: list[str] = []
    with forgetful(deployment.url, 0.0005) as flushed:
        for number in range(5):
            with Node(deployment.url, name="n1") as node, Node(deployment.url, name="n2") as other:
                for at in range(50):
                    node.spawn(Echo, name=f"echo-{number}-{at}")
                refs = [other.ref(f"echo-{number}-{at}") for at in range(50)]
                asked += [ref.ask(ref.name, timeout=20.0).get() for ref in refs]

    assert len(asked) == len(set(asked)) == 5 * 50
    assert len(flushed) > 100
