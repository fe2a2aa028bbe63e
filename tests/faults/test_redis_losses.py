"""A server that comes back empty: who is alive knows what it lost."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.bus.transports.redis.lanes import Hole, Parcel
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.redis_client import RedisServer
from tests.faults.deployment import AGENTS, MESSAGES, SENDERS, Deployment, check_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.faults


def test_7_a_server_that_forgot_everything_costs_nothing_while_senders_live(
    deploy: Callable[[str], Deployment], start_redis: Callable[..., Any]
) -> None:
    redis = start_redis()
    deployment = deploy(redis.url)
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.send()
    # Who has sent nothing to an agent yet cannot tell one that is forgotten from none.
    deployment.wait(lambda: have_sent(deployment) == len(SENDERS) * len(AGENTS), "first messages")
    deployment.has_run(MESSAGES // 5)

    redis.kill()
    time.sleep(0.5)
    redis.start()
    back = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)
    deployment.recovered_from(back)
    assert [deployment.owned("n1"), deployment.owned("n2")] == [AGENTS[::2], AGENTS[1::2]]


def test_7_agents_that_were_idle_are_there_again_on_a_server_that_forgot_them(
    deploy: Callable[[str], Deployment], start_redis: Callable[..., Any]
) -> None:
    redis = start_redis()
    deployment = deploy(redis.url)
    deployment.node("n1", AGENTS)
    deployment.send(len(AGENTS) * len(SENDERS), rate=0)
    deployment.finish()

    redis.kill()
    redis.start()

    deployment.wait(lambda: set(deployment.owners().values()) == {"n1"}, "n1 to say so", 10.0)


def have_sent(deployment: Deployment) -> int:
    """How many pairs of a sender and an agent there are by now."""
    return len({tuple(one.message.split()[:2]) for one in deployment.accepted()})


def test_7_what_is_too_old_to_be_sent_again_is_counted_and_named(
    start_redis: Callable[..., Any],
) -> None:
    redis = start_redis()
    server, news = RedisServer(redis.url), list[Any]()
    log = InboxLog(server)
    outbox = Outbox(log, "sender", told=news.append, create=True, horizon=0.5)
    outbox.start()

    def put(count: int) -> None:
        until = time.monotonic() + 60.0
        for agent in ("a", "b"):
            for at in range(count):
                assert outbox.put(Parcel(agent, 2, b"%s%015d" % (agent.encode(), at), b"x", until))
        assert outbox.flush(30.0) == 0

    with closing(server):
        put(10)
        time.sleep(1.0)
        put(2)  # by which the window moves on
        redis.kill()
        redis.start()
        put(3)
        outbox.close(1.0)

        holes = {one.agent: one.messages for one in news if isinstance(one, Hole)}
        assert holes == {"a": 10, "b": 10}
        assert {name: log.depth(name) for name in "ab"} == {"a": 5, "b": 5}
