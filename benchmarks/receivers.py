"""Those who count what they are told, each in its own technique: ours and the plain baselines.

A receiver is a context round the callable that sends it one payload. All do the same work a
message: count it down.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import SimpleQueue
from typing import Any, Final

Payload = dict[str, Any]
Send = Callable[[Payload], object]

WAIT: Final = 60.0
"""Seconds after which what has not arrived is called lost."""


class Countdown:
    """Over when `n` messages were handled. One thread at a time may call ``count``."""

    __slots__ = ("_left", "_over")

    def __init__(self, n: int) -> None:
        self._left = n
        self._over = threading.Event()

    def count(self) -> None:
        self._left -= 1
        if not self._left:
            self._over.set()

    def wait(self) -> None:
        """Wait for the last message.

        Raises:
            TimeoutError: it did not come within ``WAIT``.
        """
        if not self._over.wait(WAIT):
            raise TimeoutError(f"{self._left} messages were not handled within {WAIT:.0f} s")


Receiver = Callable[[Countdown], AbstractContextManager[Send]]


def payload(number: int) -> Payload:
    """A fresh dict of three keys, as a sender would build it."""
    return {"id": number, "kind": "work", "value": 0.5}


@contextmanager
def deque_thread(countdown: Countdown) -> Iterator[Send]:
    """A deque between two threads: the least a hand-over costs, with a bell for the sleeper."""
    waiting: deque[Payload | None] = deque()
    bell: SimpleQueue[None] = SimpleQueue()
    awake = True

    def receive() -> None:
        nonlocal awake
        while True:
            while waiting:
                if waiting.popleft() is None:
                    return
                countdown.count()
            awake = False
            if not waiting:
                bell.get()
            awake = True

    def send(item: Payload | None) -> None:
        waiting.append(item)
        if not awake:
            bell.put(None)

    with _thread(receive, end=lambda: send(None)):
        yield send


@contextmanager
def simple_queue(countdown: Countdown) -> Iterator[Send]:
    """A ``queue.SimpleQueue`` between two threads."""
    queue: SimpleQueue[Payload | None] = SimpleQueue()

    def receive() -> None:
        while queue.get() is not None:
            countdown.count()

    with _thread(receive, end=lambda: queue.put(None)):
        yield queue.put


@contextmanager
def pykka_actor(countdown: Countdown) -> Iterator[Send]:
    """A raw ``pykka.ThreadingActor``."""
    import pykka

    class Counter(pykka.ThreadingActor):
        def on_receive(self, message: Payload) -> None:
            countdown.count()

    ref = Counter.start()
    try:
        yield ref.tell
    finally:
        ref.stop(timeout=WAIT)


@contextmanager
def actorbus_agent(countdown: Countdown) -> Iterator[Send]:
    """An agent with every default, on a node with every default."""
    from actorbus import Agent, Node, handles

    class Counter(Agent):
        @handles
        def take(self, job: Payload) -> None:
            countdown.count()

    with Node() as node:
        yield node.spawn(Counter).tell


@contextmanager
def _thread(receive: Callable[[], None], end: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join(WAIT)
