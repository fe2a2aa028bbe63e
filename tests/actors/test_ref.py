"""What can be done with a Ref, a capability and a topic, from outside agents."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from actorbus import (
    Agent,
    AgentStopped,
    BusClosed,
    InvalidArgument,
    InvalidName,
    MailboxFull,
    MailboxPolicy,
    Message,
    MessageExpired,
    Node,
    NoProvider,
    NotDrained,
    Priority,
    Reason,
    UnknownRecipient,
    agent,
    handles,
    where,
)

from .gate import DEADLINE, Gate


class Recorder(Agent):
    """Remembers what it was told; a Gate holds it."""

    capabilities = ("record",)

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @handles
    def hold(self, gate: Gate) -> None:
        gate.hold()

    @handles
    def hear(self, message: Message[str | int]) -> None:
        self.heard.append(message.payload)

    @handles
    def report(self, _: None) -> list[Any]:
        return self.heard


class Narrow(Recorder):
    mailbox = MailboxPolicy(capacity=1)


def heard(node: Node, name: str) -> Any:
    return node.ask(name, None).get(DEADLINE)


class TestRef:
    def test_refs_are_equal_by_name(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        other = node.spawn(Recorder, name="two")

        assert node.ref("one") == ref
        assert len({ref, node.ref("one"), other}) == 2
        assert ref != other
        assert ref != "one"
        assert repr(ref) == "<Ref 'one'>"

    def test_what_is_told_in_order_is_heard_in_order(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")

        for number in range(100):
            ref.tell(number)

        assert heard(node, "one") == list(range(100))

    def test_the_more_urgent_of_what_waits_goes_first(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        gate = Gate()
        ref.tell(gate)
        assert gate.entered.wait(DEADLINE)

        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT):
            ref.tell(priority.name, priority=priority)
        gate.opened.set()
        node.drain(DEADLINE)

        assert heard(node, "one") == ["URGENT", "HIGH", "NORMAL", "LOW"]

    @pytest.mark.parametrize("priority", [0, "urgent", "URGENT"])
    def test_a_priority_may_be_its_number_or_its_name(self, node: Node, priority: Any) -> None:
        mailbox = node.mailbox("box")

        node.ref("box").tell("a", priority=priority)
        [message] = mailbox.take(timeout=DEADLINE)

        assert message.priority is Priority.URGENT

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"priority": 9}, InvalidArgument),
            ({"priority": "soon"}, InvalidArgument),
            ({"priority": None}, InvalidArgument),
            ({"ttl": 0}, MessageExpired),
            ({"ttl": -1}, MessageExpired),
            ({"ttl": "1"}, InvalidArgument),
            ({"ttl": float("nan")}, InvalidArgument),
            ({"delay": -1}, InvalidArgument),
            ({"delay": True}, InvalidArgument),
            ({"headers": {"a": 1}}, InvalidArgument),
            ({"headers": "a"}, InvalidArgument),
        ],
        ids=str,
    )
    def test_options_that_cannot_be_meant_are_refused(
        self, node: Node, options: dict[str, Any], error: type[Exception]
    ) -> None:
        ref = node.spawn(Recorder, name="one")

        with pytest.raises(error):
            ref.tell("a", **options)

        assert heard(node, "one") == []

    @pytest.mark.parametrize("timeout", [-1, "1", float("nan"), True])
    def test_a_timeout_that_cannot_be_meant_is_refused(self, node: Node, timeout: Any) -> None:
        ref = node.spawn(Recorder)

        with pytest.raises(InvalidArgument, match="a timeout"):
            ref.ask(None, timeout=timeout)

    def test_what_is_not_started_in_its_ttl_is_a_dead_letter(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        gate, passed = Gate(), threading.Event()
        ref.tell(gate)
        assert gate.entered.wait(DEADLINE)

        ref.tell("late", ttl=0.01)
        node._clock.call_at(node._clock.now() + 0.02, passed.set)
        assert passed.wait(DEADLINE)
        gate.opened.set()

        assert heard(node, "one") == []
        [letter] = node.dead_letters.list()
        assert (letter.reason, letter.recipient) == (Reason.EXPIRED, "one")

    def test_a_delayed_message_comes_later(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        mailbox = node.mailbox("box")

        node.ref("box").tell("late", delay=0.02)
        node.ref("box").tell("early")
        ref.tell("x")

        assert [mailbox.take(timeout=DEADLINE)[0].payload for _ in range(2)] == ["early", "late"]

    def test_a_stopped_agent_refuses_what_is_sent(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")

        ref.stop()

        with pytest.raises(AgentStopped, match="'one' has stopped"):
            ref.tell("a")
        with pytest.raises(AgentStopped):
            ref.ask(None).get(DEADLINE)

    def test_stop_lets_the_message_in_hand_end_and_fails_what_waits(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        gate = Gate()
        held = ref.ask(gate)
        waiting = ref.ask(None)
        ref.tell("a")
        assert gate.entered.wait(DEADLINE)

        ref.stop()
        gate.opened.set()

        assert held.get(DEADLINE) is None
        with pytest.raises(AgentStopped):
            waiting.get(DEADLINE)
        node.drain(DEADLINE)
        assert [letter.reason for letter in node.dead_letters.list()] == [Reason.STOPPED]

    def test_stop_with_drain_handles_what_waits_first(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        gate = Gate()
        ref.tell(gate)
        ref.tell("a")
        waiting = ref.ask(None)
        assert gate.entered.wait(DEADLINE)

        ref.stop(drain=True)
        ref.stop(drain=True)
        with pytest.raises(AgentStopped):
            ref.tell("b")
        gate.opened.set()

        assert waiting.get(DEADLINE) == ["a"]

    def test_an_agent_that_is_still_ending_keeps_a_drain_waiting(self, node: Node) -> None:
        gate = Gate()

        class Leaving(Agent):
            def on_stop(self) -> None:
                gate.hold()

        node.spawn(Leaving, name="leaving").stop()
        assert gate.entered.wait(DEADLINE)

        with pytest.raises(NotDrained) as raised:
            node.drain(timeout=0.01)
        gate.opened.set()
        node.drain(DEADLINE)

        assert raised.value.names == ("leaving",)

    def test_a_ref_of_before_reaches_the_successor_of_that_name(self, node: Node) -> None:
        old = node.spawn(Recorder, name="one")
        gone = threading.Event()
        node.registry.watch(lambda _: gone.set())
        old.stop()
        assert gone.wait(DEADLINE)

        node.spawn(Recorder, name="one")
        old.tell("a")

        assert heard(node, "one") == ["a"]

    def test_alive_says_whether_messages_are_taken(self, node: Node) -> None:
        ref = node.spawn(Recorder)
        gone = threading.Event()
        node.registry.watch(lambda _: gone.set())

        before = ref.alive
        ref.stop()
        assert gone.wait(DEADLINE)

        assert before
        assert not ref.alive

    def test_nothing_is_sent_on_a_node_that_does_not_run(self) -> None:
        node = Node()

        with pytest.raises(BusClosed, match="not running"):
            node.tell("one", "a")
        with pytest.raises(BusClosed):
            node.ask("one", "a").get()
        with pytest.raises(BusClosed):
            node.broadcast("a")
        with pytest.raises(BusClosed):
            node.spawn(Recorder)

    def test_an_agent_of_another_process_has_no_pykka_ref(self, node: Node) -> None:
        node.mailbox("box")

        with pytest.raises(UnknownRecipient):
            _ = node.ref("box").actor_ref

    def test_tell_many_checks_every_name_before_it_sends(self, node: Node) -> None:
        node.spawn(Recorder, name="one")

        with pytest.raises(UnknownRecipient):
            node.tell_many([("one", "a"), ("two", "b")])
        count = node.tell_many([("one", "c"), ("one", "d")])

        assert count == 2
        assert heard(node, "one") == ["c", "d"]


class TestRoom:
    async def test_room_is_awaited_on_an_event_loop(self) -> None:
        async with Node() as node:
            ref = node.spawn(Narrow, name="narrow")
            gate = Gate()
            ref.tell(gate)
            await asyncio.to_thread(gate.entered.wait, DEADLINE)
            ref.tell("a")

            with pytest.raises(MailboxFull, match=r"await ref\.room") as raised:
                ref.tell("b")
            waiting = asyncio.create_task(ref.room())
            await asyncio.sleep(0)
            still_full = not waiting.done()
            gate.opened.set()
            await asyncio.wait_for(waiting, DEADLINE)
            ref.tell("c")
            await asyncio.wait_for(ref.room(), DEADLINE)

            assert (raised.value.name, raised.value.capacity) == ("narrow", 1)
            assert still_full
            assert await ref.ask(None, timeout=DEADLINE) == ["a", "c"]

    async def test_where_there_is_room_nobody_waits(self) -> None:
        async with Node() as node:
            room = node.spawn(Narrow).room()

            with pytest.raises(StopIteration):  # it returns without ever having suspended
                room.send(None)

    async def test_the_end_of_the_agent_ends_the_wait(self) -> None:
        async with Node() as node:
            ref = node.spawn(Narrow)
            gate = Gate()
            ref.tell(gate)
            await asyncio.to_thread(gate.entered.wait, DEADLINE)
            ref.tell("a")
            waiting = asyncio.create_task(ref.room())
            await asyncio.sleep(0)

            ref.stop()
            await asyncio.wait_for(waiting, DEADLINE)
            gate.opened.set()

            with pytest.raises(AgentStopped):
                ref.tell("b")

    def test_a_thread_waits_for_room(self, node: Node) -> None:
        ref = node.spawn(Narrow, name="narrow")
        gate = Gate()
        ref.tell(gate)
        assert gate.entered.wait(DEADLINE)
        ref.tell("a")

        sender = threading.Thread(target=ref.tell, args=("b",))
        sender.start()
        gate.opened.set()
        sender.join(DEADLINE)

        assert heard(node, "narrow") == ["a", "b"]


class TestCapabilities:
    def test_all_tells_everyone_even_if_one_has_stopped(self, node: Node) -> None:
        node.spawn(Recorder, name="one")
        stopping = node.spawn(Recorder, name="two")
        node.spawn(Recorder, name="three")
        gate = Gate()
        stopping.tell(gate)
        assert gate.entered.wait(DEADLINE)
        stopping.stop()

        with pytest.raises(AgentStopped):
            node.all("record").tell("a")
        gate.opened.set()

        assert heard(node, "one") == heard(node, "three") == ["a"]

    def test_nobody_offers_it(self, node: Node) -> None:
        node.spawn(Recorder)

        for target in (node.any("recrd"), node.all("recrd")):
            with pytest.raises(NoProvider, match="Did you mean 'record'"):
                target.tell("a")
            with pytest.raises(NoProvider, match="Did you mean 'record'"):
                target.ask("a").get(DEADLINE)

    @pytest.mark.parametrize("capability", ["", "a" * 10_240, "*", 3, None, "a\x07"])
    def test_what_is_no_capability_is_refused(self, node: Node, capability: Any) -> None:
        with pytest.raises(InvalidName):
            node.any(capability)
        with pytest.raises(InvalidName):
            node.all(capability)

    def test_any_spares_the_one_that_is_busy(self, node: Node) -> None:
        busy = node.spawn(Recorder, name="busy")
        node.spawn(Recorder, name="free")
        gate = Gate()
        busy.tell(gate)
        assert gate.entered.wait(DEADLINE)
        for _ in range(50):
            busy.tell("x")

        for _ in range(20):
            node.any("record").ask(0).get(DEADLINE)
        gate.opened.set()

        assert heard(node, "free") == [0] * 20


class TestTopics:
    def test_a_subscription_ends_when_it_is_cancelled(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")

        with ref.subscribe("news.*") as subscription:
            during = node.topic("news.today").publish("a")
        after = node.topic("news.today").publish("b")
        subscription.cancel()

        assert (during, after) == (1, 0)
        assert (subscription.name, subscription.pattern) == ("one", "news.*")
        assert heard(node, "one") == ["a"]

    def test_an_event_comes_once_however_many_patterns_match(self, node: Node) -> None:
        ref = node.spawn(Recorder, name="one")
        for pattern in ("news.*", "news.>", "news.today", ">"):
            ref.subscribe(pattern)

        assert node.topic("news.today").publish("a") == 1
        assert heard(node, "one") == ["a"]

    def test_a_filter_picks_by_content(self, node: Node) -> None:
        @agent
        def clerk(order: dict[str, Any]) -> None: ...

        ref = node.spawn(clerk)
        ref.subscribe("orders.>", where={"country": "NO", "lines.total": where.gt(100)})

        reached = [
            node.topic("orders.new").publish({"country": country, "lines": {"total": total}})
            for country, total in (("NO", 101), ("NO", 100), ("SE", 101), ("NO", "many"))
        ]

        assert reached == [1, 0, 0, 0]

    @pytest.mark.parametrize("pattern", ["", "a..b", ">.a", "a b. c", "x" * 200, 3])
    def test_what_is_no_pattern_is_refused(self, node: Node, pattern: Any) -> None:
        ref = node.spawn(Recorder)

        with pytest.raises(InvalidName):
            ref.subscribe(pattern)

    @pytest.mark.parametrize("topic", ["", "a.*", ">", "a..b", "x" * 200, 3, "a.\n"])
    def test_what_is_no_topic_is_refused(self, node: Node, topic: Any) -> None:
        with pytest.raises(InvalidName):
            node.topic(topic)

    @pytest.mark.parametrize("condition", ["country", [1], {1: 2}, {"": 1}])
    def test_what_is_no_filter_is_refused(self, node: Node, condition: Any) -> None:
        ref = node.spawn(Recorder)

        with pytest.raises(InvalidArgument):
            ref.subscribe("a", where=condition)
