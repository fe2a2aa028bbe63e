"""Where agents run: a pool that grows while handlers wait, a thread of their own, the loop."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from actorbus import (
    Agent,
    AgentStopped,
    DeadlockDetected,
    Node,
    NotStopped,
    PoolExhausted,
    Ref,
    Settings,
    handles,
)
from actorbus.actors.dispatchers.loop import LoopDispatcher
from actorbus.telemetry import Event, PoolResized, SlowHandler

DEADLINE = 10.0


class Crowd:
    """Counts those who have come in, and holds them until the last one has."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size + 1)
        self.entered = threading.Event()

    def enter(self) -> None:
        self.entered.set()
        self.meet()

    def meet(self) -> None:
        self.barrier.wait(DEADLINE)


class Waiter(Agent):
    @handles
    def wait(self, crowd: Crowd) -> str:
        crowd.enter()
        return self.name

    @handles
    def wait_by(self, to: Ref) -> Any:
        return to.ask("word").get()

    @handles
    def where(self, _: str) -> str:
        return threading.current_thread().name


class Order:
    """Who came when."""

    def __init__(self) -> None:
        self.came: list[str] = []


class Orderly(Agent):
    def __init__(self, order: Order) -> None:
        self._order = order

    @handles
    def wait(self, crowd: Crowd) -> None:
        crowd.enter()

    @handles
    def come(self, name: str) -> None:
        self._order.came.append(name)


class OnThread(Waiter):
    dispatcher = "thread"


class TestPool:
    def test_handlers_that_block_do_not_keep_others_from_starting(self, node: Node) -> None:
        crowd = Crowd(50)
        agents = [node.spawn(Waiter) for _ in range(50)]

        replies = [agent.ask(crowd) for agent in agents]
        crowd.meet()

        assert [reply.get(DEADLINE) for reply in replies] == [agent.name for agent in agents]

    def test_a_handler_that_waits_for_a_reply_leaves_its_thread_to_others_at_once(self) -> None:
        # No growing by time: only what waits says so.
        with Node(settings=Settings(pool_core=1, pool_grow_after=3_600)) as node:
            last = node.spawn(Waiter)
            for _ in range(20):
                before = last
                last = node.spawn(_asking(before))

            assert last.ask("word").get(DEADLINE).startswith("actorbus-worker")

    def test_an_agent_with_much_to_do_lets_another_go_first_after_its_share(self) -> None:
        settings = Settings(pool_core=1, pool_threads=1, turn_messages=8)
        with Node(settings=settings) as node:
            crowd, order = Crowd(1), Order()
            busy, other = node.spawn(Orderly, order), node.spawn(Orderly, order)
            busy.tell(crowd)
            crowd.entered.wait(DEADLINE)
            for _ in range(100):
                busy.tell(busy.name)
            other.tell(other.name)

            crowd.meet()
            node.drain(DEADLINE)

        assert len(order.came) == 101
        assert order.came.index(other.name) <= 8

    def test_a_pool_that_grows_late_stops_at_once(self) -> None:
        node = Node(settings=Settings(pool_grow_after=3_600))
        node.start()
        node.spawn(Waiter).ask("word").get(DEADLINE)

        node.stop(timeout=DEADLINE)

        assert not any(thread.name == "actorbus-pool-monitor" for thread in threading.enumerate())

    def test_at_the_cap_a_wait_that_leaves_no_thread_is_refused(self) -> None:
        with Node(settings=Settings(pool_core=1, pool_threads=1)) as node:
            worker, waiter = node.spawn(Waiter), node.spawn(Waiter)

            with pytest.raises(Exception, match="all 1 threads of the pool are waiting") as raised:
                waiter.ask(worker).get(DEADLINE)

            assert isinstance(raised.value.__cause__, PoolExhausted)
            assert raised.value.__cause__.threads == 1
            assert worker.ask("word").get(DEADLINE).startswith("actorbus-worker")

    def test_the_pool_never_has_more_threads_than_it_may(self) -> None:
        events: list[PoolResized] = []

        def listen(event: Event) -> None:
            if isinstance(event, PoolResized):
                events.append(event)

        with Node(settings=Settings(pool_threads=4)) as node:
            node.telemetry.listen(listen)
            crowd = Crowd(4)
            replies = [node.spawn(Waiter).ask(crowd) for _ in range(4)]
            crowd.meet()
            for reply in replies:
                reply.get(DEADLINE)

        assert max(event.threads for event in events) == 4

    def test_threads_that_are_idle_for_long_end(self) -> None:
        shrunk = threading.Event()
        sizes = [0]

        def listen(event: Event) -> None:
            if isinstance(event, PoolResized):
                if event.threads < max(sizes):
                    shrunk.set()
                sizes.append(event.threads)

        with Node(settings=Settings(pool_core=1, pool_shrink_after=0.02)) as node:
            node.telemetry.listen(listen)
            crowd = Crowd(8)
            replies = [node.spawn(Waiter).ask(crowd) for _ in range(8)]
            crowd.meet()
            for reply in replies:
                reply.get(DEADLINE)

            assert shrunk.wait(DEADLINE)
            assert node.spawn(Waiter).ask("word").get(DEADLINE)

    def test_an_agent_handles_one_message_at_a_time(self, node: Node) -> None:
        class Careful(Agent):
            def __init__(self) -> None:
                self.inside = threading.Lock()
                self.seen: list[int] = []

            @handles
            def enter(self, number: int) -> None:
                assert self.inside.acquire(blocking=False)
                self.seen.append(number)
                self.inside.release()

            @handles
            def report(self, _: str) -> list[int]:
                return self.seen

        ref = node.spawn(Careful)

        def send() -> None:
            for number in range(200):
                ref.tell(number)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)

        seen = ref.ask("all").get(DEADLINE)

        assert sorted(seen) == sorted([*range(200)] * 4)
        assert len(node.dead_letters) == 0

    def test_a_handler_that_takes_long_is_reported(self) -> None:
        told = threading.Event()
        slow: list[SlowHandler] = []

        def listen(event: Event) -> None:
            if isinstance(event, SlowHandler):
                slow.append(event)
                told.set()

        class Slow(Agent):
            @handles
            def work(self, _: str) -> bool:
                return told.wait(DEADLINE)

        with Node(settings=Settings(slow_handler=0.02, log_level="off")) as node:
            node.telemetry.listen(listen)

            assert node.spawn(Slow, name="slow").ask("work").get(DEADLINE)

        assert [event.agent for event in slow] == ["slow"]
        assert slow[0].seconds >= 0.02

    def test_a_handler_that_does_not_return_is_left_behind_and_named(self) -> None:
        node = Node(settings=Settings(log_level="off")).start()
        crowd = Crowd(1)
        reply = node.spawn(Waiter, name="stuck").ask(crowd)
        assert crowd.entered.wait(DEADLINE)

        with pytest.raises(NotStopped, match="stuck") as raised:
            node.stop(timeout=0.05)
        with pytest.raises(Exception, match="left behind"):
            reply.get(DEADLINE)
        crowd.meet()

        assert raised.value.names == ("stuck",)


def _asking(other: Ref) -> type[Agent]:
    class Asking(Agent):
        @handles
        def pass_on(self, word: str) -> Any:
            return other.ask(word).get()

    return Asking


class TestThread:
    def test_an_agent_keeps_its_own_thread(self, node: Node) -> None:
        first, second = node.spawn(OnThread), node.spawn(OnThread)

        names = {first.ask("word").get(DEADLINE) for _ in range(20)}

        assert names == {f"actorbus-{first.name}"}
        assert second.ask("word").get(DEADLINE) == f"actorbus-{second.name}"

    def test_its_hooks_run_there_too(self, node: Node) -> None:
        where: list[str] = []
        ended = threading.Event()

        class Hooked(OnThread):
            def on_start(self) -> None:
                where.append(threading.current_thread().name)

            def on_stop(self) -> None:
                where.append(threading.current_thread().name)
                ended.set()

        node.spawn(Hooked, name="hooked").stop()

        assert ended.wait(DEADLINE)
        assert where == ["actorbus-hooked", "actorbus-hooked"]

    def test_its_thread_ends_with_it(self, node: Node) -> None:
        ref = node.spawn(OnThread, name="brief")
        ref.ask("word").get(DEADLINE)
        [thread] = [one for one in threading.enumerate() if one.name == "actorbus-brief"]

        ref.stop()
        thread.join(DEADLINE)

        assert not thread.is_alive()

    def test_it_may_wait_for_agents_of_the_pool(self, node: Node) -> None:
        waiter, worker = node.spawn(OnThread), node.spawn(Waiter)

        assert waiter.ask(worker).get(DEADLINE).startswith("actorbus-worker")


class Async(Agent):
    """Remembers on which loops and threads it ran."""

    @handles
    async def where(self, _: str) -> tuple[int, str]:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop()), threading.current_thread().name


class TestLoop:
    def test_agents_of_a_node_share_one_loop_on_one_thread(self, node: Node) -> None:
        agents = [node.spawn(Async) for _ in range(10)]

        found = {agent.ask("word").get(DEADLINE) for agent in agents}

        assert len(found) == 1
        assert next(iter(found))[1] == "actorbus-loop"

    async def test_in_async_with_they_run_on_the_loop_that_entered_it(self) -> None:
        async with Node() as node:
            loop, thread = await node.spawn(Async).ask("word")

        assert loop == id(asyncio.get_running_loop())
        assert thread == threading.current_thread().name

    async def test_handlers_that_wait_for_each_other_wait_without_a_thread(self) -> None:
        async with Node() as node:
            gathering = asyncio.Barrier(101)

            class Guest(Agent):
                @handles
                async def come(self, number: int) -> int:
                    await gathering.wait()
                    return number

            before = threading.active_count()
            replies = [node.spawn(Guest).ask(number) for number in range(100)]
            await asyncio.wait_for(gathering.wait(), DEADLINE)
            after = threading.active_count()

            assert await asyncio.gather(*replies) == list(range(100))
            assert after == before

    async def test_one_at_a_time_is_in_order(self) -> None:
        async with Node() as node:
            seen: list[tuple[str, int]] = []

            class Steady(Agent):
                @handles
                async def work(self, number: int) -> None:
                    seen.append(("in", number))
                    await asyncio.sleep(0)
                    seen.append(("out", number))

            ref = node.spawn(Steady)
            await asyncio.gather(*(ref.ask(number) for number in range(5)))

        assert seen == [(word, number) for number in range(5) for word in ("in", "out")]

    async def test_concurrency_is_how_many_are_at_work_at_most(self) -> None:
        async with Node() as node:
            at_work: list[int] = [0]
            most: list[int] = []

            class Busy(Agent):
                concurrency = 3

                @handles
                async def work(self, number: int) -> int:
                    at_work[0] += 1
                    most.append(at_work[0])
                    for _ in range(3):
                        await asyncio.sleep(0)
                    at_work[0] -= 1
                    return number

            ref = node.spawn(Busy)
            replies = await asyncio.gather(*(ref.ask(number) for number in range(20)))

        assert replies == list(range(20))
        assert max(most) == 3

    async def test_each_of_several_has_its_own_message_in_hand(self) -> None:
        async with Node() as node:
            both = asyncio.Barrier(2)

            class Two(Agent):
                concurrency = 2

                @handles
                async def work(self, number: int) -> Any:
                    await both.wait()
                    return self.message.payload, await self.ask("echo", number)

            def echo(number: int) -> int:
                return number

            node.spawn(echo, name="echo")
            ref = node.spawn(Two)

            replies = await asyncio.gather(ref.ask(1), ref.ask(2))

            assert list(replies) == [(1, 1), (2, 2)]

    async def test_several_may_wait_for_their_own_agent(self) -> None:
        async with Node() as node:

            class Two(Agent):
                concurrency = 2

                @handles
                async def work(self, number: int) -> Any:
                    return await self.ask(self.ref, number - 1) if number else "done"

            assert await node.spawn(Two).ask(1) == "done"

    async def test_one_that_waits_for_its_own_agent_is_told(self) -> None:
        async with Node() as node:

            class One(Agent):
                @handles
                async def work(self, number: int) -> Any:
                    with pytest.raises(DeadlockDetected, match="one -> one"):
                        await self.ask(self.ref, number)
                    return "told"

            assert await node.spawn(One, name="one").ask(1) == "told"

    async def test_plain_handlers_of_an_async_agent_run_on_the_loop_too(self) -> None:
        class Mixed(Async):
            @handles
            def plain(self, number: int) -> str:
                return threading.current_thread().name

        async with Node() as node:
            assert await node.spawn(Mixed).ask(1) == threading.current_thread().name

    async def test_async_hooks_are_awaited(self) -> None:
        calls: list[str] = []

        class Hooked(Agent):
            async def on_start(self) -> None:  # type: ignore[override]
                await asyncio.sleep(0)
                calls.append("start")

            @handles
            async def work(self, _: str) -> None:
                calls.append("work")

            async def on_stop(self) -> None:  # type: ignore[override]
                await asyncio.sleep(0)
                calls.append("stop")

        async with Node() as node:
            await node.spawn(Hooked).ask("word")

        assert calls == ["start", "work", "stop"]

    def test_async_with_works_too_on_a_loop_that_uses_resources_of_its_own(self) -> None:
        """``async with`` inside a handler opens and closes around its awaits."""
        log: list[str] = []

        class Session:
            async def __aenter__(self) -> Session:
                log.append("open")
                return self

            async def __aexit__(self, *_: object) -> None:
                await asyncio.sleep(0)
                log.append("close")

        class User(Agent):
            @handles
            async def use(self, _: str) -> None:
                async with Session():
                    await asyncio.sleep(0)
                    log.append("use")

        with Node() as node:
            node.spawn(User).ask("word").get(DEADLINE)

        assert log == ["open", "use", "close"]


class Pair(Agent):
    """Asks the other one of a pair, and says what happened."""

    def __init__(self, other: Ref | None = None) -> None:
        super().__init__()
        self.other = other

    @handles
    async def answer(self, number: int) -> int:
        return number + 1


class TestLentTurns:
    """A turn that begins while another agent's handler waits, without a round of the loop."""

    async def test_agents_that_ask_each_other_need_no_round_of_the_loop(self) -> None:
        class Asker(Pair):
            @handles
            async def work(self, _: str) -> list[str]:
                assert self.other is not None
                # The first ask finds no runner that is idle.
                await self.other.ask(0)
                await asyncio.sleep(0)
                rounds: list[str] = []
                asyncio.get_running_loop().call_soon(rounds.append, "round")
                for number in range(5):
                    assert await self.other.ask(number) == number + 1
                return list(rounds)

        async with Node() as node:
            asker = node.spawn(Asker, node.spawn(Pair))

            assert await asker.ask("word", timeout=DEADLINE) == []

    async def test_agents_that_ask_each_other_without_end_leave_the_loop_its_rounds(self) -> None:
        over = False

        class Asker(Pair):
            @handles
            async def work(self, _: str) -> int:
                assert self.other is not None
                asked = 0
                while not over:
                    await self.other.ask(asked)
                    asked += 1
                return asked

        async with Node() as node:
            reply = node.spawn(Asker, node.spawn(Pair)).ask("word", timeout=DEADLINE)
            for _ in range(20):
                await asyncio.sleep(0)
            over = True

            assert await reply > 20

    async def test_each_turn_has_a_task_and_a_context_of_its_own(self) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        tasks: list[asyncio.Task[Any] | None] = []

        class Other(Agent):
            @handles
            async def answer(self, _: int) -> str:
                tasks.append(asyncio.current_task())
                found = variable.get()
                variable.set("other")
                return found

        class Asker(Pair):
            @handles
            async def work(self, _: str) -> tuple[list[str], str]:
                assert self.other is not None
                await self.other.ask(0)
                variable.set("asker")
                found = [await self.other.ask(number) for number in range(3)]
                tasks.append(asyncio.current_task())
                return found, variable.get()

        async with Node() as node:
            found, after = await node.spawn(Asker, node.spawn(Other)).ask("word", timeout=DEADLINE)

        assert "asker" not in found
        assert after == "asker"
        assert tasks[-1] is not None
        assert tasks[-1] not in tasks[:-1]

    async def test_one_that_begins_so_and_waits_goes_on_in_the_task_it_began_in(self) -> None:
        tasks: list[asyncio.Task[Any] | None] = []

        class Slow(Agent):
            @handles
            async def answer(self, number: int) -> str:
                tasks.append(asyncio.current_task())
                try:
                    async with asyncio.timeout(0):
                        await asyncio.sleep(DEADLINE)
                except TimeoutError:
                    tasks.append(asyncio.current_task())
                    return "timed out"
                return "never"

        class Asker(Pair):
            @handles
            async def work(self, _: str) -> list[str]:
                assert self.other is not None
                return [await self.other.ask(number) for number in range(3)]

        async with Node() as node:
            asker = node.spawn(Asker, node.spawn(Slow))

            assert await asker.ask("word", timeout=DEADLINE) == ["timed out"] * 3
            assert tasks[0::2] == tasks[1::2]

    async def test_one_whose_task_is_cancelled_before_it_goes_on_is_told(self) -> None:
        begun: list[asyncio.Task[Any] | None] = []

        class Slow(Agent):
            @handles
            async def answer(self, number: int) -> str:
                if number == 0:
                    return "ready"
                begun.append(asyncio.current_task())
                try:
                    await asyncio.sleep(DEADLINE)
                except asyncio.CancelledError:
                    return "cancelled"
                return "slept"

        class Quick(Agent):
            @handles
            async def answer(self, number: int) -> int:
                return number

        async with Node() as node:
            slow, quick = node.spawn(Slow), node.spawn(Quick)

            class Asker(Agent):
                @handles
                async def work(self, _: str) -> Any:
                    # Three runners: this one's, and two that are idle by then.
                    await asyncio.gather(slow.ask(0), quick.ask(0))
                    reply = slow.ask(1)
                    await quick.ask(2)
                    task = begun[0]
                    assert task is not None
                    task.cancel()
                    return await reply

            assert await node.spawn(Asker).ask("word", timeout=DEADLINE) == "cancelled"

    async def test_a_hook_that_waits_leaves_the_loop_to_others(self) -> None:
        class Late(Pair):
            async def on_start(self) -> None:  # type: ignore[override]
                await asyncio.sleep(0)
                assert self.other is not None
                self.found: int = await self.other.ask(1)

            @handles
            async def work(self, _: str) -> int:
                return self.found

        async with Node() as node:
            assert await node.spawn(Late, node.spawn(Pair)).ask("word", timeout=DEADLINE) == 2

    async def test_several_at_a_time_leave_the_run_queue_to_others_too(self) -> None:
        class Many(Pair):
            concurrency = 4

            @handles
            async def work(self, text: str) -> list[int]:
                assert self.other is not None
                return [await self.other.ask(number) for number in range(len(text))]

        async with Node() as node:
            many = node.spawn(Many, node.spawn(Pair))
            replies = [many.ask("four", timeout=DEADLINE) for _ in range(10)]

            assert await asyncio.gather(*replies) == [[1, 2, 3, 4]] * 10

    async def test_a_turn_that_breaks_ends_its_agent_alone(self) -> None:
        class Breaking(Agent):
            @handles
            async def answer(self, number: int) -> int:
                return number

        class Asker(Pair):
            @handles
            async def work(self, _: str) -> str:
                assert self.other is not None
                await self.other.ask(0)
                cell = self.other._cell
                assert cell is not None
                # A fault of ours, in the middle of the turn.
                cell.table = None  # type: ignore[assignment]
                with pytest.raises(AgentStopped):
                    await self.other.ask(1)
                return "alive"

        async with Node() as node:
            asker = node.spawn(Asker, node.spawn(Breaking))

            assert await asker.ask("word", timeout=DEADLINE) == "alive"


def test_a_loop_thread_whose_place_was_taken_ends_by_itself() -> None:
    dispatcher = LoopDispatcher()
    dispatcher._running_loop()
    late = asyncio.new_event_loop()

    dispatcher._run(late)

    assert late.is_closed()
    assert dispatcher.close(10) == []
