"""Who hears what comes over pub/sub: whoever would have to be woken for it.

One thread hears for all others, so somebody who waits for an answer sleeps until that thread was
woken, and has woken him. Half of that is saved if he listens himself meanwhile: *leader and
followers* (Schmidt, O'Ryan, Kircher, Pyarali, Buschmann 2000), where the place changes hands
without a wake, as the kernel is told whom to wake the next time. In this order have it

- a thread that waits for an answer, one at a time. It may be anybody's and be interrupted
  wherever it is, so all that it hears itself is that answer: at any other thing others go on;
- the pool's leader while it has nothing to do;
- the thread that is there for it, which also sees to it that the connection lives.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.waker import Waker
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.waiting import Arm
    from actorbus.message import MessageId
    from actorbus.redis_client import Wire

_TWO: Final = 2
"""Descriptors that one of them sleeps at: the connection, and what wakes it."""
_PAUSE: Final = 0.05
"""Seconds for which no asker listens after one who heard other things than its answer, and nobody
who is idle after one who heard much at once: then it is better that two work, and one hears."""
_MUCH: Final = 4
"""Things said at once."""


class _Turn:
    """Somebody waits for an answer, and listens."""

    __slots__ = ("_waker", "happened", "hears", "is_deaf", "request")

    def __init__(self, waker: Waker, request: MessageId) -> None:
        self._waker = waker
        self.request = request.to_bytes(16, "big")
        self.happened = False
        self.hears = False
        """Whether it is just awake, and will look whether it happened."""
        self.is_deaf = False
        """Whether others listen though it waits."""

    def happen(self) -> None:
        self.happened = True
        if not self.hears:
            self._waker.ring()


class Ear:
    """What one connection says, to those who listen in turns.

    Args:
        hear: called with what was said, in order; by whoever listens, so it must not block.
        is_answer: whether it is the answer to a request, whose id is given. The order in which it
            is heard among other things does not matter.

    Raises:
        OSError: this process has no file descriptor left.
    """

    def __init__(
        self, hear: Callable[[Any], object], is_answer: Callable[[Any, bytes], bool]
    ) -> None:
        self._hear = hear
        self._is_answer = is_answer
        self._process = os.getpid()
        self._wire: Wire | None = None
        self._broken: TransportUnavailable | None = None
        self._reading = threading.Lock()
        self._placing = threading.Lock()
        """Held while it is decided who listens; it waits for nothing."""
        self._heard: deque[Any] = deque()
        """What was read and is for its own thread."""
        self._own, self._of_idle, self._of_asker = (select.epoll() for _ in range(3))
        self._listens: select.epoll | None = None
        """Who sleeps at this one is woken by what is said."""
        self._waker, self._asker_waker = Waker(), Waker()
        self._own.register(self._waker, select.EPOLLIN)
        self._of_asker.register(self._asker_waker, select.EPOLLIN)
        self._idler: Waker | None = None
        self._is_idle = False
        self._turn: _Turn | None = None
        self._no_asker_until = self._no_idler_until = 0.0
        self.heard_at = 0.0
        """When something was said last, on our monotonic clock."""

    # -- for its own thread

    def open(self, wire: Wire) -> None:
        """Hear `wire` from now on."""
        with self._placing:
            self._heard.clear()
            self._wire, self._broken = wire, None
            self.heard_at = time.monotonic()
            self._place()

    def close(self) -> None:
        """Hear nothing from now on, before the wire is closed. Idempotent."""
        with self._placing, self._reading:
            self._let_go()
            self._wire = None

    def next(self, seconds: float) -> Any:
        """What was said next and is heard by nobody else, ``NOTHING`` if that is nothing for long.

        Raises:
            TransportUnavailable: there will be no more.
        """
        while not self._heard:
            if self._broken is not None:
                raise self._broken
            woken = self._own.poll(seconds, _TWO)
            if not woken:
                self._see_that_it_is_heard()
                return NOTHING
            for descriptor, _ in woken:
                if descriptor == self._waker.fileno():
                    self._waker.wait()
                else:
                    self._heard.extend(self._read())
        return self._heard.popleft()

    def _see_that_it_is_heard(self) -> None:
        """An interrupt may end who listens so that nobody knows it."""
        if self._listens is self._own:
            return
        said = self._read()
        if said:
            self._heard.extend(said)
            self._ignore_asker()

    # -- for those who stand in for it

    def wait(self, arm: Arm, seconds: float | None, request: MessageId) -> bool | None:
        """Wait for an answer as ``Waiting.wait`` does, and hear it oneself if one can.

        None: it was not waited; somebody else does, or there is nothing to hear.
        """
        if os.getpid() != self._process:
            return None  # the child of a fork has no part in who is woken: that is the parent's
        turn, now = _Turn(self._asker_waker, request), time.monotonic()
        try:
            with self._placing:
                if self._turn is not None or self._wire is None or self._no_asker_until > now:
                    return None
                self._turn = turn
                self._place()
            return self._listen(turn, seconds) if arm(turn.happen) else True
        finally:
            if self._turn is turn:
                with self._placing:
                    self._turn = None
                    self._place()

    def idle(self, waker: Waker, heard: Callable[[Callable[[], object]], bool]) -> None:
        """Sleep until `waker` rings, always the same one, and hear meanwhile.

        `heard` is called with what hears what was said, and says whether to sleep on.
        """
        if self._idler is None:
            self._idler = waker
            self._of_idle.register(waker, select.EPOLLIN)
        if self._no_idler_until > time.monotonic():
            waker.wait()
            return
        try:
            with self._placing:
                self._is_idle = True
                self._place()
            while True:
                for descriptor, _ in self._of_idle.poll(None, _TWO):
                    if descriptor == waker.fileno():
                        waker.wait()
                        return
                    if not heard(self._hear_said):
                        return
        finally:
            with self._placing:
                self._is_idle = False
                self._place()

    def _listen(self, turn: _Turn, seconds: float | None) -> bool:
        give_up = None if seconds is None else time.monotonic() + seconds
        while not turn.happened:
            left = None if give_up is None else give_up - time.monotonic()
            if left is not None and left <= 0:
                return False
            for descriptor, _ in self._of_asker.poll(left, _TWO):
                if descriptor == self._asker_waker.fileno():
                    self._asker_waker.wait()
                    continue
                turn.hears = True
                try:
                    self._hear_said(turn)
                finally:
                    turn.hears = False
        return True

    def _hear_said(self, turn: _Turn | None = None) -> None:
        """Hear what is said; who waits only its answer, and its own thread the rest."""
        try:
            said = self._read()
            if turn is None and len(said) >= _MUCH:
                self._no_idler_until = time.monotonic() + _PAUSE
            for one in said:
                if turn is None or self._is_answer(one, turn.request):
                    self._hear(one)
                else:
                    self._heard.append(one)
        except Exception as error:  # noqa: BLE001 - its own thread begins anew, and reports it
            self._break(TransportUnavailable(f"what came could not be heard: {error!r}"))
        except BaseException:
            # Nobody knows what was read and not heard.
            self._break(TransportUnavailable("who heard what came was interrupted"))
            raise
        if turn is not None and self._heard:
            self._no_asker_until = time.monotonic() + _PAUSE
            self._ignore_asker()
            self._waker.ring()

    def _ignore_asker(self) -> None:
        """Others listen from now on, though it still waits."""
        with self._placing:
            if self._turn is not None:
                self._turn.is_deaf = True
            self._place()

    # --

    def _read(self) -> list[Any]:
        with self._reading:
            wire = self._wire
            if wire is None or self._broken is not None:
                return []
            try:
                said = wire.read_all()
            except TransportUnavailable as error:
                self._broken = error
                said = []
            if said:
                self.heard_at = time.monotonic()
        if self._broken is not None:
            self._break(self._broken)
        return said

    def _break(self, why: TransportUnavailable) -> None:
        """Nobody listens any more, and its own thread hears why."""
        with self._placing:
            self._broken = why
            self._place()
        self._waker.ring()

    def _place(self) -> None:
        """Have who should listen be woken by what is said."""
        turn = self._turn
        if self._wire is None or self._broken is not None:
            wanted = None
        elif turn is not None and not turn.is_deaf:
            wanted = self._of_asker
        else:
            wanted = self._of_idle if self._is_idle else self._own
        if wanted is not self._listens:
            self._let_go()
            if wanted is not None and self._wire is not None:
                with suppress(FileExistsError):  # an interrupt came between the two below
                    wanted.register(self._wire, select.EPOLLIN)
                self._listens = wanted

    def _let_go(self) -> None:
        listens, self._listens = self._listens, None
        if listens is not None and self._wire is not None:
            listens.unregister(self._wire)
