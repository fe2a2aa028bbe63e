"""Nodes that die while others take over, agents that two want, nodes that come and go."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.loads import Outgoing, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.ownership import Fenced, OwnedBy, Ownership
from actorbus.bus.transports.redis.reading import ACK_BATCH
from actorbus.redis_client import RedisServer
from tests.faults.deployment import (
    AGENTS,
    AT_LENGTH,
    MESSAGES,
    TAKEN_OVER,
    TTL,
    check_ledger,
    check_recovery,
    p99,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.deployment import Deployment

pytestmark = pytest.mark.faults

STORM = 60.0 if AT_LENGTH else 8.0
RACES = 1_000


def test_2_all_nodes_are_killed_and_started_again(deployment: Deployment) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    killed = [deployment.nodes.pop(name) for name in ("n1", "n2")]
    for node in killed:
        node.kill()
    for node in killed:
        deployment.reap(node)
    again = [deployment.begin("n3", []), deployment.begin("n4", [])]
    for node in again:
        deployment.is_up(node)
    up = time.monotonic()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    check_recovery(deployment, up, within=TTL + 2.0)
    assert set(deployment.owners().values()) <= {"n3", "n4"}


@pytest.mark.parametrize("when", ["100 ms later", "while it takes over"])
def test_3_a_node_is_killed_and_so_is_who_takes_over(deployment: Deployment, when: str) -> None:
    deployment.node("n1", AGENTS[::3])
    deployment.node("n2", AGENTS[1::3])
    deployment.node("n3", AGENTS[2::3])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    deployment.nodes["n1"].kill()
    if when == "100 ms later":
        time.sleep(0.1)
        heir = "n2"
    else:
        heir = first_to_own_of(deployment, AGENTS[::3], ("n2", "n3"))
    deployment.nodes[heir].kill()
    killed = time.monotonic()
    (left,) = {"n2", "n3"} - {heir}
    deployment.wait(lambda: set(deployment.owners().values()) == {left}, "one owner for all")
    owned = time.monotonic() - killed

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=2 * ACK_BATCH)
    check_recovery(deployment, killed, within=TAKEN_OVER)
    if AT_LENGTH:
        assert owned <= TAKEN_OVER


def first_to_own_of(deployment: Deployment, agents: list[str], nodes: Sequence[str]) -> str:
    """Which of `nodes` takes over some of `agents` first: it may have all of them at once."""

    def heirs() -> list[str]:
        return [one for one in deployment.owners(agents).values() if one in nodes]

    deployment.wait(lambda: bool(heirs()), "somebody to take over")
    return heirs()[0]


class Racer:
    """Wants the agent again and again, and runs what is there when it has it."""

    def __init__(self, url: str, name: str, namespace: str, agent: str) -> None:
        self.server = RedisServer(url)
        self.log = InboxLog(self.server, namespace=namespace)
        self.name = name
        self.agent = agent
        self.wins = 0
        self.runs: list[bytes] = []

    def race(self) -> Ownership | None:
        """Be the owner, if the other is not; then run what waits."""
        try:
            mine = self.log.acquire(self.agent, self.name, ttl=60.0)
        except OwnedBy:
            return None
        self.wins += 1
        return mine

    def run(self, mine: Ownership) -> None:
        found = self.log.fetch(mine, mine.cursors)
        done = list(mine.cursors)
        for item in found.items:
            self.runs.append(item.id)
            done[item.level] = done[item.level]._replace(position=item.position + 1, id=item.id)
        a, b, c, d = done
        self.log.acknowledge(mine, (a, b, c, d))


def test_29_two_nodes_that_race_for_an_agent_get_one_owner_each_time(redis_url: str) -> None:
    namespace, agent = uuid4().hex, "wanted"
    one, two = (Racer(redis_url, name, namespace, agent) for name in ("n1", "n2"))
    with closing(one.server), closing(two.server), ThreadPoolExecutor(2) as pool:
        for racer in (one, two):
            racer.log.beat(racer.name, ttl=60.0)
        start = threading.Barrier(2)
        tokens: list[int] = []

        def go(racer: Racer) -> Ownership | None:
            start.wait(10)
            return racer.race()

        for number in range(1, RACES + 1):
            sent = Outgoing(agent, number, 2, os.urandom(16), b"work")
            (answer,) = one.log.send("sender", [sent], create=True)
            assert answer.taken is Taken.OK

            owners = list(pool.map(go, (one, two)))

            (winner,) = [at for at, owner in zip((one, two), owners, strict=True) if owner]
            (mine,) = [owner for owner in owners if owner]
            tokens.append(int(mine.token))
            winner.run(mine)
            winner.log.release(mine)
            with pytest.raises(Fenced):
                winner.log.fetch(mine, mine.cursors)

    assert tokens == sorted(set(tokens))
    assert len(one.runs) + len(two.runs) == RACES
    assert set(one.runs).isdisjoint(two.runs)
    assert one.wins
    assert two.wins


def test_30_nodes_that_come_and_go_every_two_seconds(deployment: Deployment) -> None:
    deployment.node("n0", AGENTS)
    rate = 500.0
    messages = int(rate * (STORM + 10.0))
    deployment.send(messages, rate=rate)
    moves = dict.fromkeys(AGENTS, 0)
    owners, changes, last = deployment.owners(), 0, time.monotonic()
    next_change = last + 2.0
    over = last + STORM
    running = ["n0"]

    while time.monotonic() < over:
        if time.monotonic() >= next_change:
            next_change += 2.0
            changes += 1
            last = time.monotonic()
            if len(running) > 1 and changes % 2 == 0:
                deployment.nodes[running.pop(0)].send_signal(signal.SIGTERM)
            else:
                running.append(f"n{changes}")
                deployment.begin(running[-1], [])
        now = deployment.owners()
        for agent, node in now.items():
            moves[agent] += node not in ("", owners[agent])
            owners[agent] = node or owners[agent]
        time.sleep(0.05)

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0, messages=messages)
    assert max(moves.values()) <= 1 + changes
    assert all(deployment.nodes[name].poll() is None for name in running)
    calm = deployment.latencies(AGENTS, since=last + 5.0)
    assert calm
    if AT_LENGTH:
        deployment.recovered_from(last)
        assert p99(calm) <= 0.25
