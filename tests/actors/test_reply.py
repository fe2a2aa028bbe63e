"""How the replies of asks are waited for, and what they come to."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import (
    Agent,
    AgentFailed,
    AskTimeout,
    Cancelled,
    DeadlockDetected,
    InvalidArgument,
    Node,
    NoHandler,
    NoProvider,
    Reason,
    Ref,
    Reject,
    Rejected,
    Reply,
    handles,
)
from actorbus.telemetry import Event, ReplyUnclaimed

from .gate import DEADLINE, Gate

if TYPE_CHECKING:
    from collections.abc import Iterator


class Worker(Agent):
    capabilities = ("work",)

    @handles
    def double(self, number: int) -> int:
        return 2 * number

    @handles
    def hold(self, gate: Gate) -> str:
        gate.hold()
        return "held"

    @handles
    def obey(self, word: str) -> Any:
        match word:
            case "fail":
                raise ValueError("no such luck")
            case "reject":
                raise Reject("not today")
            case "exit":
                raise SystemExit(3)
        return word


class Forwarder(Agent):
    """Answers with the reply of another."""

    def __init__(self, to: Ref) -> None:
        self.to = to

    @handles
    def forward(self, payload: object) -> Reply[Any]:
        return self.to.ask(payload)

    @handles
    def sync(self, _: None) -> None:
        """By its reply everything before it has been handled."""


@pytest.fixture
def worker(node: Node) -> Ref:
    return node.spawn(Worker, name="worker")


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


class TestGet:
    def test_it_may_be_got_as_often_as_one_likes_and_from_many_threads(self, worker: Ref) -> None:
        reply = worker.ask(3)
        got: list[int] = []

        threads = [
            threading.Thread(target=lambda: got.append(reply.get(DEADLINE))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)

        assert got == [6] * 8
        assert reply.get() == 6

    def test_threads_that_wait_are_all_woken(self, worker: Ref, gate: Gate) -> None:
        reply = worker.ask(gate)
        assert gate.entered.wait(DEADLINE)
        got: list[str] = []
        threads = [
            threading.Thread(target=lambda: got.append(reply.get(DEADLINE))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()

        gate.opened.set()
        for thread in threads:
            thread.join(DEADLINE)

        assert got == ["held"] * 8

    def test_a_shorter_wait_leaves_it_usable(self, worker: Ref, gate: Gate) -> None:
        reply = worker.ask(gate)

        with pytest.raises(AskTimeout, match="the reply may still come") as raised:
            reply.get(timeout=0.01)
        pending = reply.done()
        gate.opened.set()

        assert isinstance(raised.value, TimeoutError)
        assert raised.value.recipient == "worker"
        assert not pending
        assert reply.get(DEADLINE) == "held"

    def test_its_own_deadline_ends_it_for_good(self, worker: Ref, gate: Gate) -> None:
        reply = worker.ask(gate, timeout=0.02)

        with pytest.raises(AskTimeout, match=r"no reply from 'worker' within 0\.02 s") as raised:
            reply.get(DEADLINE)
        gate.opened.set()

        assert raised.value.timeout == pytest.approx(0.02)
        assert reply.done()
        with pytest.raises(AskTimeout):
            reply.get()

    def test_work_whose_asker_gave_up_is_not_started(
        self, node: Node, worker: Ref, gate: Gate
    ) -> None:
        worker.tell(gate)
        assert gate.entered.wait(DEADLINE)
        reply = worker.ask(3, timeout=0.01)
        with pytest.raises(AskTimeout):
            reply.get()

        gate.opened.set()
        node.drain(DEADLINE)

        [ending] = node.history.list(type="int")
        assert (ending.status, ending.reason, ending.started_at) == ("failed", "expired", None)

    @pytest.mark.parametrize("timeout", [-1, "1", float("nan"), True])
    def test_a_timeout_that_cannot_be_meant_is_refused(
        self, worker: Ref, gate: Gate, timeout: Any
    ) -> None:
        reply = worker.ask(gate)

        with pytest.raises(InvalidArgument):
            reply.get(timeout=timeout)

    def test_done_says_whether_get_would_wait(self, worker: Ref, gate: Gate) -> None:
        reply = worker.ask(gate)
        before = reply.done(), repr(reply)
        gate.opened.set()
        reply.get(DEADLINE)

        assert before == (False, "<Reply from 'worker': pending>")
        assert (reply.done(), repr(reply)) == (True, "<Reply from 'worker': done>")

    def test_a_timeout_of_0_asks_whether_it_is_there(self, worker: Ref, gate: Gate) -> None:
        reply = worker.ask(gate)

        with pytest.raises(AskTimeout):
            reply.get(timeout=0)


class TestErrors:
    def test_a_failed_handler(self, worker: Ref) -> None:
        with pytest.raises(AgentFailed) as raised:
            worker.ask("fail").get(DEADLINE)

        error = raised.value
        assert (error.agent, error.error_type, error.message) == (
            "worker",
            "ValueError",
            "no such luck",
        )
        assert 'raise ValueError("no such luck")' in error.traceback
        assert isinstance(error.__cause__, ValueError)
        assert str(error) == "agent 'worker' failed with ValueError: no such luck"

    def test_a_failed_ask_changes_nothing_in_the_agent(self, node: Node, worker: Ref) -> None:
        with pytest.raises(AgentFailed):
            worker.ask("fail").get(DEADLINE)

        assert worker.ask(1).get(DEADLINE) == 2
        assert len(node.dead_letters) == 0

    def test_a_handler_that_exits_is_a_handler_that_failed(self, worker: Ref) -> None:
        with pytest.raises(AgentFailed, match="SystemExit: 3"):
            worker.ask("exit").get(DEADLINE)

        assert worker.ask(1).get(DEADLINE) == 2

    def test_a_refusal(self, worker: Ref) -> None:
        with pytest.raises(Rejected) as raised:
            worker.ask("reject").get(DEADLINE)

        assert (raised.value.agent, raised.value.why) == ("worker", "not today")

    def test_a_payload_that_nobody_takes(self, worker: Ref) -> None:
        with pytest.raises(NoHandler) as raised:
            worker.ask(2.5).get(DEADLINE)

        assert (raised.value.agent, raised.value.payload_type) == ("worker", "float")

    def test_it_may_be_raised_as_often_as_one_likes(self, worker: Ref) -> None:
        reply = worker.ask("reject")

        for _ in range(3):
            with pytest.raises(Rejected):
                reply.get(DEADLINE)

    def test_an_error_that_nobody_fetched_is_told(self, node: Node, worker: Ref) -> None:
        told = threading.Event()
        events: list[Event] = []

        def listen(event: Event) -> None:
            if isinstance(event, ReplyUnclaimed):
                events.append(event)
                told.set()

        node.telemetry.listen(listen)

        worker.ask("reject").done()

        assert told.wait(DEADLINE)
        [unclaimed] = events
        assert isinstance(unclaimed, ReplyUnclaimed)
        assert unclaimed.recipient == "worker"
        assert isinstance(unclaimed.error, Rejected)


class TestAwait:
    async def test_it_is_awaited_on_the_loop_of_the_node(self) -> None:
        async with Node() as node:
            worker = node.spawn(Worker)

            assert await worker.ask(3) == 6

    def test_it_is_awaited_on_a_loop_that_is_not_the_nodes(self, node: Node, worker: Ref) -> None:
        class Async(Agent):
            @handles
            async def double(self, number: int) -> Any:
                await asyncio.sleep(0)
                return await self.ask("worker", number)

        other = node.spawn(Async)

        async def main() -> tuple[Any, Any]:
            return await asyncio.wait_for(asyncio.gather(worker.ask(1), other.ask(2)), DEADLINE)

        assert list(asyncio.run(main())) == [2, 4]

    async def test_it_is_awaited_by_several_tasks(self) -> None:
        async with Node() as node:
            gate = Gate()
            reply = node.spawn(Worker).ask(gate)

            async def wait() -> Any:
                return await reply

            tasks = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            gate.opened.set()

            assert await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE) == ["held"] * 3

    async def test_its_deadline_ends_an_await_too(self) -> None:
        async with Node() as node:
            gate = Gate()

            with pytest.raises(AskTimeout):
                await asyncio.wait_for(node.spawn(Worker).ask(gate, timeout=0.02), DEADLINE)
            gate.opened.set()

    async def test_cancelling_the_task_that_awaits_cancels_the_ask(self) -> None:
        async with Node() as node:
            gate = Gate()
            worker = node.spawn(Worker)
            worker.tell(gate)
            reply = worker.ask(3)

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reply, 0.01)
            gate.opened.set()
            await node.adrain(DEADLINE)

            with pytest.raises(Cancelled):
                await reply
            [ending] = node.history.list(type="int")
            assert ending.reason == Reason.CANCELLED

    async def test_get_on_an_event_loop_says_what_to_write_instead(self) -> None:
        async with Node() as node:
            gate = Gate()
            reply = node.spawn(Worker).ask(gate)

            with pytest.raises(DeadlockDetected, match=r"write `await` instead of `\.get\(\)`"):
                reply.get()
            gate.opened.set()

            assert await reply == "held"

    def test_get_in_an_async_handler_says_so_too(self, node: Node, worker: Ref) -> None:
        class Async(Agent):
            @handles
            async def wait(self, gate: Gate) -> str:
                reply = self.ask("worker", gate)
                with pytest.raises(DeadlockDetected):
                    reply.get()
                gate.opened.set()
                return f"{await reply} after all"

        assert node.spawn(Async).ask(Gate()).get(DEADLINE) == "held after all"


class TestCancel:
    def test_what_waits_is_dropped(self, node: Node, worker: Ref, gate: Gate) -> None:
        worker.tell(gate)
        reply = worker.ask(3)

        cancelled = reply.cancel()
        gate.opened.set()
        node.drain(DEADLINE)

        assert cancelled
        assert not reply.cancel()
        with pytest.raises(Cancelled, match="the ask of 'worker' was cancelled"):
            reply.get()
        [ending] = node.history.list(type="int")
        assert (ending.reason, ending.started_at) == (Reason.CANCELLED, None)

    def test_what_is_done_cannot_be_cancelled(self, worker: Ref) -> None:
        reply = worker.ask(3)
        reply.get(DEADLINE)

        assert not reply.cancel()
        assert reply.get() == 6

    def test_who_waits_is_woken(self, worker: Ref, gate: Gate) -> None:
        reply = worker.ask(gate)
        assert gate.entered.wait(DEADLINE)
        waiting = threading.Event()
        errors: list[BaseException] = []

        def wait() -> None:
            waiting.set()
            try:
                reply.get(DEADLINE)
            except Cancelled as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(DEADLINE)
        reply.cancel()
        thread.join(DEADLINE)

        assert len(errors) == 1


class TestForwarded:
    def test_a_reply_that_a_handler_returns_settles_its_own(self, node: Node, worker: Ref) -> None:
        middle = node.spawn(Forwarder, worker)
        first = node.spawn(Forwarder, middle)

        assert first.ask(3).get(DEADLINE) == 6

    def test_its_error_comes_through(self, node: Node, worker: Ref) -> None:
        with pytest.raises(AgentFailed) as raised:
            node.spawn(Forwarder, worker).ask("fail").get(DEADLINE)

        assert raised.value.agent == "worker"

    def test_the_one_who_forwards_is_free_meanwhile(
        self, node: Node, worker: Ref, gate: Gate
    ) -> None:
        forwarder = node.spawn(Forwarder, worker)
        held = forwarder.ask(gate)
        assert gate.entered.wait(DEADLINE)

        other = forwarder.ask(3)
        gate.opened.set()

        assert held.get(DEADLINE) == "held"
        assert other.get(DEADLINE) == 6

    def test_cancelling_it_cancels_what_it_stands_for(
        self, node: Node, worker: Ref, gate: Gate
    ) -> None:
        worker.tell(gate)
        forwarder = node.spawn(Forwarder, worker)
        reply = forwarder.ask(3)
        forwarder.ask(None).get(DEADLINE)

        reply.cancel()
        gate.opened.set()
        node.drain(DEADLINE)

        [ending] = [one for one in node.history.list(agent="worker") if one.type == "int"]
        assert ending.reason == Reason.CANCELLED


class TestGathered:
    def test_all_replies_come_as_one_list_in_the_order_they_were_asked(self, node: Node) -> None:
        for number in range(5):
            node.spawn(Worker, name=f"w{number}")

        assert node.all("work").ask(3).get(DEADLINE) == [6] * 5

    def test_errors_are_in_the_list(self, node: Node, worker: Ref) -> None:
        class Picky(Worker):
            @handles
            def double(self, number: int) -> int:
                raise Reject("not me")

        node.spawn(Picky, name="picky")

        value, error = node.all("work").ask(3).get(DEADLINE)

        assert value == 6
        assert isinstance(error, Rejected)
        assert error.agent == "picky"

    def test_one_that_does_not_answer_is_an_error_at_the_deadline(
        self, node: Node, worker: Ref, gate: Gate
    ) -> None:
        node.spawn(Worker, name="free")
        worker.tell(gate)
        assert gate.entered.wait(DEADLINE)

        reply = node.all("work").ask(3, timeout=0.05)
        late, value = reply.get(DEADLINE)

        assert isinstance(late, AskTimeout)
        assert value == 6

    async def test_they_are_awaited_together(self) -> None:
        async with Node() as node:
            for _ in range(3):
                node.spawn(Worker)

            assert await node.all("work").ask(1) == [2, 2, 2]

    def test_cancelling_it_cancels_each(self, node: Node, worker: Ref, gate: Gate) -> None:
        worker.tell(gate)
        reply = node.all("work").ask(3)

        reply.cancel()
        gate.opened.set()
        node.drain(DEADLINE)

        with pytest.raises(Cancelled):
            reply.get()
        [ending] = node.history.list(type="int")
        assert ending.reason == Reason.CANCELLED

    def test_nobody_to_ask_is_an_error(self, node: Node) -> None:
        with pytest.raises(NoProvider):
            node.all("work").ask(3).get(DEADLINE)
