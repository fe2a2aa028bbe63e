"""Fault 31: a million messages, three nodes, ten minutes; what grows? `make soak` runs it.

Memory of nodes and Redis, keys, open files and threads are looked at every few seconds. The
first tenth warms up: it fills every table that may hold so many and no more. What is there
once it has drained is what is to be there in the end.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.conftest import running_redis
from tests.faults.deployment import SENDERS, Deployment

if TYPE_CHECKING:
    import subprocess

MIB = 1 << 20
PAGE = 4_096
EVERY = 5.0
QUIET = 12.0
"""Seconds after which threads that were needed for a while have ended."""
SLOPE = 1.0
"""MiB that a node may grow by in 100,000 messages."""
WITHIN = 0.01
"""Part of what Redis held by which that may differ in the end."""


class Picture(NamedTuple):
    """What a node holds."""

    ran: int
    rss: float
    """MiB."""
    files: int
    threads: int


class Rest(NamedTuple):
    """What is held when nothing waits."""

    nodes: dict[str, Picture]
    redis: int
    """Bytes of Redis."""
    kept: int
    """Those of its keys; the others are its own, and its clients' buffers, which come and go."""
    keys: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--agents", type=int, default=60)
    asked = parser.parse_args()
    names = [f"agent-{number}" for number in range(asked.agents)]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="actorbus-soak-"))
        redis = stack.enter_context(running_redis("--save", "", "--appendonly", "no"))
        deployment = Deployment(Path(folder), redis.url)
        stack.callback(deployment.close)
        problems = Soak(deployment, names, asked.messages, asked.seconds).run()
    sys.exit("\n".join(problems) if problems else 0)


class Soak:
    def __init__(
        self, deployment: Deployment, agents: list[str], messages: int, seconds: float
    ) -> None:
        self.deployment = deployment
        self.agents = agents
        self.messages = messages
        self.rate = messages / seconds
        self.pictures: dict[str, list[Picture]] = {}

    def run(self) -> list[str]:
        """What did not hold."""
        deployment = self.deployment
        for at in range(3):
            deployment.node(f"n{at}", self.agents[at::3])
        say(f"{'messages':>10} {'RSS, MiB':>22} {'files':>13} {'threads':>13} {'Redis, MiB':>11}")
        deployment.send(self.messages, agents=self.agents, rate=self.rate)
        self._watch(self.messages // 10)
        before = self._at_rest()
        self.pictures.clear()
        self._watch(self.messages * 98 // 100)
        after = self._at_rest()
        self._watch(self.messages // len(SENDERS) * len(SENDERS))
        return self._judge(before, after)

    def _watch(self, until: int) -> None:
        """Look on until so many have run."""
        give_up = time.monotonic() + self.messages / self.rate * 2 + 60
        while (ran := self.deployment.count()) < until:
            assert time.monotonic() < give_up, f"{ran:,} of {until:,} ran"
            self._look(ran)
            time.sleep(min(EVERY, max(0.2, (until - ran) / self.rate)))

    def _at_rest(self) -> Rest:
        """What is held while nobody sends, and all that was sent has run."""
        deployment = self.deployment
        for sender in deployment.senders:
            sender.send_signal(signal.SIGSTOP)
        deployment.wait(lambda: not any(map(deployment.log.depth, self.agents)), "empty inboxes")
        time.sleep(QUIET)
        ran = deployment.count()
        self._look(ran)
        nodes = {name: picture(node, ran) for name, node in deployment.nodes.items()}
        client: Any = deployment.server.client
        sizes = [client.memory_usage(key, samples=0) for key in client.keys("*")]
        rest = Rest(nodes, self._memory(), sum(sizes), len(sizes))
        for sender in deployment.senders:
            sender.send_signal(signal.SIGCONT)
        return rest

    def _look(self, ran: int) -> None:
        now = {name: picture(node, ran) for name, node in self.deployment.nodes.items()}
        for name, one in now.items():
            self.pictures.setdefault(name, []).append(one)
        say(
            f"{ran:>10,} {columns(f'{one.rss:.1f}' for one in now.values()):>22}"
            f" {columns(one.files for one in now.values()):>13}"
            f" {columns(one.threads for one in now.values()):>13}"
            f" {self._memory() / MIB:>11.2f}"
        )

    def _memory(self) -> int:
        told: Any = self.deployment.server.client.info("memory")
        return int(told["used_memory"])

    def _judge(self, before: Rest, after: Rest) -> list[str]:
        problems = []
        lost, again = self.deployment.lost(), sum(self.deployment.repeats().values())
        if lost or again:
            problems.append(f"{len(lost)} lost, {again} ran again")
        for name, pictures in self.pictures.items():
            slope = growth(pictures)
            say(f"{name}: {slope:+.2f} MiB in 100,000 messages")
            if slope >= SLOPE:
                problems.append(f"{name} grows by {slope:.2f} MiB in 100,000 messages")
            first, last = before.nodes[name], after.nodes[name]
            if last.files > first.files or last.threads > first.threads:
                problems.append(f"{name} had {first} and has {last}")
        say(
            f"Redis: {before.kept:,} and {after.kept:,} bytes in {before.keys} and"
            f" {after.keys} keys, {before.redis:,} and {after.redis:,} in all"
        )
        if abs(after.kept - before.kept) > WITHIN * before.redis:
            problems.append(f"Redis kept {before.kept:,} bytes and keeps {after.kept:,}")
        if after.keys != before.keys:
            problems.append(f"Redis held {before.keys} keys and holds {after.keys}")
        return problems


def picture(node: subprocess.Popen[str], ran: int) -> Picture:
    proc = Path(f"/proc/{node.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    files = len(list((proc / "fd").iterdir()))
    return Picture(ran, pages * PAGE / MIB, files, len(list((proc / "task").iterdir())))


def growth(pictures: list[Picture]) -> float:
    """MiB in 100,000 messages, by least squares."""
    count = len(pictures)
    ran = sum(one.ran for one in pictures) / count
    rss = sum(one.rss for one in pictures) / count
    spread = sum((one.ran - ran) ** 2 for one in pictures)
    return sum((one.ran - ran) * (one.rss - rss) for one in pictures) / spread * 100_000


def columns(values: Any) -> str:
    return " ".join(map(str, values))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
