"""Everything at once, and a ledger: each message is handled, an error, or a dead letter, once."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import pytest

from actorbus import (
    ActorbusError,
    Agent,
    MailboxPolicy,
    Node,
    Ref,
    Reject,
    Reply,
    Settings,
    Supervision,
    handles,
)

SENDERS = 8
AGENTS = 24
SOON = 60.0


class Job(NamedTuple):
    sender: int
    number: int


class Ledger:
    """Who handled what, in the order it happened. ``list.append`` is atomic."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, Job]] = []
        self.refused: list[Job] = []
        self.asked: list[tuple[Job, Reply[Any]]] = []


class Clerk(Agent):
    """Fails, refuses or does its job, as the number says."""

    supervision = Supervision(
        on_failure="restart", max_restarts=50, within=1.0, backoff=0.001, backoff_limit=0.002
    )
    mailbox = MailboxPolicy(capacity=500)

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @handles
    def work(self, job: Job) -> Job:
        self.check(job)
        self.ledger.handled.append((self.name, job))
        return job

    def check(self, job: Job) -> None:
        if job.number % 997 == 0:
            raise ValueError(job)
        if job.number % 499 == 0:
            raise Reject("not this one")


class AsyncClerk(Clerk):
    @handles
    async def work(self, job: Job) -> Job:  # type: ignore[override]
        self.check(job)
        self.ledger.handled.append((self.name, job))
        return job


class Dropping(Clerk):
    mailbox = MailboxPolicy(capacity=50, overflow="drop-oldest")


class Resuming(Clerk):
    supervision = Supervision(on_failure="resume")


KINDS = (Clerk, AsyncClerk, Dropping, Resuming)


class Office:
    """The agents, some of which are always being replaced."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self.node = node
        self.ledger = ledger
        self.refs = [self.hire(number) for number in range(AGENTS)]
        self.closing = threading.Event()

    def hire(self, number: int) -> Ref:
        return self.node.spawn(KINDS[number % len(KINDS)], self.ledger)

    def churn(self, seed: int) -> None:
        """Stop, drain, replace and unpark agents until the office closes."""
        choice = random.Random(seed)
        while not self.closing.wait(0.002):
            place = choice.randrange(AGENTS)
            old = self.refs[place]
            self.refs[place] = self.hire(choice.randrange(len(KINDS)))
            old.stop(drain=choice.random() < 0.5)
            for info in self.node.registry.find(status="parked"):
                self.node.unpark(info.name)

    def send(self, sender: int, count: int) -> None:
        choice = random.Random(sender)
        for number in range(1, count + 1):
            job = Job(sender, number)
            ref = self.refs[choice.randrange(AGENTS)]
            if number % 10 == 0:
                self.ledger.asked.append((job, ref.ask(job)))
                continue
            try:
                ref.tell(job)
            except ActorbusError:
                self.ledger.refused.append(job)


def run(count: int) -> None:
    settings = Settings(log_level="off", dead_letter_capacity=2_000_000, history_size=100)
    with Node(settings=settings) as node:
        ledger = Ledger()
        office = Office(node, ledger)
        churn = threading.Thread(target=office.churn, args=(1,))
        senders = [
            threading.Thread(target=office.send, args=(sender, count)) for sender in range(SENDERS)
        ]

        for thread in (churn, *senders):
            thread.start()
        for thread in senders:
            thread.join()
        office.closing.set()
        churn.join(SOON)
        failed = [job for job, reply in ledger.asked if fails(reply)]
        node.drain(SOON)

    check(ledger, failed, node, count)


def fails(reply: Reply[Any]) -> bool:
    try:
        reply.get(SOON)
    except ActorbusError:
        return True
    return False


def check(ledger: Ledger, failed: list[Job], node: Node, count: int) -> None:
    dead = [letter.message.payload for letter in node.dead_letters.list(limit=2_000_000)]
    ends = Counter([job for _, job in ledger.handled])
    ends.update(ledger.refused)
    ends.update(failed)
    ends.update(dead)

    everything = {Job(s, n) for s in range(SENDERS) for n in range(1, count + 1)}
    assert everything - ends.keys() == set()
    assert {job: times for job, times in ends.items() if times != 1} == {}
    assert all(reply.settled for _, reply in ledger.asked)
    check_order(ledger)


def check_order(ledger: Ledger) -> None:
    """What one agent handled of one sender came in the order it was sent."""
    last: dict[tuple[str, int], int] = defaultdict(int)
    for agent, job in ledger.handled:
        assert job.number > last[agent, job.sender]
        last[agent, job.sender] = job.number


def test_everything_ends_once_while_agents_come_fail_and_go() -> None:
    run(2_000)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_eight_hundred_thousand_messages_end_once_while_agents_come_fail_and_go() -> None:
    run(100_000)
