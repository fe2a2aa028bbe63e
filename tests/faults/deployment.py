"""Real processes on a real Redis, and a ledger of what was accepted and what was run.

Lost: accepted and never run. Repeated: run more often than once. Out of order: first runs of
one sender's messages to one agent that overtook each other. Recovered: every agent has run
something again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from actorbus.bus.transports.redis.log import InboxLog
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HERE = Path(__file__).parent
MESSAGES = int(os.environ.get("FAULTS_MESSAGES", "3000"))
AGENTS = [f"agent-{number}" for number in range(int(os.environ.get("FAULTS_AGENTS", "30")))]
SENDERS = ("p", "q")
DEADLINE = float(os.environ.get("FAULTS_SECONDS", "60"))
AT_LENGTH = "FAULTS_SECONDS" in os.environ
"""Whether timings mean something: nothing else runs here."""

RATE = float(os.environ.get("FAULTS_RATE", "0"))
"""Messages in a second, so that nodes keep up and recovery is not the time that a backlog takes;
0: as many as can be sent."""

TTL = 2.0
BEAT = TTL / 5
SWEEP = 1.0
TAKEN_OVER = TTL + BEAT + SWEEP
"""Seconds from the death of a node until each of its agents runs elsewhere."""

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


class Entry(NamedTuple):
    """A line of a ledger: a message by its agent, sender and number, and when that was."""

    message: str
    at: float
    """Of the machine's monotonic clock, which all its processes share."""

    @property
    def agent(self) -> str:
        return self.message.partition(" ")[0]


class Deployment:
    """Nodes and senders as processes, on one Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.recovery: float | None = None
        """Seconds, once it is known."""
        self.hold = folder / "hold"
        """While this file is there, no worker works."""
        self.ledger, self._ran = folder / "accepted", folder / "ran"
        for ledger in (self.ledger, self._ran):
            ledger.touch()
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self.senders: list[subprocess.Popen[str]] = []
        self.server = RedisServer(url)
        self.log = InboxLog(self.server)

    def node(
        self, name: str, agents: Sequence[str], *, bells: bool = True, url: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a node and wait until it is up."""
        process = self.begin(name, agents, bells=bells, url=url)
        self.is_up(process)
        return process

    def begin(
        self, name: str, agents: Sequence[str], *, bells: bool = True, url: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a node."""
        process = self.start(
            "redis_node.py", url or self.url, name, str(TTL), ",".join(agents), str(int(bells))
        )
        self.nodes[name] = process
        return process

    def send(
        self,
        messages: int = MESSAGES,
        *,
        agents: Sequence[str] = AGENTS,
        senders: Sequence[str] = SENDERS,
        url: str | None = None,
        size: int = 0,
        rate: float = RATE,
    ) -> list[subprocess.Popen[str]]:
        """Have so many messages of `size` bytes and more sent, `rate` in a second; 0: all."""
        count, each = str(messages // len(senders)), str(rate / len(senders))
        some = [
            self.start(
                "redis_sender.py", url or self.url, name, str(self.ledger), count,
                ",".join(agents), str(size), each,
            )
            for name in senders
        ]  # fmt: skip
        self.senders += some
        for sender in some:
            self.is_up(sender)
        return some

    def has_run(self, count: int) -> None:
        """Wait until so many runs are in the ledger."""
        self.wait(lambda: self.count() >= count, f"{count} runs")

    def count(self) -> int:
        """How many runs there are."""
        return self._ran.read_bytes().count(b"\n")

    def finish(self, *, senders_too: bool = True) -> None:
        """Wait until all is sent and run."""
        for sender in self.senders if senders_too else ():
            assert sender.wait(DEADLINE) == 0
        self.wait(lambda: not self.lost(), "all to have run")
        self.wait(lambda: not any(map(self.log.depth, AGENTS)), "empty inboxes")

    def owned(self, node: str) -> list[str]:
        """The agents that a node owns, by its name."""
        return [name for name, owner in self.owners().items() if owner == node]

    def owners(self, agents: Sequence[str] = AGENTS) -> dict[str, str]:
        """By agent the name of the node that owns it; "" where none does."""
        known = zip(agents, self.log.known(agents), strict=True)
        return {name: one.node.partition("~")[0] if one else "" for name, one in known}

    def tokens(self) -> dict[str, str]:
        """By agent the token of its owner: a new one for each takeover."""
        client: Any = self.server.client
        return {name: client.hget(f"{self.log.tag(name)}:a:{name}", "tok") for name in AGENTS}

    def accepted(self) -> list[Entry]:
        return _entries(self.ledger)

    def ran(self) -> list[Entry]:
        return _entries(self._ran)

    def lost(self) -> set[str]:
        return {one.message for one in self.accepted()} - {one.message for one in self.ran()}

    def repeats(self) -> dict[str, int]:
        """How often messages ran beyond the first time, by agent."""
        repeated: dict[str, int] = defaultdict(int)
        for message, times in Counter(one.message for one in self.ran()).items():
            if times > 1:
                repeated[message.split()[0]] += times - 1
        return repeated

    def strike_out(self, word: str) -> None:
        """Take the runs with `word` out of the ledger."""
        ran = self._ran.read_text().splitlines(keepends=True)
        self._ran.write_text("".join(line for line in ran if word not in line))

    def out_of_order(self) -> int:
        last: dict[tuple[str, str], int] = {}
        seen: set[str] = set()
        wrong = 0
        for message, _ in self.ran():
            if message in seen:
                continue
            seen.add(message)
            agent, sender, number = message.split()
            wrong += int(number) < last.get((agent, sender), -1)
            last[agent, sender] = int(number)
        return wrong

    def recovered_from(self, began: float) -> float:
        """Seconds from `began` until each agent that ran later had run again."""
        again: dict[str, float] = {}
        for one in self.ran():
            if one.at > began:
                again.setdefault(one.agent, one.at)
        self.recovery = max(again.values(), default=began) - began
        return self.recovery

    def latencies(self, agents: Iterable[str], *, since: float = 0.0) -> list[float]:
        """From when messages were sent, after `since`, to their first run; sorted, in seconds."""
        wanted = set(agents)
        first: dict[str, float] = {}
        for message, at in self.ran():
            first.setdefault(message, at)
        return sorted(
            first[message] - at
            for message, at in self.accepted()
            if at > since and message in first and message.partition(" ")[0] in wanted
        )

    def close(self) -> None:
        for process in (*self.nodes.values(), *self.senders):
            self.reap(process)
        self.server.close()

    def reap(self, process: subprocess.Popen[str]) -> None:
        """End a process at once, if it has not ended."""
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(HERE / program), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LEDGER": str(self._ran), "HOLD": str(self.hold)},
        )

    def is_up(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

    def wait(self, happened: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
        give_up = time.monotonic() + deadline
        while not happened():
            assert time.monotonic() < give_up, f"waited {deadline:.0f} s for {what}"
            time.sleep(0.02)


def check_ledger(
    deployment: Deployment, *, repeats_an_agent: int, messages: int = MESSAGES
) -> None:
    assert deployment.lost() == set()
    assert deployment.out_of_order() == 0
    assert max(deployment.repeats().values(), default=0) <= repeats_an_agent
    ran = {one.message for one in deployment.ran()}
    assert ran == {one.message for one in deployment.accepted()}
    assert len(ran) == messages // len(SENDERS) * len(SENDERS)


def check_recovery(deployment: Deployment, began: float, *, within: float) -> None:
    """At length, where nothing else keeps the machine busy; else the figure is only shown."""
    recovery = deployment.recovered_from(began)
    if AT_LENGTH:
        assert recovery <= within


def p99(latencies: Sequence[float]) -> float:
    return latencies[len(latencies) * 99 // 100]


def _entries(ledger: Path) -> list[Entry]:
    found = []
    *lines, _ = ledger.read_text().split("\n")  # the last may be half written
    for line in lines:
        message, _, at = line.rpartition(" ")
        found.append(Entry(message, float(at)))
    return found
