"""Ctrl-C in the middle of a send: the send may fail, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from actorbus import Agent, MailboxPolicy, Settings, handles
from actorbus.node import Node
from tests.hearing import hears_itself
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from actorbus import Message, Reply
    from actorbus.bus.mailbox import Overflow

SOON: Final = 10.0


class Echo(Agent):
    @handles
    def echo(self, number: int) -> int:
        return number


class AsyncEcho(Agent):
    @handles
    async def echo(self, number: int) -> int:
        return number


class Holder(Agent):
    """Keeps the thread it is given, so that others have to be woken."""

    def __init__(self, begun: threading.Event, release: threading.Event) -> None:
        self.begun = begun
        self.release = release

    @handles
    def hold(self, _: int) -> None:
        self.begun.set()
        assert self.release.wait(SOON)


class InterruptAt:
    """Raises KeyboardInterrupt at the nth moment when Python would look for a signal.

    Those are the start of each Python function and the return of each C function.
    """

    def __init__(self, moment: int) -> None:
        self._left = moment
        self.happened = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if frame.f_code.co_name == "__del__":
            return  # Python swallows what is raised there
        if event in ("call", "c_return") and "actorbus" in frame.f_code.co_filename:
            self._left -= 1
            if self._left == 0:
                self.happened = True
                sys.setprofile(None)
                raise KeyboardInterrupt

    def run(self, function: Callable[[], object]) -> bool:
        """Whether the moment came before the function had returned."""
        try:
            sys.setprofile(self)
            function()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        return self.happened


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("agent", [Echo, AsyncEcho])
def test_an_agent_goes_on_wherever_a_send_to_it_was_interrupted(
    agent: type[Agent], held: bool
) -> None:
    with Node(settings=Settings(log_level="off", pool_core=4)) as node:
        begun, release = threading.Event(), threading.Event()
        if held:
            node.spawn(Holder, begun, release).tell(1)
            assert begun.wait(SOON)
            # Long enough that senders see the leader as held.
            threading.Event().wait(0.002)
        moment = 0
        while True:
            moment += 1
            ref = node.spawn(agent)
            interrupted = InterruptAt(moment).run(lambda ref=ref: ref.tell(1))  # type: ignore[misc]

            assert ref.ask(moment).get(SOON) == moment

            if not interrupted:
                break
        release.set()
    assert moment > 10


@pytest.mark.parametrize("agent", [Echo, AsyncEcho])
def test_an_agent_goes_on_wherever_an_ask_of_it_was_interrupted(
    agent: type[Agent], node: Node
) -> None:
    ref = node.spawn(agent)
    kept: list[Reply[int]] = []
    moment, interrupted = 0, True
    while interrupted:
        moment += 1
        interrupted = InterruptAt(moment).run(lambda: kept.append(ref.ask(1)))

        assert ref.ask(moment).get(SOON) == moment
    assert moment > 10


@pytest.mark.parametrize("agent", [Echo, AsyncEcho])
def test_a_node_stops_wherever_its_last_send_was_interrupted(agent: type[Agent]) -> None:
    moment, interrupted = 0, True
    while interrupted:
        moment += 1
        node = Node(settings=Settings(log_level="off")).start()
        ref = node.spawn(agent)

        interrupted = InterruptAt(moment).run(lambda ref=ref: ref.tell(1))  # type: ignore[misc]

        node.stop(timeout=SOON)
    assert moment > 10


@pytest.mark.parametrize("overflow", ["block", "reject", "drop-newest"])
def test_every_message_is_taken_once_wherever_a_take_was_interrupted(
    node: Node, overflow: Overflow
) -> None:
    sent = [1, 2, 3]
    with node.mailbox("results", MailboxPolicy(capacity=len(sent), overflow=overflow)) as results:
        moment, interrupted = 0, True
        while interrupted:
            moment += 1
            for number in sent:
                # Each time there is room: what an interrupt put back is counted once.
                node.tell("results", number)
            taken: list[Message[Any]] = []

            interrupted = InterruptAt(moment).run(lambda: taken.extend(results.take(2)))  # noqa: B023
            while more := results.take(2):
                taken.extend(more)

            assert [message.payload for message in taken] == sent
    assert moment > 10
    assert not node.dead_letters.list()


CTRL_C: Final = """
    import signal, sys, threading, time
    from actorbus import Agent, Node, Settings, handles

    class Counter(Agent):
        counted = 0
        @handles
        def count(self, number: int) -> int:
            return number

    class AsyncCounter(Agent):
        @handles
        async def count(self, number: int) -> int:
            return number

    # What is started in the background of a shell ignores Ctrl-C otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident
    with Node(settings=Settings(log_level="off")) as node:
        agents = [node.spawn(cls) for cls in (Counter, AsyncCounter) for _ in range(2)]
        for round in range(50):
            timer = threading.Timer(0.002 + round % 7 * 0.0007, signal.pthread_kill,
                                    (main, signal.SIGINT))
            try:
                timer.start()
                while True:
                    for ref in agents:
                        ref.tell(round)
            except KeyboardInterrupt:
                pass
            for ref in agents:
                assert ref.ask(round).get(10) == round
    stopping = time.monotonic()
    node = Node(settings=Settings(log_level="off", stop_timeout=10)).start()
    ref = node.spawn(Counter)
    try:
        with node:
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
            while True:
                ref.tell(1)
    except KeyboardInterrupt:
        assert time.monotonic() - stopping < 10
    assert not [one for one in threading.enumerate() if one.name.startswith("actorbus")]
    print("done")
"""


def test_fifty_interrupts_in_a_loop_of_sends_leave_no_agent_wedged() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CTRL_C)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


NEVER_CLOSED: Final = """
    import threading
    from actorbus import Agent, Node, Settings, handles

    class Stuck(Agent):
        @handles
        def work(self, number: int) -> None:
            threading.Event().wait()

    class AsyncStuck(Agent):
        @handles
        async def work(self, number: int) -> None:
            import asyncio
            await asyncio.Event().wait()

    node = Node(settings=Settings(log_level="off")).start()
    for cls in (Stuck, AsyncStuck):
        for _ in range(3):
            node.spawn(cls).tell(1)
    node.spawn(Stuck).ask(1).cancel()
    print("left")
"""


def test_an_interpreter_leaves_a_node_that_nobody_stopped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NEVER_CLOSED)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("left\n", "", 0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_wait_and_not_the_ask(node: Node) -> None:
    begun, release = threading.Event(), threading.Event()
    reply = node.spawn(Holder, begun, release).ask(1)
    assert begun.wait(SOON)
    main = threading.main_thread().ident
    assert main is not None

    def wait_and_be_interrupted() -> None:
        threading.Timer(0.02, signal.pthread_kill, (main, signal.SIGINT)).start()
        reply.get()

    with pytest.raises(KeyboardInterrupt):
        wait_and_be_interrupted()
    release.set()

    assert reply.get(SOON) is None


def test_no_answer_of_another_node_is_lost_wherever_waiting_for_it_was_interrupted(
    redis_url: str,
) -> None:
    """Who waits hears answers itself, those to others as well, until it is interrupted."""
    settings = Settings(log_level="off", namespace=uuid4().hex)
    with (
        Node(redis_url, name="asks", settings=settings) as asks,
        Node(redis_url, name="answers", settings=settings) as answers,
    ):
        answers.spawn(Echo, name="echo")
        ref = asks.ref("echo")
        for more, step in ((0, 1), (2, 3)):
            moment = missed = 0
            while missed < 5:  # an answer that is there before it is waited for has few moments
                moment += 0 if missed else step
                until(
                    lambda: hears_itself(lambda: ref.ask(0)), "whoever asks hears no answer itself"
                )
                replies = [ref.ask(nth) for nth in range(1 + more)]

                interrupted = InterruptAt(moment).run(partial(replies[-1].get, SOON))

                missed = 0 if interrupted else missed + 1
                assert [reply.get(SOON) for reply in replies] == list(range(1 + more))
            assert more or moment > 50
