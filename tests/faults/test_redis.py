"""Real processes, a real Redis, and a ledger of what was accepted and what was run.

Lost: accepted and never run. Repeated: run more often than once. Out of order: first runs of
one sender's messages to one agent that overtook each other. `make faults` runs it at length.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Node
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.reading import ACK_BATCH
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
MESSAGES = int(os.environ.get("FAULTS_MESSAGES", "3000"))
AGENTS = [f"agent-{number}" for number in range(int(os.environ.get("FAULTS_AGENTS", "30")))]
SENDERS = ("p", "q")
TTL = 2.0
DEADLINE = float(os.environ.get("FAULTS_SECONDS", "60"))
DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


class Deployment:
    """Nodes and senders as processes, on one Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.accepted, self.ran = folder / "accepted", folder / "ran"
        for ledger in (self.accepted, self.ran):
            ledger.touch()
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self.senders: list[subprocess.Popen[str]] = []
        self.server = RedisServer(url)
        self.log = InboxLog(self.server)

    def node(
        self, name: str, agents: list[str], *, bells: bool = True, url: str | None = None
    ) -> subprocess.Popen[str]:
        process = self._start(
            "redis_node.py", url, name, str(TTL), ",".join(agents), str(int(bells))
        )
        self._is_up(process)
        self.nodes[name] = process
        return process

    def send(self, messages: int = MESSAGES, url: str | None = None) -> None:
        count, agents = str(messages // len(SENDERS)), ",".join(AGENTS)
        for name in SENDERS:
            self.senders.append(
                self._start("redis_sender.py", url, name, str(self.accepted), count, agents)
            )
        for sender in self.senders:
            self._is_up(sender)

    def has_run(self, count: int) -> None:
        """Wait until so many runs are in the ledger."""
        self._wait(lambda: self.ran.read_bytes().count(b"\n") >= count, f"{count} runs")

    def finish(self) -> None:
        """Wait until all is sent and run."""
        for sender in self.senders:
            assert sender.wait(DEADLINE) == 0
        self._wait(lambda: not self.lost(), "all to have run")
        self._wait(lambda: not any(map(self.log.depth, AGENTS)), "empty inboxes")

    def owned(self, node: str) -> list[str]:
        """The agents that a node owns, by its name."""
        known = zip(AGENTS, self.log.known(AGENTS), strict=True)
        return [name for name, one in known if one and one.node.partition("~")[0] == node]

    def lost(self) -> set[str]:
        return set(self.accepted.read_text().splitlines()) - set(self.ran.read_text().splitlines())

    def repeats(self) -> dict[str, int]:
        """How often messages ran beyond the first time, by agent."""
        repeated: dict[str, int] = defaultdict(int)
        for line, times in Counter(self.ran.read_text().splitlines()).items():
            if times > 1:
                repeated[line.split()[0]] += times - 1
        return repeated

    def out_of_order(self) -> int:
        last: dict[tuple[str, str], int] = {}
        seen: set[str] = set()
        wrong = 0
        for line in self.ran.read_text().splitlines():
            if line in seen:
                continue
            seen.add(line)
            agent, sender, number = line.split()
            wrong += int(number) < last.get((agent, sender), -1)
            last[agent, sender] = int(number)
        return wrong

    def close(self) -> None:
        for process in (*self.nodes.values(), *self.senders):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
        self.server.close()

    def _start(self, program: str, url: str | None, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(HERE / program), url or self.url, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LEDGER": str(self.ran)},
        )

    def _is_up(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + DEADLINE
        while not happened():
            assert time.monotonic() < give_up, f"waited {DEADLINE:.0f} s for {what}"
            time.sleep(0.02)


@pytest.fixture
def redis(start_redis: Callable[..., Any]) -> Any:
    return start_redis(*DURABLE)


@pytest.fixture
def deployment(
    redis: Any, tmp_path: Path, request: pytest.FixtureRequest, results: list[Any]
) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, redis.url)
    try:
        yield deployment
        ran = len(set(deployment.ran.read_text().splitlines()))
        name = request.node.name.removeprefix("test_").replace("_", " ")
        again = sum(deployment.repeats().values())
        results.append((name, ran, len(deployment.lost()), again, deployment.out_of_order()))
    finally:
        deployment.close()


def check_ledger(deployment: Deployment, *, repeats_an_agent: int) -> None:
    assert deployment.lost() == set()
    assert deployment.out_of_order() == 0
    assert max(deployment.repeats().values(), default=0) <= repeats_an_agent
    ran = set(deployment.ran.read_text().splitlines())
    assert ran == set(deployment.accepted.read_text().splitlines())
    assert len(ran) == MESSAGES // len(SENDERS) * len(SENDERS)


def test_1_a_node_that_is_killed_loses_nothing_and_repeats_one_batch_an_agent(
    deployment: Deployment,
) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.node("n3", [])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    deployment.nodes["n1"].kill()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    assert deployment.owned("n1") == []


def test_4_a_node_that_is_told_to_stop_repeats_nothing(deployment: Deployment) -> None:
    leaving = deployment.node("n1", AGENTS)
    deployment.send()
    deployment.has_run(MESSAGES // 5)
    deployment.node("n2", [])

    leaving.terminate()

    assert leaving.wait(DEADLINE) == 0
    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)


@pytest.mark.parametrize("times_ttl", [0.5, 1.5])
def test_5_a_node_that_was_frozen_is_fenced_if_others_took_over(
    deployment: Deployment, times_ttl: float
) -> None:
    frozen = deployment.node("n1", AGENTS)
    deployment.node("n2", [])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    frozen.send_signal(signal.SIGSTOP)
    time.sleep(times_ttl * TTL)
    frozen.send_signal(signal.SIGCONT)

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0 if times_ttl < 1 else ACK_BATCH)


def test_6_a_server_that_is_killed_and_comes_back_costs_nothing(
    deployment: Deployment, redis: Any
) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    redis.kill()
    time.sleep(0.2)
    redis.start()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=ACK_BATCH)
    assert [deployment.owned("n1"), deployment.owned("n2")] == [AGENTS[::2], AGENTS[1::2]]


def test_8_a_server_that_is_frozen_kills_nobody(deployment: Deployment, redis: Any) -> None:
    deployment.node("n1", AGENTS[::2])
    deployment.node("n2", AGENTS[1::2])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    redis.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * TTL)
    redis.process.send_signal(signal.SIGCONT)

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)
    assert deployment.owned("n1") == AGENTS[::2]


def test_12_answers_that_are_lost_after_the_command_ran_double_nothing(
    deployment: Deployment, make_proxy: Callable[[str], Any]
) -> None:
    proxy = make_proxy(deployment.url)
    deployment.node("n1", AGENTS, url=proxy.url)
    deployment.send(url=proxy.url)

    # As many at length as in short: each costs a pause.
    proxy.lose = min(0.25, 2_000 / MESSAGES)
    deployment.has_run(MESSAGES // 2)
    proxy.lose /= 5

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)
    assert proxy.lost > 5


def test_18_a_message_that_kills_its_node_is_given_up_after_the_third(
    deployment: Deployment,
) -> None:
    deployment.node("n0", AGENTS)
    for number in range(1, 4):
        deployment.node(f"n{number}", [])
    deployment.send()
    deployment.has_run(MESSAGES // 5)

    with Node(deployment.url) as poisoner:
        poisoner.tell(AGENTS[0], "poison 0")

    deployment.finish()
    ran = deployment.ran.read_text().splitlines()
    assert ran.count(f"{AGENTS[0]} poison 0") == 3
    assert sum(node.poll() is not None for node in deployment.nodes.values()) == 3
    (letter,) = deployment.log.letters()
    assert letter["reason"] == "crashed-owner"
    assert b"poison 0" in letter["blob"]
    deployment.ran.write_text("".join(f"{one}\n" for one in ran if "poison" not in one))
    check_ledger(deployment, repeats_an_agent=3 * ACK_BATCH)


def test_13_bells_that_nobody_hears_lose_nothing(deployment: Deployment) -> None:
    deployment.node("n1", AGENTS, bells=False)

    deployment.send()

    deployment.finish()
    check_ledger(deployment, repeats_an_agent=0)
