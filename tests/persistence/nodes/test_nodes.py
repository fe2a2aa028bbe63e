"""One history of several nodes on one Redis: each records its part, and it reads as one."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from actorbus import Message, Node, OwnerLost, Rejected, Settings, agent
from actorbus.bus.transports.redis.transport import RedisTransport
from actorbus.cli.audit import app
from actorbus.cli.guest import guest
from actorbus.message import IdSource, MessageKind, Priority, Reason, Status, format_id
from actorbus.persistence.audit import Audit
from actorbus.replay import Replay
from actorbus.telemetry import Telemetry
from actorbus.testing.clock import ManualClock
from tests.bus.transports.redis.test_nodes import silence
from tests.persistence.nodes.cast import Front, Ledger, Pricing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.persistence.answers import MessageView

HERE = Path(__file__).parent
CAST = {"front": Front, "pricing": Pricing, "ledger": Ledger}
TIMES = {"beat": 0.2, "suspect_after": 0.5, "dead_after": 1.0}
NOON = 1_700_000_000.0
A_DAY = 86_400.0


class Deployment:
    """Nodes on one Redis, with one history."""

    def __init__(self, redis: str, history: str, stack: ExitStack) -> None:
        self.redis = redis
        self.history = history
        self.namespace = uuid4().hex
        self.audit = Audit(history)
        stack.callback(self.audit.close)
        self._stack = stack
        self._nodes: list[Node] = []

    def start(self, name: str, **settings: Any) -> Node:
        known = Settings(namespace=self.namespace, log_level="off", **settings)
        node = Node(self.redis, name=name, audit=self.history, settings=known)
        self._nodes.append(self._stack.enter_context(node))
        return node

    def die_at_work(self) -> subprocess.Popen[str]:
        """A process that is killed once it has recorded the end of an order."""
        process = subprocess.Popen(
            [sys.executable, str(HERE / "dying_node.py"), self.redis, self.history, self.namespace],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def told(self, done: Callable[[list[MessageView]], bool]) -> list[MessageView]:
        """All messages, oldest first, once `done` says that they are all there."""
        give_up = time.monotonic() + 20
        while True:
            for node in self._nodes:
                node.audit.counts()  # a question is answered once all is written
            views = self.audit.messages(limit=1_000)[::-1]
            if done(views):
                return views
            assert time.monotonic() < give_up, [(view.payload, view.deliveries) for view in views]
            time.sleep(0.01)


def all_ended(count: int) -> Callable[[list[MessageView]], bool]:
    def ended(views: list[MessageView]) -> bool:
        return len(views) == count and all(view.deliveries for view in views)

    return ended


@pytest.fixture(params=["sqlite-file", "postgresql"])
def deployment(
    request: pytest.FixtureRequest, redis_url: str, tmp_path: Path
) -> Iterator[Deployment]:
    if request.param == "postgresql":
        history = request.getfixturevalue("postgres_url")
    else:
        history = f"sqlite:///{tmp_path / 'history.db'}"
    with ExitStack() as stack:
        yield Deployment(redis_url, history, stack)


@pytest.fixture
def three(deployment: Deployment) -> dict[str, Node]:
    """A node for each agent, by the agent's name."""
    nodes = {name: deployment.start(f"of-{name}") for name in CAST}
    for name, node in nodes.items():
        node.spawn(CAST[name], name=name)
    return nodes


def test_a_conversation_over_three_nodes_reads_as_one(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    three["ledger"].ask("front", {"item": "tea"}).get(10)

    first = deployment.told(all_ended(6))[0]
    conversation = deployment.audit.conversation(first.id)
    assert {view.correlation_id for view in conversation} == {first.id}
    assert [(view.kind, view.sender, view.recipient, view.node) for view in conversation] == [
        (MessageKind.REQUEST, None, "front", "of-ledger"),
        (MessageKind.REQUEST, "front", "pricing", "of-front"),
        (MessageKind.TELL, "pricing", "ledger", "of-pricing"),
        (MessageKind.REPLY, "pricing", "front", "of-pricing"),
        (MessageKind.TELL, "front", "ledger", "of-front"),
        (MessageKind.REPLY, "front", None, "of-front"),
    ]
    assert [[(one.status, one.node) for one in view.deliveries] for view in conversation] == [
        [(Status.HANDLED, node)]
        for node in ("of-front", "of-pricing", "of-ledger", "of-pricing", "of-ledger", "of-front")
    ]
    assert all(view.attempts == 1 for view in conversation)


def test_every_question_sees_the_parts_of_all_nodes(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    three["ledger"].ask("front", {"item": "tea"}).get(10)

    first, asked, *_, booked, _ = deployment.told(all_ended(6))
    tree = deployment.audit.tree(booked.id)
    asking = deployment.audit.tree(asked.id)
    talk = {(one.sender, one.recipient): one.count for one in deployment.audit.talk()}
    times = {(one.recipient, one.type): one for one in deployment.audit.times()}
    drawn = deployment.audit.draw(first.id, format="text")
    assert tree is not None
    assert asking is not None
    assert [one.id for one in tree.causes] == [first.id]
    assert [one.message.kind for one in asking.effects] == [MessageKind.TELL, MessageKind.REPLY]
    assert talk == {
        (None, "front"): 1, ("front", None): 1, ("front", "pricing"): 1, ("pricing", "front"): 1,
        ("pricing", "ledger"): 1, ("front", "ledger"): 1,
    }  # fmt: skip
    assert {key: one.count for key, one in times.items() if key[0] in CAST} == {
        ("front", "dict"): 1, ("pricing", "str"): 1, ("ledger", "int"): 2, ("front", "int"): 1,
    }  # fmt: skip
    assert [line.split()[2] for line in drawn.splitlines()[2:]] == [
        "outside", "front", "pricing", "pricing", "front", "front",
    ]  # fmt: skip


def test_the_command_line_tells_of_what_went_over_nodes(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    three["ledger"].ask("front", {"item": "tea"}).get(10)
    first = format_id(deployment.told(all_ended(6))[0].id)

    def told(command: str) -> str:
        arguments = command.replace("ID", first).split()
        result = CliRunner().invoke(app, [*arguments, "--audit", deployment.history])
        assert result.exit_code == 0, (command, result.output)
        return result.stdout

    for command in (
        "list", "conversation ID", "conversation ID --format svg", "causes ID", "talk", "times",
        "tail", "export", "export --format csv",
    ):  # fmt: skip
        assert {"front", "pricing", "ledger"} <= set(re.split(r"[^a-z]", told(command))), command
    assert "of-front" in told("show ID")
    assert "in 3 chains" in told("verify")
    assert told("repair --grace 0") == "nothing was lost\n"
    replayed = told(f"replay ID --load {HERE / 'cast.py'}")
    assert replayed.endswith("the same: 6 messages, 6 recorded\n")


def test_each_node_has_a_chain_of_its_own_and_all_verify(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    for _ in range(20):
        three["ledger"].ask("front", {"item": "tea"}).get(10)
    deployment.told(all_ended(120))

    verification = deployment.audit.verify()

    assert verification.findings == ()
    assert verification.chains == 3


def test_an_error_is_recorded_where_it_was_raised(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    with pytest.raises(Rejected):
        three["ledger"].ask("pricing", "gold").get(10)

    refused, *_ = deployment.told(lambda views: bool(views and views[0].deliveries))
    assert (refused.node, refused.status) == ("of-ledger", Status.FAILED)
    assert (refused.deliveries[0].reason, refused.deliveries[0].node) == (
        Reason.REJECTED,
        "of-pricing",
    )


def test_an_ask_whose_agent_is_lost_with_its_node_has_failed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (deployment.start(name, **TIMES) for name in ("here", "there"))
    let_go = Event()

    @agent
    def slow(text: str) -> None:
        let_go.wait(20)

    there.spawn(slow, name="slow")
    silence(there, monkeypatch)

    with pytest.raises(OwnerLost):
        here.ask("slow", "gold").get(20)

    [asked] = deployment.told(all_ended(1))
    assert (asked.status, asked.reason) == (Status.FAILED, Reason.CRASHED_OWNER)
    assert [one.node for one in asked.deliveries] == ["here"]
    assert "'slow'" in str(asked.error)
    let_go.set()


def given_up_by(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, send: str) -> MessageView:
    """An order that a node has in hand, of which it is the third to die."""
    here = deployment.start("here", **TIMES)
    # What it still waits for goes to others by then.
    there = deployment.start("there", **TIMES, ask_timeout=4.0, drain_timeout=0.1)
    begun, let_go = Event(), Event()

    @agent
    def pricing(item: str) -> None:
        begun.set()
        let_go.wait(20)

    here.spawn(pricing, name="pricing")
    there.spawn(Front, name="front")
    answer = getattr(here, send)("front", {"item": "tea"})
    assert begun.wait(10)
    transport: Any = there.bus.transport
    ownership = transport.log.acquire("front", transport.node, ttl=1.0)
    (order,) = transport.log.fetch(ownership, ownership.cursors).items
    for former in ("one", "two"):
        transport.log.try_again([(ownership, order, former)])
    silence(there, monkeypatch)

    here.load(HERE / "cast.py")

    if answer is not None:
        with pytest.raises(OwnerLost, match="3 times"):
            answer.get(20)
    views = deployment.told(lambda views: bool(views and views[0].deliveries))
    let_go.set()
    return views[0]


@pytest.mark.parametrize(("send", "status"), [("tell", Status.DEAD), ("ask", Status.FAILED)])
def test_a_message_that_three_nodes_died_of_is_recorded_by_the_one_that_gives_it_up(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, send: str, status: Status
) -> None:
    order = given_up_by(deployment, monkeypatch, send)

    assert (order.status, order.reason) == (status, Reason.CRASHED_OWNER)
    assert order.payload == {"item": "tea"}
    assert [(one.node, one.attempt) for one in order.deliveries] == [("here", 3)]
    assert "3 times" in str(order.error)
    assert deployment.audit.verify().findings == ()


def test_what_waited_too_long_for_a_dead_node_is_recorded_by_the_one_that_ends_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults: Any = RedisTransport.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "orphans_kept", 1.5)
    monkeypatch.setattr("actorbus.bus.transports.redis.orphans._LOOK_AGAIN", 0.1)
    here, there = (deployment.start(name, **TIMES) for name in ("here", "there"))
    begun, let_go = Event(), Event()

    @agent
    def slow(text: str) -> None:
        begun.set()
        let_go.wait(20)

    there.spawn(slow, name="slow")
    for text in ("tea", "gold", "salt"):
        here.tell("slow", text)
    assert begun.wait(10)
    silence(there, monkeypatch)

    views = deployment.told(all_ended(3))

    assert [view.payload for view in views] == ["tea", "gold", "salt"]
    assert {(view.status, view.reason) for view in views} == {(Status.DEAD, Reason.CRASHED_OWNER)}
    assert {one.node for view in views for one in view.deliveries} == {"here"}
    transport: Any = here.bus.transport
    assert {one["reason"] for one in transport.log.letters()} == {"crashed-owner"}
    let_go.set()


def test_what_a_guest_asks_is_recorded_where_it_is_handled(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    with guest(deployment.redis, deployment.namespace, "visitor") as visitor:
        visitor.ask("front", {"item": "tea"}).get(10)

    first = deployment.told(all_ended(6))[0]
    assert (first.kind, first.sender, first.recipient) == (MessageKind.REQUEST, None, "front")
    assert (first.payload, first.node) == ({"item": "tea"}, "of-front")
    assert first.headers == {"actorbus-guest": "visitor"}
    assert deployment.audit.verify().findings == ()
    outcome = Replay(deployment.audit, first.id, agents=CAST).run()
    assert outcome.same, outcome.divergence


def test_what_a_guest_says_to_all_is_one_message_with_the_deliveries_of_all_nodes(
    deployment: Deployment,
) -> None:
    for name in ("there", "beyond"):
        node = deployment.start(name)
        for number in range(2):
            node.spawn(Pricing, name=f"pricing-{name}-{number}")

    with guest(deployment.redis, deployment.namespace) as visitor:
        visitor.broadcast("gold")
        visitor.broadcast("tea")
        visitor.flush(10)

    views = deployment.told(
        lambda views: [len(one.deliveries) for one in views if one.kind == "broadcast"] == [4, 4]
    )
    assert [one.payload for one in views if one.kind == "broadcast"] == ["gold", "tea"]
    assert deployment.audit.verify().findings == ()


def test_a_broadcast_ends_on_each_node_where_somebody_heard_it(deployment: Deployment) -> None:
    speaker, *others = (deployment.start(name) for name in ("here", "there", "beyond"))
    for node in others:
        node.spawn(Pricing, name=f"pricing-{node.name}")

    speaker.broadcast("gold")

    views = deployment.told(lambda views: len(views) == 1 and len(views[0].deliveries) == 2)
    assert views[0].node == "here"
    assert {(one.recipient, one.node, one.reason) for one in views[0].deliveries} == {
        ("pricing-there", "there", Reason.REJECTED),
        ("pricing-beyond", "beyond", Reason.REJECTED),
    }
    assert {one.count for one in deployment.audit.talk()} == {1}
    assert deployment.audit.verify().findings == ()


def test_a_conversation_over_three_nodes_replays_in_one_process(
    deployment: Deployment, three: dict[str, Node]
) -> None:
    three["ledger"].ask("front", {"item": "tea"}).get(10)
    first = deployment.told(all_ended(6))[0]

    result = Replay(deployment.audit, first.id, agents=CAST).run()

    assert result.divergence is None


def ran_again(deployment: Deployment) -> MessageView:
    """An order that one node handled and recorded, and another one handled again."""
    here = deployment.start("here", **TIMES)
    here.spawn(Pricing, name="pricing")
    here.spawn(Ledger, name="ledger")
    dying = deployment.die_at_work()
    here.tell("front", {"item": "tea"})
    dying.wait(10)
    here.load(HERE / "cast.py")
    views = deployment.told(lambda views: all_ended(9)(views) and len(views[0].deliveries) == 2)
    return views[0]


def test_a_message_that_ran_again_after_its_node_died_is_one_message_with_two_runs(
    deployment: Deployment,
) -> None:
    order = ran_again(deployment)

    assert [(one.status, one.node) for one in order.deliveries] == [
        (Status.HANDLED, "dying"),
        (Status.HANDLED, "here"),
    ]
    assert (order.status, order.attempts) == (Status.HANDLED, 2)
    assert "attempt 2" in deployment.audit.draw(order.id, format="text").splitlines()[2]
    assert len(deployment.audit.conversation(order.id)) == 9
    assert deployment.audit.verify().findings == ()


def test_a_replay_repeats_the_last_run_of_a_message_and_gives_what_the_first_one_sent(
    deployment: Deployment,
) -> None:
    order = ran_again(deployment)

    outcome = Replay(deployment.audit, order.id, agents=CAST).run()

    assert outcome.divergence is None
    assert [
        (one.said.recipient, one.said.payload) for one in outcome.steps if one.from_history
    ] == [
        ("front", {"item": "tea"}),
        ("pricing", "tea"),
        ("ledger", 3),
    ]
    assert len(outcome.steps) == 9


# -- clocks that disagree


class Clocked:
    """A node's recorder, whose clock goes as a test says."""

    def __init__(self, audit: Audit, name: str, start: float, stack: ExitStack) -> None:
        self.clock = ManualClock(start)
        self.recorder = audit.record(
            node=name, settings=Settings(), telemetry=Telemetry(), clock=self.clock
        )
        self.recorder.start()
        stack.callback(self.recorder.close, 10)
        self._ids = IdSource()

    def say(
        self,
        kind: MessageKind,
        sender: str | None,
        recipient: str | None,
        payload: Any,
        cause: Message[Any] | None = None,
    ) -> Message[Any]:
        now = self.clock.now()
        made = self._ids.make(now)
        conversation = made if cause is None else cause.correlation_id
        message = Message(
            made, kind, sender, recipient, None, payload, Priority.NORMAL, now, None,
            conversation, None if cause is None else cause.id, None, 1, 0, None,
        )  # fmt: skip
        self.recorder.sent(message)
        self.clock.advance(0.001)
        return message

    def handle(self, message: Message[Any], *, takes: float = 0.25) -> None:
        begun = self.clock.now()
        self.clock.advance(takes)
        self.recorder.ended(
            message, message.recipient, Status.HANDLED, None, None, begun, self.clock.now()
        )


@pytest.fixture
def asked_a_day_ahead(url: str) -> Iterator[Audit]:
    """``front`` asks ``pricing``, whose node's clock is a day behind; then tells the ledger."""
    audit = Audit(url)
    with ExitStack() as stack:
        stack.callback(audit.close)
        here = Clocked(audit, "here", NOON + A_DAY, stack)
        there = Clocked(audit, "there", NOON, stack)
        order = here.say(MessageKind.REQUEST, None, "front", {"item": "tea"})
        asked = here.say(MessageKind.REQUEST, "front", "pricing", "tea", order)
        told = there.say(MessageKind.TELL, "pricing", "ledger", -1, asked)
        there.handle(asked)
        there.handle(there.say(MessageKind.REPLY, "pricing", "front", 3, asked), takes=0)
        here.handle(told)
        here.handle(here.say(MessageKind.TELL, "front", "ledger", 3, order))
        here.handle(order)
        for one in (here, there):
            one.recorder.flush(10)
        yield audit


def test_a_cause_is_told_before_what_it_caused_whatever_the_clocks_say(
    asked_a_day_ahead: Audit,
) -> None:
    oldest = asked_a_day_ahead.messages()[-1]

    told = asked_a_day_ahead.conversation(oldest.id)

    assert oldest.sender == "pricing"
    assert [(view.sender, view.payload) for view in told] == [
        (None, {"item": "tea"}),
        ("front", "tea"),
        ("pricing", -1),
        ("pricing", 3),
        ("front", 3),
    ]


def test_no_message_waited_less_than_nothing_whatever_the_clocks_say(
    asked_a_day_ahead: Audit,
) -> None:
    asked = asked_a_day_ahead.messages(recipient="pricing")[0]
    times = {(one.recipient, one.type): one for one in asked_a_day_ahead.times()}

    assert (asked.waited, asked.took) == (0.0, 0.25)
    assert times["pricing", "str"].waited.max == 0.0
    assert times["pricing", "str"].took.max == 0.25


def test_a_conversation_whose_clocks_disagree_can_be_drawn_and_verified(
    asked_a_day_ahead: Audit,
) -> None:
    first = asked_a_day_ahead.messages(recipient="front", kind="request")[0]

    drawn = asked_a_day_ahead.draw(first.id, format="text")

    assert [line.strip().rsplit("  ", 1)[0].split("  ")[-1] for line in drawn.splitlines()[2:]] == [
        "outside ──> front",
        "front ──> pricing",
        "pricing ──> ledger",
        "pricing ╌╌> front",
        "front ──> ledger",
    ]
    assert asked_a_day_ahead.verify().findings == ()
