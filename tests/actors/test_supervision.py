"""Supervision: pure decisions first, then agents on a turned clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus import (
    Agent,
    AgentFailed,
    AgentStopped,
    InvalidArgument,
    InvalidSettings,
    MailboxFull,
    MailboxPolicy,
    Message,
    Priority,
    Reason,
    Reject,
    Status,
    Supervision,
    UnknownRecipient,
    handles,
)
from actorbus.actors.lifecycle import NEXT_STATES, State, may_become
from actorbus.actors.supervision import Directive, OnFailure, backoff, decide, recent
from actorbus.registry.entry import AgentStatus
from actorbus.telemetry import AgentParked, AgentRestarting, Event, HookFailed
from actorbus.testing import TestNode

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator


class Boom(Exception):
    pass


class Worker(Agent):
    """Counts what it handles; fails on the str 'boom'."""

    lives: ClassVar[list[Worker]] = []

    def __init__(self, log: list[Any]) -> None:
        self.events = log
        self.count = 0

    @handles
    def add(self, number: int) -> int:
        self.count += 1
        self.events.append(number)
        return self.count

    @handles
    def fail(self, word: str) -> None:
        raise Boom(word)

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.events.append(("failure", exception_type, self.count))

    def on_restart(self, reason: BaseException | None, message: Message[Any] | None) -> None:
        self.events.append(("restart", str(reason), None if message is None else message.payload))

    def on_start(self) -> None:
        self.events.append("start")

    def on_stop(self) -> None:
        self.events.append("stop")


def worker(**supervision: Any) -> type[Worker]:
    return type("Supervised", (Worker,), {"supervision": Supervision(**supervision)})


@pytest.fixture
def node() -> Iterator[TestNode]:
    with TestNode() as node:
        yield node


@pytest.mark.parametrize("on_failure", ["resume", "stop", "escalate"])
def test_what_is_asked_for_is_decided(on_failure: OnFailure) -> None:
    policy = Supervision(on_failure=on_failure)

    decided = decide(policy, [1.0] * 100, now=1.0)

    assert decided == Directive(on_failure)


def test_more_restarts_than_allowed_within_the_window_park() -> None:
    policy = Supervision(max_restarts=2, within=10)

    decisions = [decide(policy, restarts, now=20.0) for restarts in ([], [15.0], [15.0, 16.0])]

    assert decisions == [Directive.RESTART, Directive.RESTART, Directive.PARK]


def test_restarts_before_the_window_do_not_count() -> None:
    policy = Supervision(max_restarts=2, within=10)

    kept = recent(policy, [1.0, 10.0, 10.5], now=20.0)

    assert kept == [10.5]


@given(st.integers(1, 10_000), st.randoms())
def test_a_backoff_never_exceeds_its_limit(attempt: int, seed: random.Random) -> None:
    policy = Supervision(backoff=0.1, backoff_limit=30)

    delay = backoff(policy, attempt, seed)

    assert 0 <= delay <= min(30, 0.1 * 2 ** min(attempt - 1, 32))


def test_a_state_that_is_left_for_good_leads_nowhere() -> None:
    assert NEXT_STATES[State.STOPPED] == frozenset()
    assert set(NEXT_STATES) == set(State)
    assert all(may_become(state, State.STOPPED) for state in State if state is not State.STOPPED)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_failure": "explode"},
        {"max_restarts": -1},
        {"max_restarts": True},
        {"within": 0},
        {"retries": 1.5},
        {"backoff": -1},
        {"backoff_limit": "long"},
    ],
)
def test_a_policy_that_cannot_be_meant_says_what_can(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        Supervision(**wrong)


def test_a_failed_ask_gives_the_asker_the_error_and_changes_nothing(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Worker, log, name="worker")
    ref.ask(1).get()

    with pytest.raises(AgentFailed) as failed:
        ref.ask("boom").get()

    assert (failed.value.error_type, failed.value.message) == ("Boom", "boom")
    assert "raise Boom(word)" in failed.value.traceback
    assert isinstance(failed.value.__cause__, Boom)
    assert ref.ask(2).get() == 2
    assert log == ["start", 1, 2]
    assert not node.dead_letters.list()


def test_restart_puts_a_new_instance_on_the_same_mailbox(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Worker, log, name="worker")
    for payload in (1, "boom", 2, 3):
        ref.tell(payload)
    node.settle()

    node.advance(0.1)

    assert log == [
        "start",
        1,
        ("failure", Boom, 1),
        ("restart", "boom", "boom"),
        "start",
        2,
        3,
    ]
    assert ref.ask(4).get() == 3
    (letter,) = node.dead_letters.list()
    assert (letter.reason, letter.message.payload, letter.attempts) == (
        Reason.HANDLER_ERROR,
        "boom",
        1,
    )
    assert letter.error is not None
    assert "raise Boom(word)" in letter.error


def test_a_restart_waits_out_its_backoff(node: TestNode) -> None:
    log: list[Any] = []
    delays: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, AgentRestarting):
            delays.append(event.delay)

    node.telemetry.listen(note)
    ref = node.spawn(worker(backoff=8, backoff_limit=8), log, name="worker")
    ref.tell("boom")
    ref.tell(1)
    node.settle()
    assert 1 not in log

    node.advance(delays[0] - 0.001)
    assert 1 not in log

    node.advance(0.002)
    assert 1 in log


def test_the_proxy_of_a_restarted_agent_still_works(node: TestNode) -> None:
    ref = node.spawn(Worker, [], name="worker")
    before = ref.proxy()
    ref.ask(1).get()
    ref.tell("boom")
    node.advance(1)

    future = ref.proxy().count
    node.settle()
    added = before.add(5)
    node.settle()

    assert future.get(timeout=0) == 0
    assert added.get(timeout=0) == 1


def test_resume_keeps_the_state(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(worker(on_failure="resume"), log, name="worker")
    for payload in (1, "boom", 2):
        ref.tell(payload)

    node.settle()

    assert ref.ask(3).get() == 3
    assert log.count("start") == 1
    assert [letter.reason for letter in node.dead_letters.list()] == [Reason.HANDLER_ERROR]


def test_stop_ends_the_agent_and_hands_back_what_waited(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(worker(on_failure="stop"), log, name="worker")
    ref.tell("boom")
    ref.tell(1)
    reply = ref.ask(2)

    node.settle()

    assert log[-1] == "stop"
    assert [letter.reason for letter in node.dead_letters.list()] == [
        Reason.STOPPED,
        Reason.HANDLER_ERROR,
    ]
    with pytest.raises(AgentStopped):
        reply.get()
    with pytest.raises(AgentStopped):
        ref.tell(3)
    assert node.registry.get("worker") is None


def test_over_the_limit_an_agent_is_parked_and_keeps_its_mailbox(node: TestNode) -> None:
    log: list[Any] = []
    parked: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, AgentParked):
            parked.append(event.agent)

    node.telemetry.listen(note)
    ref = node.spawn(worker(max_restarts=1, within=60), log, name="worker")
    for payload in ("boom", "boom", 1):
        ref.tell(payload)
    node.advance(1)

    info = node.registry.get("worker")
    ref.tell(2)
    refused = ref.ask(3)
    node.settle()

    assert info is not None
    assert info.status is AgentStatus.PARKED
    assert parked == ["worker"]
    assert 1 not in log
    with pytest.raises(AgentStopped, match="unpark"):
        refused.get()


def test_an_ask_that_waited_when_its_agent_was_parked_fails(node: TestNode) -> None:
    ref = node.spawn(worker(max_restarts=0), [], name="worker")
    ref.tell("boom")
    reply = ref.ask(1)

    node.settle()

    with pytest.raises(AgentStopped, match="parked"):
        reply.get()


def test_unpark_goes_on_with_a_new_instance_and_a_clean_record(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(worker(max_restarts=1, within=60), log, name="worker")
    for payload in ("boom", "boom", 1, 2):
        ref.tell(payload)
    node.advance(1)

    node.unpark("worker")
    node.settle()
    ref.tell("boom")
    node.advance(1)

    assert [entry for entry in log if isinstance(entry, int)] == [1, 2]
    info = node.registry.get("worker")
    assert info is not None
    assert info.status is AgentStatus.IDLE


def test_only_a_parked_agent_can_be_unparked(node: TestNode) -> None:
    node.spawn(Worker, [], name="worker")

    with pytest.raises(InvalidArgument, match=r"'worker': it is starting\. Parked: none"):
        node.unpark("worker")
    with pytest.raises(UnknownRecipient, match="Running: worker"):
        node.unpark("nobody")


def test_a_parked_mailbox_is_still_bounded(node: TestNode) -> None:
    parked = type(
        "Parked",
        (Worker,),
        {
            "supervision": Supervision(max_restarts=0),
            "mailbox": MailboxPolicy(capacity=2, overflow="reject"),
        },
    )
    ref = node.spawn(parked, [], name="worker")
    ref.tell("boom")
    node.settle()
    ref.tell(1)
    ref.tell(2)

    with pytest.raises(MailboxFull):
        ref.tell(3)


def test_a_message_is_retried_in_place_before_it_is_given_up(node: TestNode) -> None:
    attempts: list[tuple[Any, int]] = []

    class Flaky(Agent):
        supervision = Supervision(retries=2, on_failure="resume")

        @handles
        def work(self, number: int) -> None:
            attempts.append((number, self.message.attempt))
            if number == 1:
                raise Boom

    ref = node.spawn(Flaky, name="flaky")
    ref.tell(1)
    ref.tell(2)

    node.advance(60)

    assert attempts == [(1, 1), (1, 2), (1, 3), (2, 1)]
    (letter,) = node.dead_letters.list()
    assert letter.attempts == 3


def test_a_retry_that_works_leaves_no_dead_letter(node: TestNode) -> None:
    class SecondTime(Agent):
        supervision = Supervision(retries=1)

        @handles
        def work(self, number: int) -> None:
            if self.message.attempt == 1:
                raise Boom

    ref = node.spawn(SecondTime, name="second")
    ref.tell(1)

    node.advance(60)

    assert not node.dead_letters.list()
    assert [ending.status for ending in node.history] == [Status.HANDLED]


def test_a_rejection_is_no_failure(node: TestNode) -> None:
    log: list[Any] = []

    class Picky(Worker):
        @handles
        def refuse(self, number: float) -> None:
            raise Reject("no floats")

    ref = node.spawn(Picky, log, name="picky")
    ref.tell(1.5)

    node.settle()

    assert log == ["start"]
    (letter,) = node.dead_letters.list()
    assert letter.reason is Reason.REJECTED
    assert letter.error is not None
    assert "no floats" in letter.error


def test_an_agent_whose_start_fails_is_restarted(node: TestNode) -> None:
    starts: list[int] = []

    class Slow(Agent):
        def on_start(self) -> None:
            starts.append(1)
            if len(starts) < 3:
                raise Boom

        @handles
        def work(self, number: int) -> int:
            return number

    ref = node.spawn(Slow, name="slow")
    reply = ref.ask(1)

    node.advance(5)

    assert reply.get() == 1
    assert len(starts) == 3


def test_a_constructor_that_fails_on_restart_counts_as_a_failure(node: TestNode) -> None:
    made: list[int] = []

    class Once(Agent):
        supervision = Supervision(max_restarts=3, within=600)

        def __init__(self) -> None:
            made.append(1)
            if len(made) > 1:
                raise Boom

        @handles
        def work(self, word: str) -> None:
            raise Boom(word)

    ref = node.spawn(Once, name="once")
    ref.tell("boom")

    node.advance(120)

    assert len(made) == 4
    info = node.registry.get("once")
    assert info is not None
    assert info.status is AgentStatus.PARKED


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), RecursionError(), MemoryError()]
)
def test_whatever_a_handler_raises_hurts_that_agent_only(
    node: TestNode, error: BaseException
) -> None:
    other = node.spawn(Worker, [], name="other")
    ref = node.spawn(Worker, [], name="worker")
    node.crash("worker", error)
    ref.tell(1)

    node.settle()

    assert [letter.reason for letter in node.dead_letters.list()] == [Reason.HANDLER_ERROR]
    assert other.ask(1).get() == 1
    node.advance(1)
    assert ref.ask(1).get() == 1


def test_a_hook_that_fails_is_told_and_changes_nothing(node: TestNode) -> None:
    told: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, HookFailed):
            told.append(event.hook)

    class Clumsy(Agent):
        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            raise Boom

        def on_stop(self) -> None:
            raise Boom

        @handles
        def work(self, word: str) -> None:
            raise Boom(word)

    node.telemetry.listen(note)
    ref = node.spawn(Clumsy, name="clumsy")
    ref.tell("x")
    node.advance(1)
    ref.stop()
    node.settle()

    assert told == ["on_failure", "on_stop"]
    assert node.registry.get("clumsy") is None


class Parent(Agent):
    def __init__(self, log: list[Any], child: type[Agent]) -> None:
        self.events = log
        self.child = child

    def on_start(self) -> None:
        self.events.append("parent start")
        self.spawn(self.child, self.events, name="child")

    def on_restart(self, reason: BaseException | None, message: Message[Any] | None) -> None:
        self.events.append("parent restart")

    def on_stop(self) -> None:
        self.events.append("parent stop")


def parent(on_failure: OnFailure) -> type[Parent]:
    return type("Parental", (Parent,), {"supervision": Supervision(on_failure=on_failure)})


def test_an_escalated_failure_is_the_parents_own(node: TestNode) -> None:
    log: list[Any] = []
    node.spawn(parent("restart"), log, worker(on_failure="escalate"), name="parent")
    node.settle()
    node.tell("child", "boom")

    node.advance(1)

    assert log.count("parent start") == 2
    assert "parent restart" in log
    assert "stop" in log
    assert node.ref("child").ask(1).get() == 1


def test_a_parent_that_resumes_lets_the_child_go_on(node: TestNode) -> None:
    log: list[Any] = []
    node.spawn(parent("resume"), log, worker(on_failure="escalate"), name="parent")
    node.settle()
    child = node.ref("child")
    child.ask(1).get()
    child.tell("boom")

    node.advance(1)

    assert child.ask(2).get() == 2


def test_a_parent_that_stops_takes_the_child_along(node: TestNode) -> None:
    log: list[Any] = []
    node.spawn(parent("stop"), log, worker(on_failure="escalate"), name="parent")
    node.settle()
    node.tell("child", "boom")

    node.advance(1)

    assert node.registry.find() == []
    assert {"stop", "parent stop"} <= set(filter(lambda entry: isinstance(entry, str), log))


def test_a_failure_escalated_at_the_top_parks(node: TestNode) -> None:
    ref = node.spawn(worker(on_failure="escalate"), [], name="worker")
    ref.tell("boom")

    node.settle()

    info = node.registry.get("worker")
    assert info is not None
    assert info.status is AgentStatus.PARKED


def test_children_stop_with_their_parent(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Parent, log, Worker, name="parent")
    node.settle()

    ref.stop()
    node.settle()

    assert log[-2:] == ["parent stop", "stop"]
    with pytest.raises(UnknownRecipient):
        node.ref("child")


def test_priorities_survive_a_restart(node: TestNode) -> None:
    log: list[Any] = []
    ref = node.spawn(Worker, log, name="worker")
    node.settle()
    ref.tell("boom", priority=Priority.URGENT)
    ref.tell(3, priority=Priority.LOW)
    ref.tell(2)
    ref.tell(1, priority=Priority.URGENT)

    node.advance(1)

    assert [entry for entry in log if isinstance(entry, int)] == [1, 2, 3]
