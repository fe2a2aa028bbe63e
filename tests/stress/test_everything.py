"""All one can do to agents, at once: each message ends once, in order; no thread is left."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import (
    ActorbusError,
    Agent,
    Cancelled,
    MailboxPolicy,
    Node,
    Priority,
    Settings,
    Supervision,
    Terminated,
    UnknownRecipient,
    handles,
)
from actorbus.message import MessageKind
from actorbus.telemetry import DeadLettered, Event, MessageEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Ref, Reply

SENDERS: Final = 8
SEED: Final = 0
PRIORITIES: Final = tuple(Priority)
LONG: Final = 300.0


class Job:
    """One message, by number: who sent it, and as which one to that recipient."""

    __slots__ = ("id", "position", "priority", "sender")

    def __init__(self, id: int, sender: int, position: int, priority: Priority) -> None:
        self.id = id
        self.sender = sender
        self.position = position
        self.priority = priority


class Called:
    """A broadcast, by number."""

    __slots__ = ("id",)

    def __init__(self, id: int) -> None:
        self.id = id


class Ledger:
    """What became of every message. Lists are only appended to, from any thread."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.raised: list[int] = []
        self.asked: list[tuple[int, Reply[Any]]] = []
        self.handled: list[int] = []
        self.dead: list[int] = []
        self.called: list[tuple[int, int]] = []
        self.heard: list[int] = []
        self.unheard: list[int] = []
        self.disorder: list[str] = []
        self.ended: list[int] = []
        self.watched: list[str] = []
        self.terminated: list[str] = []
        self._last: dict[tuple[str, int, Priority], int] = {}

    def note(self, event: Event) -> None:
        """What telemetry says."""
        if isinstance(event, DeadLettered):
            if isinstance(event.message.payload, Job):
                self.dead.append(event.message.payload.id)
            elif isinstance(event.message.payload, Called):
                self.unheard.append(event.message.payload.id)
        elif isinstance(event, MessageEnded) and event.message.kind is not MessageKind.REPLY:
            payload = event.message.payload
            if isinstance(payload, Job):
                self.ended.append(payload.id)

    def in_order(self, recipient: str, job: Job) -> None:
        key = (recipient, job.sender, job.priority)
        last = self._last.get(key, -1)
        if job.position <= last:
            self.disorder.append(f"{recipient} got {job.position} of {job.sender} after {last}")
        self._last[key] = job.position

    def balance(self, *, watched: bool) -> None:
        """Every account is even."""
        assert self.disorder == []
        handled, dead, raised = Counter(self.handled), Counter(self.dead), Counter(self.raised)
        for job in self.told:
            ends = handled[job] + dead[job] + raised[job]
            assert ends == 1, f"job {job}: {handled[job]}, {dead[job]}, {raised[job]}"
        for job, reply in self.asked:
            assert reply.done(), f"the ask of job {job} was never settled"
            _, error = reply.outcome()
            assert handled[job] <= 1
            assert not dead[job]
            assert handled[job] == 1 or error is not None, f"job {job} was answered by nobody"
            if isinstance(error, Cancelled):
                continue
            assert handled[job] == (error is None), f"job {job} was handled and failed: {error!r}"
        heard, unheard = Counter(self.heard), Counter(self.unheard)
        for call, copies in self.called:
            assert heard[call] + unheard[call] == copies
        assert Counter(self.terminated) == Counter(self.watched)
        if watched:
            ended = Counter(self.ended)
            sent = [*self.told, *(job for job, _ in self.asked)]
            assert [job for job in sent if ended[job] != 1] == []


class Recipient(Agent):
    """Enters in the ledger what it handled."""

    mailbox = MailboxPolicy(capacity=500)
    ordered = True

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @handles
    def hear(self, call: Called) -> None:
        self.ledger.heard.append(call.id)

    def enter(self, job: Job) -> int:
        if self.ordered:
            self.ledger.in_order(self.name, job)
        self.ledger.handled.append(job.id)
        return job.id


class Plain(Recipient):
    capabilities = ("work",)

    @handles
    def work(self, job: Job) -> int:
        return self.enter(job)


class OnThread(Plain):
    dispatcher = "thread"


class Async(Recipient):
    capabilities = ("work",)

    @handles
    async def work(self, job: Job) -> int:
        if job.id % 5 == 0:
            await asyncio.sleep(0)
        return self.enter(job)


class Several(Async):
    concurrency = 8
    ordered = False


class Relay(Recipient):
    """Waits for another agent before it is done."""

    @handles
    def work(self, job: Job) -> int:
        assert self.ask("leaf", job.id).get() == job.id
        return self.enter(job)


class AsyncRelay(Recipient):
    concurrency = 4
    ordered = False

    @handles
    async def work(self, job: Job) -> int:
        assert await self.ask("leaf", job.id) == job.id
        return self.enter(job)


class Leaf(Recipient):
    @handles
    def work(self, number: int) -> int:
        return number


class Resumes(Recipient):
    supervision = Supervision(on_failure="resume")

    @handles
    def work(self, job: Job) -> int:
        if job.id % 7 == 0:
            raise ValueError(job.id)
        return self.enter(job)


class Restarts(Resumes):
    supervision = Supervision(
        max_restarts=1_000_000, within=0.001, backoff=1e-6, backoff_limit=1e-4
    )


class Parks(Resumes):
    supervision = Supervision(max_restarts=2, within=1000.0, backoff=1e-6, backoff_limit=1e-4)


class AsyncRestarts(Recipient):
    supervision = Restarts.supervision

    @handles
    async def work(self, job: Job) -> int:
        if job.id % 7 == 0:
            raise ValueError(job.id)
        return self.enter(job)


class SeveralRestart(AsyncRestarts):
    concurrency = 4
    ordered = False


class Crashes(Recipient):
    """Raises what should end a thread."""

    supervision = Restarts.supervision

    @handles
    def work(self, job: Job) -> int:
        if job.id % 11 == 0:
            raise (SystemExit, KeyboardInterrupt, MemoryError, RecursionError)[job.id % 4]
        return self.enter(job)


class Retries(Recipient):
    supervision = Supervision(retries=1, backoff=1e-6, backoff_limit=1e-5)

    @handles
    def work(self, job: Job) -> int:
        if job.id % 13 == 0 and self.message.attempt == 1:
            raise ValueError(job.id)
        return self.enter(job)


class Watcher(Recipient):
    mailbox = MailboxPolicy(capacity=100_000)

    @handles
    def look(self, name: str) -> None:
        self.watch(name)

    @handles
    def note(self, ended: Terminated) -> None:
        self.ledger.terminated.append(ended.name)


STANDING: Final[tuple[type[Recipient], ...]] = (
    *(Plain, Plain, Async, Async, Several, OnThread, Relay, AsyncRelay),
    *(Resumes, Restarts, Parks, AsyncRestarts, SeveralRestart, Crashes, Retries),
)


class Sender:
    """One of the threads: a random mix of all that one can do to agents."""

    def __init__(self, node: Node, ledger: Ledger, number: int, refs: list[Ref]) -> None:
        self._node = node
        self._ledger = ledger
        self._number = number
        self._refs = refs
        self._choice = random.Random(SEED + number)
        self._positions: Counter[tuple[str, Priority]] = Counter()
        self._lasting: list[Ref] = []

    def send(self, count: int) -> None:
        first = self._number * count
        for number in range(first, first + count):
            lot = self._choice.random()
            if lot < 0.002:
                self._call(number)
            elif lot < 0.02:
                self._tell(self._newcomer(number), number)
            elif lot < 0.04 and self._lasting:
                self._choice.choice(self._lasting).stop(drain=lot < 0.03)
                self._tell(self._choice.choice(self._lasting), number)
            elif lot < 0.7:
                self._tell(self._choice.choice(self._refs), number)
            elif lot < 0.75:
                self._tell_any(number)
            else:
                self._ask(self._choice.choice(self._refs), number, cancel=lot > 0.95)

    def _job(self, name: str, id: int) -> Job:
        priority = PRIORITIES[id % 4] if id % 3 == 0 else Priority.NORMAL
        position = self._positions[name, priority] = self._positions[name, priority] + 1
        return Job(id, self._number, position, priority)

    def _tell(self, ref: Ref, id: int) -> None:
        job = self._job(ref.name, id)
        self._ledger.told.append(id)
        try:
            ref.tell(job, priority=job.priority)
        except ActorbusError:
            self._ledger.raised.append(id)

    def _tell_any(self, id: int) -> None:
        # Whoever gets it gets no other of this sender, as far as order goes.
        job = Job(id, self._number + SENDERS * (id + 1), 1, Priority.NORMAL)
        self._ledger.told.append(id)
        try:
            self._node.any("work").tell(job)
        except ActorbusError:
            self._ledger.raised.append(id)

    def _ask(self, ref: Ref, id: int, *, cancel: bool) -> None:
        job = self._job(ref.name, id)
        reply = ref.ask(job, timeout=LONG, priority=job.priority)
        self._ledger.asked.append((id, reply))
        if cancel:
            reply.cancel()

    def _call(self, id: int) -> None:
        self._ledger.called.append((id, self._node.broadcast(Called(id))))

    def _newcomer(self, id: int) -> Ref:
        kind = self._choice.choice((Plain, Async, Several))
        ref = self._node.spawn(kind, self._ledger, name=f"newcomer-{id}")
        if id % 3 == 0:
            self._ledger.watched.append(ref.name)
            self._node.tell("watcher", ref.name)
        self._lasting = [*self._lasting[-20:], ref]
        return ref


def unpark_all(node: Node) -> None:
    for cell in list(node._runtime.cells.values()):
        if cell.parked:
            try:
                node.unpark(cell.name)
            except UnknownRecipient:
                # It went on meanwhile.
                continue


def keep_unparking(node: Node, done: threading.Event) -> None:
    while not done.wait(0.002):
        unpark_all(node)


def run_all(works: list[Callable[[], object]]) -> None:
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive(), "a sender hangs"
    assert errors == []


def keep_the_ledger(count: int, *, watched: bool, drain: bool) -> Ledger:
    ledger = Ledger()
    settings = Settings(log_level="off", send_timeout=LONG, pool_shrink_after=0.05)
    before = set(threading.enumerate())
    node = Node(settings=settings).start()
    node.telemetry.listen(ledger.note, every_message=watched)
    node.spawn(Leaf, ledger, name="leaf")
    node.spawn(Watcher, ledger, name="watcher")
    refs = [node.spawn(kind, ledger) for kind in STANDING]
    done = threading.Event()
    unparker = threading.Thread(target=keep_unparking, args=(node, done), daemon=True)
    unparker.start()

    run_all([partial(Sender(node, ledger, n, refs).send, count) for n in range(SENDERS)])
    if drain:
        # The ends of the newcomers are told before the watcher itself is stopped.
        for cell in list(node._runtime.cells.values()):
            if cell.name.startswith("newcomer-"):
                cell.stop(drain=True)
        drain_all(node)
    done.set()
    unparker.join()
    node.stop()

    if not drain:
        # Who was there to the last, watcher and watched, ended together.
        ledger.watched = [name for name in ledger.watched if name in set(ledger.terminated)]
    ledger.balance(watched=watched)
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert left == []
    return ledger


def drain_all(node: Node) -> None:
    for _ in range(1_000):
        node.drain(LONG)
        if not any(len(cell.mailbox) for cell in list(node._runtime.cells.values())):
            return
        unpark_all(node)
    raise AssertionError("parked agents do not come to an end")


@pytest.mark.parametrize("watched", [False, True], ids=["plain", "watched"])
@pytest.mark.parametrize("drain", [True, False], ids=["drained", "stopped"])
def test_each_of_many_messages_ends_once(watched: bool, drain: bool) -> None:
    ledger = keep_the_ledger(2_000, watched=watched, drain=drain)

    assert len(ledger.told) > 8_000
    assert len(ledger.asked) > 3_000
    assert ledger.called
    assert ledger.watched or not drain


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("watched", [False, True], ids=["plain", "watched"])
def test_each_of_eight_hundred_thousand_messages_ends_once(watched: bool) -> None:
    keep_the_ledger(100_000, watched=watched, drain=True)
