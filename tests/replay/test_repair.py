"""What was accepted and never handled is sent again, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, AuditUnavailable, Node, Priority, format_id, handles
from actorbus.errors import InvalidQuery
from actorbus.message import IdSource, Message, MessageKind
from actorbus.persistence.audit import Audit
from actorbus.replay import Standing, lost, repair
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry
from actorbus.testing import ManualClock, TestNode

if TYPE_CHECKING:
    from collections.abc import Callable

    Lose = Callable[..., list[Message[Any]]]

DIED_AT = 1_699_990_000.0
"""A good while before a TestNode's clock begins."""


@dataclass(frozen=True)
class Job:
    number: int


class Worker(Agent):
    def __init__(self, done: list[Any]) -> None:
        self.done = done

    @handles
    def work(self, job: Job) -> None:
        self.done.append(job)


@pytest.fixture
def lose(url: str) -> Lose:
    """Records messages that a node accepted and, because it died, never handled."""

    def write(*payloads: Any, **fields: Any) -> list[Message[Any]]:
        clock = ManualClock(DIED_AT)
        ids = IdSource(clock.monotonic, clock.offset)
        audit = Audit(url)
        recorder = audit.record(
            node="gone", settings=Settings(), telemetry=Telemetry(), clock=clock
        )
        recorder.start()
        sent = []
        for payload in payloads:
            message_id = ids.make(clock.now())
            given: dict[str, Any] = {
                "kind": MessageKind.TELL,
                "sender": None,
                "recipient": "worker",
                "topic": None,
                "priority": Priority.NORMAL,
                "deadline": None,
                "run_id": None,
                "headers": None,
            } | fields
            message = Message(
                id=message_id,
                payload=payload,
                created_at=clock.now(),
                correlation_id=message_id,
                causation_id=None,
                attempt=1,
                hops=0,
                **given,
            )
            recorder.sent(message)
            sent.append(message)
            clock.advance(1)
        recorder.close(10)
        audit.close()
        return sent

    return write


def node_with_worker(url: str, done: list[Any]) -> TestNode:
    node = TestNode(audit=url).start()
    node.spawn(Worker, done, name="worker")
    return node


def test_what_was_never_handled_is_listed_without_a_node(url: str, lose: Lose) -> None:
    sent = lose(Job(1), Job(2))

    found = lost(Audit(url))

    assert [one.message.id for one in found] == [message.id for message in sent]
    assert {one.standing for one in found} == {Standing.LOST}


def test_by_default_nothing_is_sent(url: str, lose: Lose) -> None:
    lose(Job(1))
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        found = repair(node)
        node.settle()

        assert [one.standing for one in found] == [Standing.LOST]
        assert node.sent == []
    assert done == []


def test_it_is_sent_again_in_order_as_what_it_was(url: str, lose: Lose) -> None:
    sent = lose(Job(1), Job(2), sender="boss", run_id="run-1", headers={"mine": "x"})
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        found = repair(node, dry_run=False)
        node.settle()
        again = [node.audit.message(one.sent_as or "") for one in found]

    assert done == [Job(1), Job(2)]
    assert [one.standing for one in found] == [Standing.SENT, Standing.SENT]
    assert again[0] is not None
    assert again[0].id != sent[0].id
    assert again[0].causation_id == again[0].correlation_id == sent[0].id
    assert again[0].headers == {"mine": "x", "repair_of": format_id(sent[0].id)}
    assert (again[0].sender, again[0].run_id, again[0].status) == ("boss", "run-1", "handled")


def test_a_second_repair_sends_nothing(url: str, lose: Lose) -> None:
    lose(Job(1))
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        repair(node, dry_run=False)
        again = repair(node, dry_run=False)
        node.settle()
    with node_with_worker(url, done) as node:
        later = repair(node, dry_run=False)
        node.settle()

    assert [one.standing for one in again + later] == [Standing.REPAIRED] * 2
    assert done == [Job(1)]


def test_a_repair_that_was_lost_too_is_repaired_once_more(url: str, lose: Lose) -> None:
    [first] = lose(Job(1))
    [second] = lose(Job(1), headers={"repair_of": format_id(first.id)})
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        found = repair(node, dry_run=False)
        node.settle()

    standing = {one.message.id: one.standing for one in found}
    assert standing == {first.id: Standing.REPAIRED, second.id: Standing.SENT}
    assert done == [Job(1)]


def test_who_is_not_there_is_named_and_tried_again_another_time(url: str, lose: Lose) -> None:
    lose(Job(1))
    done: list[Any] = []

    with TestNode(audit=url) as node:
        [missing] = repair(node, dry_run=False)
        node.spawn(Worker, done, name="worker")
        [found] = repair(node, dry_run=False)
        node.settle()

    assert missing.standing is Standing.NOBODY
    assert "no agent 'worker'" in missing.why
    assert found.standing is Standing.SENT
    assert done == [Job(1)]


@pytest.mark.parametrize(
    ("fields", "standing"),
    [
        ({"kind": MessageKind.REQUEST}, Standing.ASKED),
        ({"deadline": DIED_AT + 5}, Standing.EXPIRED),
    ],
)
def test_what_nobody_waits_for_any_more_is_left(
    url: str, lose: Lose, fields: dict[str, Any], standing: Standing
) -> None:
    lose(Job(1), **fields)
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        [found] = repair(node, dry_run=False)
        node.settle()

    assert found.standing is standing
    assert found.why
    assert done == []


def test_broadcasts_and_events_that_nobody_took_are_no_loss(url: str, lose: Lose) -> None:
    lose("hear", kind=MessageKind.BROADCAST, recipient=None)
    lose("hear", kind=MessageKind.EVENT, recipient=None, topic="news")

    assert lost(Audit(url)) == []


def test_what_history_does_not_hold_is_not_sent(url: str, lose: Lose) -> None:
    [one] = lose({"name": "Ada"})
    audit = Audit(url)
    audit.redact(one.id, actor="ada", reason="test")
    audit.close()

    with node_with_worker(url, []) as node:
        [found] = repair(node, dry_run=False)

    assert found.standing is Standing.UNREADABLE
    assert "was redacted" in found.why


def test_what_only_looks_redacted_is_sent(url: str, lose: Lose) -> None:
    lose({"$redacted": "sha256:0"})

    with node_with_worker(url, []) as node:
        [found] = repair(node, dry_run=False)

        node.assert_sent("worker", {"$redacted": "sha256:0"})
    assert found.standing is Standing.SENT


def test_what_may_still_be_handled_is_left_alone(url: str) -> None:
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        node.tell("worker", Job(1))
        young = repair(node, dry_run=False)
        node.clock.advance(120)
        [old] = repair(node, dry_run=False)
        node.settle()

    assert young == []
    assert old.standing is Standing.WAITING
    assert done == [Job(1)]


def test_since_and_grace_bound_it(url: str, lose: Lose) -> None:
    lose(Job(1), Job(2), Job(3))
    audit = Audit(url)
    at = datetime.fromtimestamp(DIED_AT, UTC)

    since = lost(audit, since=at + timedelta(seconds=1.5))
    grace = lost(audit, grace=1.5, now=at + timedelta(seconds=2))

    assert [one.message.payload["number"] for one in since] == [3]
    assert [one.message.payload["number"] for one in grace] == [1]


@pytest.mark.parametrize("grace", [-1, float("nan"), True, "soon"])
def test_a_grace_that_cannot_be_meant_is_said(url: str, lose: Lose, grace: Any) -> None:
    lose(Job(1))

    with pytest.raises(InvalidQuery, match="number of seconds"):
        lost(Audit(url), grace=grace)


def test_only_a_node_that_writes_this_history_may_send(url: str, lose: Lose) -> None:
    lose(Job(1))

    with TestNode() as node, pytest.raises(AuditUnavailable, match="once more"):
        repair(node, Audit(url), dry_run=False)
    with TestNode(audit="sqlite://") as other, pytest.raises(AuditUnavailable):
        repair(other, Audit(url), dry_run=False)


def test_more_than_a_page_is_repaired_whole(url: str, lose: Lose) -> None:
    lose(*(Job(number) for number in range(1_001)))
    done: list[Any] = []

    with node_with_worker(url, done) as node:
        first = repair(node, dry_run=False)
        second = repair(node, dry_run=False)
        node.settle()

    assert [job.number for job in done] == list(range(1_001))
    assert {one.standing for one in first} == {Standing.SENT}
    assert {one.standing for one in second} == {Standing.REPAIRED}


def test_a_live_node_repairs_too(url: str, lose: Lose) -> None:
    lose(Job(1))
    done: list[Any] = []

    with Node(audit=url) as node:
        node.spawn(Worker, done, name="worker")
        repair(node, dry_run=False)
        node.drain(10)

    assert done == [Job(1)]
