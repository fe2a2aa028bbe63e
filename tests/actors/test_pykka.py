"""Pykka's own face of an agent, and Pykka's traps, which must not reach our users."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from actorbus import (
    Agent,
    DeadlockDetected,
    MailboxFull,
    MailboxPolicy,
    Message,
    Node,
    NoHandler,
    PoolExhausted,
    Reason,
    Ref,
    Reject,
    Rejected,
    Settings,
    Supervision,
    handles,
)
from actorbus.actors.pykka_side import ASK_TIMEOUT, PykkaFuture

from .gate import DEADLINE, Gate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(settings=Settings(log_level="off")) as node:
        yield node


class Worker(Agent):
    supervision = Supervision(on_failure="restart", backoff=0.001)

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @handles
    def hold(self, gate: Gate) -> str:
        gate.hold()
        return "held"

    @handles
    def double(self, number: int) -> int:
        self.heard.append(number)
        return 2 * number

    @handles
    def obey(self, word: str) -> str:
        match word:
            case "fail":
                raise ValueError("no such luck")
            case "exit":
                raise SystemExit(3)
            case "reject":
                raise Reject("not today")
            case "ask yourself":
                return str(self.actor_ref.ask(1))
        self.heard.append(word)
        return word

    def add(self, first: int, second: int = 0) -> int:
        return first + second


@pytest.fixture
def worker(node: Node) -> Ref:
    return node.spawn(Worker, name="worker")


class TestFace:
    def test_an_agent_is_a_pykka_actor(self, worker: Ref) -> None:
        assert issubclass(Agent, pykka.Actor)
        assert isinstance(worker.actor_ref, pykka.ActorRef)
        assert worker.actor_ref.actor_class is Worker
        assert worker.actor_ref is worker.actor_ref

    def test_tell_and_ask_reach_the_same_handlers_in_the_same_order(self, worker: Ref) -> None:
        worker.actor_ref.tell(1)
        worker.tell(2)
        worker.actor_ref.tell(3)

        assert worker.actor_ref.ask(4) == 8
        assert worker.proxy().heard.get() == [1, 2, 3, 4]

    def test_proxies_call_read_and_write(self, worker: Ref) -> None:
        proxy = worker.proxy()

        added = proxy.add(1, second=2).get(timeout=DEADLINE)
        proxy.heard = ["written"]

        assert added == 3
        assert proxy.heard.get(timeout=DEADLINE) == ["written"]

    def test_a_proxy_outlives_a_restart(self, node: Node, worker: Ref) -> None:
        proxy, actor_ref = worker.proxy(), worker.actor_ref
        worker.tell(1)
        worker.tell("fail")

        worker.tell(2)

        assert proxy.heard.get(timeout=DEADLINE) == [2]
        assert actor_ref.is_alive()
        assert actor_ref.proxy().add(1).get(timeout=DEADLINE) == 1

    def test_errors_are_those_that_pykka_raises(self, worker: Ref) -> None:
        with pytest.raises(ValueError, match="no such luck"):
            worker.actor_ref.ask("fail")
        with pytest.raises(AttributeError):
            worker.proxy().nothing.get()

    def test_what_pykka_does_not_know_is_said_our_way(self, worker: Ref) -> None:
        with pytest.raises(Rejected, match="not today"):
            worker.actor_ref.ask("reject")
        with pytest.raises(NoHandler):
            worker.actor_ref.ask(2.5)

    def test_a_wait_that_is_too_short_is_a_timeout_and_the_future_stays_usable(
        self, worker: Ref
    ) -> None:
        gate = Gate()
        future = worker.actor_ref.ask(gate, block=False)

        with pytest.raises(pykka.Timeout):
            future.get(timeout=0.01)
        gate.opened.set()

        assert future.get(timeout=DEADLINE) == "held"
        assert future.get() == "held"

    def test_futures_are_mapped_joined_and_awaited(self, worker: Ref) -> None:
        first, second = (worker.actor_ref.ask(number, block=False) for number in (1, 2))

        async def wait() -> Any:
            return await worker.actor_ref.ask(3, block=False)

        assert first.map(str).get(timeout=DEADLINE) == "2"
        assert first.join(second).get(timeout=DEADLINE) == [2, 4]
        assert asyncio.run(asyncio.wait_for(wait(), DEADLINE)) == 6

    def test_what_a_handler_sends_by_pykka_comes_from_its_agent(self, node: Node) -> None:
        class Sender(Agent):
            @handles
            def send(self, to: Ref) -> None:
                to.actor_ref.tell(self.message)

        class Receiver(Agent):
            @handles
            def receive(self, cause: Message[Any]) -> None:
                box.append((cause.sender, cause.causation_id == cause.payload.id))
                arrived.set()

        box: list[Any] = []
        arrived = threading.Event()
        receiver = node.spawn(Receiver)
        node.spawn(Sender, name="sender").tell(receiver)

        assert arrived.wait(DEADLINE)
        assert box == [("sender", True)]

    def test_an_actor_written_for_pykka_keeps_its_on_receive(self, node: Node) -> None:
        class Ported(Agent):
            def on_receive(self, message: Any) -> Any:
                return f"received {message}"

        ref = node.spawn(Ported)

        assert ref.actor_ref.ask("a") == "received a"
        assert ref.ask("b").get(DEADLINE) == "received b"

    def test_history_has_what_came_by_pykka(self, node: Node, worker: Ref) -> None:
        worker.actor_ref.ask(1)
        node.drain(DEADLINE)

        assert [one.kind for one in node.history.list(type="int")] == ["reply", "request"]


class TestTraps:
    """Numbered as in the list of what breaks in Pykka 4."""

    def test_1_agents_do_not_cost_a_thread_each(self, node: Node) -> None:
        before = threading.active_count()

        refs = [node.spawn(Worker) for _ in range(500)]
        for ref in refs:
            ref.tell(1)
        node.drain(DEADLINE)

        assert threading.active_count() - before <= 8

    def test_2_one_exception_loses_no_other_message(self, node: Node, worker: Ref) -> None:
        gate = Gate()
        worker.tell(gate)
        assert gate.entered.wait(DEADLINE)
        for payload in (1, 2, "fail", 3, 4, 5):
            worker.actor_ref.tell(payload)
        gate.opened.set()
        node.drain(DEADLINE)

        [letter] = node.dead_letters.list()
        assert letter.message.payload == "fail"
        assert worker.actor_ref.is_alive()
        assert worker.proxy().heard.get() == [3, 4, 5]
        handled = [one for one in node.history.list(type="int") if one.status == "handled"]
        assert len(handled) == 5

    def test_3_system_exit_in_one_agent_hurts_no_other(self, node: Node, worker: Ref) -> None:
        other = node.spawn(Worker)

        with pytest.raises(SystemExit):
            worker.actor_ref.ask("exit")
        worker.actor_ref.tell("exit")

        assert other.actor_ref.ask(1) == 2
        assert worker.actor_ref.ask(1) == 2

    def test_4_no_ask_hangs_however_it_races_with_a_stop(self, node: Node) -> None:
        for _ in range(50):
            ref = node.spawn(Worker).actor_ref
            together = threading.Barrier(3)
            futures: list[pykka.Future[Any]] = []

            def ask(
                ref: pykka.ActorRef[Any] = ref,
                together: threading.Barrier = together,
                futures: list[pykka.Future[Any]] = futures,
            ) -> None:
                together.wait(DEADLINE)
                futures.extend(ref.ask(1, block=False) for _ in range(20))

            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
            together.wait(DEADLINE)
            ref.stop()
            for thread in threads:
                thread.join(DEADLINE)

            for future in futures:
                try:
                    assert future.get(timeout=DEADLINE) == 2
                except pykka.ActorDeadError:
                    continue
            assert len(futures) == 40

    def test_4_no_tell_is_lost_silently_however_it_races_with_a_stop(self, node: Node) -> None:
        ref = node.spawn(Worker)
        actor_ref = ref.actor_ref
        begun = threading.Barrier(3)
        accepted: list[int] = []

        def tell() -> None:
            for number in range(4_000):
                try:
                    actor_ref.tell(number)
                except pykka.ActorDeadError:
                    return
                accepted.append(number)
                if number == 100:
                    begun.wait(DEADLINE)

        threads = [threading.Thread(target=tell) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait(DEADLINE)
        ref.stop()
        for thread in threads:
            thread.join(DEADLINE)
        node.drain(DEADLINE)

        ended = node.history.list(type="int", limit=10_000)
        assert len([one for one in ended if one.status != "failed"]) == len(accepted)
        assert len([one for one in ended if one.status == "dead"]) == len(node.dead_letters)

    def test_5_an_agent_lives_while_nobody_holds_it(self, node: Node) -> None:
        node.spawn(Worker, name="alone")
        gc.collect()

        assert node.ref("alone").actor_ref.ask(1) == 2

    def test_5_and_is_collected_once_it_has_stopped(self) -> None:
        with Node(settings=Settings(pool_core=1)) as node:
            ref = node.spawn(Worker)
            assert ref._cell is not None
            agent = weakref.ref(ref._cell.agent)
            ref.actor_ref.stop(timeout=DEADLINE)
            del ref
            # A thread of the pool remembers the agent it ran last.
            node.spawn(Worker).ask(1).get(DEADLINE)

            gc.collect()

            assert agent() is None

    def test_6_agents_stay_out_of_pykkas_registry(self, node: Node, worker: Ref) -> None:
        worker.actor_ref.ask(1)
        worker.proxy().add(1).get()

        assert pykka.ActorRegistry.get_all() == []
        pykka.ActorRegistry.stop_all()
        assert worker.actor_ref.is_alive()

    def test_7_an_agent_costs_no_proxy_until_somebody_wants_one(
        self, node: Node, worker: Ref
    ) -> None:
        worker.ask(1).get(DEADLINE)

        assert worker._cell is not None
        assert worker._cell.pykka_side is None

    def test_7_attributes_that_are_private_cannot_be_reached_by_proxy(self, worker: Ref) -> None:
        with pytest.raises(AttributeError):
            worker.proxy()._cell.get()

    def test_8_an_ask_without_a_timeout_has_one(self, worker: Ref) -> None:
        gate = Gate()

        future = worker.actor_ref.ask(gate, block=False)
        gate.opened.set()

        assert isinstance(future, PykkaFuture)
        assert ASK_TIMEOUT == 30.0
        assert future.get() == "held"

    def test_8_an_agent_that_asks_itself_is_told_at_once(self, worker: Ref) -> None:
        with pytest.raises(DeadlockDetected, match="worker -> worker"):
            worker.actor_ref.ask("ask yourself", timeout=DEADLINE)

    def test_8_a_ring_of_proxies_is_told_at_once(self, node: Node) -> None:
        class Link(Agent):
            def __init__(self, other: str) -> None:
                self.other = other

            def pull(self) -> Any:
                return node.ref(self.other).proxy().pull().get()

        first = node.spawn(Link, "second", name="first")
        node.spawn(Link, "first", name="second")

        with pytest.raises(DeadlockDetected, match="waiting for ever: "):
            first.proxy().pull().get(timeout=DEADLINE)

    def test_8_get_on_an_event_loop_does_not_block_it(self, worker: Ref) -> None:
        async def main() -> None:
            future = worker.actor_ref.ask(gate, block=False)
            with pytest.raises(DeadlockDetected, match="await"):
                future.get()

        gate = Gate()
        asyncio.run(main())
        gate.opened.set()

    def test_8_handlers_that_wait_by_pykka_do_not_starve_the_pool(self) -> None:
        class Asker(Agent):
            @handles
            def ask_for(self, to: Ref) -> Any:
                return to.actor_ref.ask(1)

        with Node(settings=Settings(pool_core=1)) as node:
            worker = node.spawn(Worker)
            askers = [node.spawn(Asker) for _ in range(8)]

            replies = [asker.ask(worker) for asker in askers]

            assert [reply.get(DEADLINE) for reply in replies] == [2] * 8

    def test_8_where_no_thread_is_left_to_wait_on_the_handler_is_told(self) -> None:
        class Asker(Agent):
            @handles
            def ask_for(self, to: Ref) -> Any:
                return to.actor_ref.ask(1)

        with Node(settings=Settings(pool_core=1, pool_threads=1)) as node:
            asker, worker = node.spawn(Asker), node.spawn(Worker)

            with pytest.raises(PoolExhausted):
                asker.actor_ref.ask(worker, timeout=DEADLINE)

    def test_9_inbox_and_stop_event_of_a_ref_stay_through_a_restart(
        self, node: Node, worker: Ref
    ) -> None:
        actor_ref = worker.actor_ref
        inbox, stopped = actor_ref.actor_inbox, actor_ref.actor_stopped

        worker.tell("fail")
        worker.actor_ref.ask(1)
        cell = worker._cell

        assert cell is not None
        assert cell.agent.actor_inbox is inbox
        assert cell.agent.actor_stopped is stopped
        assert cell.agent.actor_ref is actor_ref

    def test_10_a_callback_of_a_future_runs_on_the_thread_that_gets_it(self, worker: Ref) -> None:
        threads: list[str] = []
        gate = Gate()

        def note(value: str) -> str:
            threads.append(threading.current_thread().name)
            return value

        mapped = worker.actor_ref.ask(gate, block=False).map(note)
        gate.opened.set()
        other = worker.actor_ref.ask(1)

        assert other == 2
        assert threads == []
        assert mapped.get(timeout=DEADLINE) == "held"
        assert threads == [threading.current_thread().name]


class TestStop:
    def test_stop_handles_what_waits_and_returns_when_it_is_over(
        self, node: Node, worker: Ref
    ) -> None:
        actor_ref = worker.actor_ref
        future = actor_ref.ask(1, block=False)

        stopped = actor_ref.stop(timeout=DEADLINE)

        assert stopped
        assert future.get() == 2
        assert not actor_ref.is_alive()
        assert node.registry.get("worker") is None

    def test_what_is_sent_afterwards_is_refused(self, worker: Ref) -> None:
        actor_ref, proxy = worker.actor_ref, worker.proxy()
        actor_ref.stop()

        with pytest.raises(pykka.ActorDeadError):
            actor_ref.tell(1)
        with pytest.raises(pykka.ActorDeadError):
            actor_ref.ask(1)
        with pytest.raises(pykka.ActorDeadError):
            proxy.add(1).get()
        assert actor_ref.stop() is False

    def test_a_ref_that_is_made_late_knows_that_the_agent_has_stopped(
        self, node: Node, worker: Ref
    ) -> None:
        worker.stop()
        node.drain(DEADLINE)

        assert not worker.actor_ref.is_alive()

    def test_a_handler_that_outlasts_its_node_fails_the_future(self) -> None:
        node = Node(settings=Settings(stop_timeout=0.05)).start()
        gate = Gate()
        future = node.spawn(Worker, name="worker").actor_ref.ask(gate, block=False)
        assert gate.entered.wait(DEADLINE)

        with pytest.raises(Exception, match="worker"):
            node.stop()
        with pytest.raises(pykka.ActorDeadError):
            future.get(timeout=DEADLINE)
        gate.opened.set()

    def test_a_full_mailbox_bounds_pykka_too(self, node: Node) -> None:
        class Narrow(Worker):
            mailbox = MailboxPolicy(capacity=1, overflow="reject")

        ref = node.spawn(Narrow)
        gate = Gate()
        ref.tell(gate)
        assert gate.entered.wait(DEADLINE)
        ref.actor_ref.tell(1)

        with pytest.raises(MailboxFull):
            ref.actor_ref.tell(2)
        with pytest.raises(MailboxFull):
            ref.actor_ref.ask(2)
        gate.opened.set()

    def test_a_failing_tell_is_a_dead_letter(self, node: Node, worker: Ref) -> None:
        worker.actor_ref.tell("fail")
        node.drain(DEADLINE)

        assert [letter.reason for letter in node.dead_letters.list()] == [Reason.HANDLER_ERROR]


class TestPrivateNames:
    """What we rely on is internal to Pykka: a release that renames it must fail here."""

    def test_an_actor_ref_copies_inbox_and_event_and_holds_its_actor_weakly(self) -> None:
        class Plain(pykka.ThreadingActor):
            pass

        actor = Plain()
        ref = pykka.ActorRef(actor)

        assert isinstance(ref._actor_weakref, weakref.ref)
        assert ref._actor_weakref() is actor
        assert ref.actor_inbox is actor.actor_inbox
        assert ref.actor_stopped is actor.actor_stopped
        assert ref.actor_class is Plain

    def test_an_actor_has_the_extension_points_that_an_agent_fills(self) -> None:
        for name in ("_create_actor_inbox", "_create_future", "_start_actor_loop"):
            assert getattr(pykka.Actor, name).__isabstractmethod__
            assert name in vars(Agent)

    def test_a_ref_asks_through_an_envelope_with_a_future_of_the_class(self) -> None:
        envelopes: list[Envelope[Any]] = []
        future = PykkaFuture()

        class Inbox:
            def put(self, envelope: Envelope[Any]) -> None:
                envelopes.append(envelope)

        class Plain(pykka.ThreadingActor):
            @staticmethod
            def _create_actor_inbox() -> Any:
                return Inbox()

            @staticmethod
            def _create_future() -> Any:
                return future

        actor = Plain()
        ref = pykka.ActorRef(actor)
        asked = ref.ask("a", block=False)
        ref.tell("b")

        assert asked is future
        assert Envelope.__slots__ == ["message", "reply_to"]
        assert [(one.message, one.reply_to) for one in envelopes] == [("a", future), ("b", None)]

    def test_handle_receive_serves_proxies(self) -> None:
        class Plain:
            value = 1

            def double(self, number: int) -> int:
                return 2 * number

        actor: Any = Plain()
        receive = pykka.Actor._handle_receive

        assert receive(actor, ProxyCall(attr_path=("double",), args=(2,), kwargs={})) == 4
        assert receive(actor, ProxyGetAttr(attr_path=("value",))) == 1
        receive(actor, ProxySetAttr(attr_path=("value",), value=5))
        assert actor.value == 5

    def test_a_proxy_asks_its_ref_and_introspects_the_weakly_held_actor(self) -> None:
        class Plain(pykka.ThreadingActor):
            def act(self) -> None: ...

        actor = Plain()
        ref = pykka.ActorRef(actor)
        proxy = pykka.ActorProxy(actor_ref=ref)

        assert proxy._actor is actor
        assert ("act",) in proxy._known_attrs

    def test_stopping_sends_the_stop_message(self) -> None:
        assert _ActorStop() is not None
        assert _ActorStop.__module__ == "pykka.messages"
