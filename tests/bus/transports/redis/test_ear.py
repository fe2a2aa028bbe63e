"""Who hears what a connection says: its own thread, or who waits for it and may."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.bus.transports.redis import ear as the_ear
from actorbus.bus.transports.redis.ear import Ear
from actorbus.bus.waker import Waker
from actorbus.errors import TransportUnavailable
from actorbus.message import MessageId
from actorbus.redis_client import NOTHING, Wire
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

SOON = 10.0
SHORT = 0.02
REQUEST = MessageId(1)


class Connection:
    """What a ``Wire`` takes of a connection of redis-py's."""

    def __init__(self, end: socket.socket) -> None:
        self._sock = end


class Said:
    """An ear, what it hears and by which thread, and the server's end of its connection."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, str]] = []
        self.on_answer: Callable[[], object] = lambda: None
        self.ear = Ear(self._hear, self._is_answer)
        self.connect()

    def connect(self) -> None:
        here, self.there = socket.socketpair()
        self._here = here
        self.ear.open(Wire(Connection(here)))

    def say(self, *words: bytes) -> None:
        self.there.sendall(b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def close(self) -> None:
        self.ear.close()
        self._here.close()
        self.there.close()

    def words(self) -> list[bytes]:
        return [word for word, _ in self.heard]

    @staticmethod
    def _is_answer(said: Any, request: bytes) -> bool:
        return bool(said[:1] == b"a") and request == REQUEST.to_bytes(16, "big")

    def _hear(self, said: Any) -> None:
        self.heard.append((said, threading.current_thread().name))
        if said[:1] == b"a":
            self.on_answer()


@pytest.fixture
def said() -> Iterator[Said]:
    said = Said()
    yield said
    said.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4, thread_name_prefix="waits") as threads:
        yield threads


class Waits:
    """A thread that waits for an answer."""

    def __init__(self, said: Said, threads: ThreadPoolExecutor, seconds: float | None) -> None:
        self.armed = threading.Event()
        self.happen: Callable[[], object] = lambda: None
        self.over: Future[bool | None] = threads.submit(said.ear.wait, self._arm, seconds, REQUEST)

    def _arm(self, happen: Callable[[], object]) -> bool:
        self.happen = happen
        self.armed.set()
        return True

    def result(self) -> bool | None:
        return self.over.result(SOON)


@pytest.fixture
def asker(said: Said, threads: ThreadPoolExecutor) -> Iterator[Waits]:
    waits = Waits(said, threads, SOON)
    assert waits.armed.wait(SOON)
    said.on_answer = waits.happen
    yield waits
    waits.happen()
    waits.result()


class TestItsOwnThread:
    def test_it_hears_what_is_said_in_order(self, said: Said) -> None:
        said.say(b"one", b"two")

        assert [said.ear.next(SOON), said.ear.next(SOON)] == [b"one", b"two"]
        assert said.ear.next(SHORT) is NOTHING

    def test_it_hears_that_the_server_is_gone(self, said: Said) -> None:
        said.there.close()

        with pytest.raises(TransportUnavailable, match="closed"):
            said.ear.next(SOON)

    def test_after_another_connection_it_hears_nothing_of_the_former(self, said: Said) -> None:
        said.say(b"old", b"older")
        said.ear.next(SOON)
        said.close()

        said.connect()
        said.say(b"new")

        assert said.ear.next(SOON) == b"new"


class TestWhoWaitsForAnAnswer:
    def test_it_hears_that_itself(self, said: Said, asker: Waits) -> None:
        said.say(b"answer")

        assert asker.result() is True
        assert said.heard == [(b"answer", "waits_0")]
        assert said.ear.next(SHORT) is NOTHING, "nobody else hears it"

    def test_its_own_thread_hears_other_things_in_order(self, said: Said, asker: Waits) -> None:
        said.say(b"one", b"two", b"answer", b"three")

        assert asker.result() is True
        assert said.words() == [b"answer"]
        assert [said.ear.next(SOON) for _ in range(3)] == [b"one", b"two", b"three"]

    def test_after_other_things_its_own_thread_goes_on_though_it_waits(
        self, said: Said, asker: Waits
    ) -> None:
        said.say(b"one")
        assert said.ear.next(SOON) == b"one"

        said.say(b"answer")

        assert said.ear.next(SOON) == b"answer"
        asker.happen()
        assert asker.result() is True

    def test_after_other_things_no_other_listens_for_a_while(
        self, said: Said, asker: Waits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said.say(b"one", b"answer")
        asker.result()

        assert said.ear.wait(lambda _: True, SOON, REQUEST) is None
        monkeypatch.setattr(the_ear, "_PAUSE", 0.0)
        said.ear._no_asker_until = time.monotonic()
        assert said.ear.wait(lambda _: False, SOON, REQUEST) is True

    def test_it_is_woken_by_what_happens_elsewhere(self, asker: Waits) -> None:
        asker.happen()

        assert asker.result() is True

    def test_its_time_is_up(self, said: Said, threads: ThreadPoolExecutor) -> None:
        assert Waits(said, threads, SHORT).result() is False

    def test_it_does_not_wait_for_what_has_happened(self, said: Said) -> None:
        assert said.ear.wait(lambda _: False, None, REQUEST) is True

    def test_what_happened_after_its_time_was_up_wakes_no_other(
        self, said: Said, threads: ThreadPoolExecutor
    ) -> None:
        late = Waits(said, threads, SHORT)
        late.result()

        other = Waits(said, threads, SOON)
        assert other.armed.wait(SOON)
        late.happen()
        said.say(b"no answer of its")
        until(lambda: said.heard or said.ear._heard)

        assert not other.over.done()
        other.happen()
        assert other.result() is True

    def test_there_is_one_at_a_time(self, said: Said, asker: Waits) -> None:
        assert said.ear.wait(lambda _: True, SOON, REQUEST) is None

    def test_where_nothing_is_open_there_is_nothing_to_wait_at(self, said: Said) -> None:
        said.ear.close()

        assert said.ear.wait(lambda _: True, SOON, REQUEST) is None

    def test_a_forked_child_does_not_listen_in_place_of_its_parent(
        self, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 0)
            assert said.ear.wait(lambda _: True, SOON, REQUEST) is None

        said.say(b"one")

        assert said.ear.next(SOON) == b"one"

    def test_it_hears_a_connection_that_was_made_meanwhile(self, said: Said, asker: Waits) -> None:
        said.close()
        said.connect()

        said.say(b"answer")

        assert asker.result() is True
        assert said.heard == [(b"answer", "waits_0")]

    def test_its_own_thread_hears_that_the_server_is_gone(self, said: Said, asker: Waits) -> None:
        said.there.close()

        with pytest.raises(TransportUnavailable, match="closed"):
            said.ear.next(SOON)

    def test_where_it_is_interrupted_its_own_thread_begins_anew(
        self, said: Said, threads: ThreadPoolExecutor
    ) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        waits = Waits(said, threads, SOON)
        assert waits.armed.wait(SOON)
        said.on_answer = interrupt

        said.say(b"answer", b"other")

        with pytest.raises(KeyboardInterrupt):
            waits.result()
        with pytest.raises(TransportUnavailable, match="interrupted"):
            said.ear.next(SOON)

    def test_what_cannot_be_heard_has_its_own_thread_begin_anew(
        self, said: Said, asker: Waits
    ) -> None:
        def fail() -> None:
            raise ValueError("a fault of ours")

        said.on_answer = fail

        said.say(b"answer")

        with pytest.raises(TransportUnavailable, match="a fault of ours"):
            said.ear.next(SOON)
        assert not asker.over.done(), "who waits waits on"

    def test_whom_an_interrupt_left_in_its_place_is_found(self, said: Said, asker: Waits) -> None:
        """As if it slept elsewhere: nobody reads what is said."""
        turn = said.ear._turn
        assert turn is not None
        asker.happen()
        asker.result()
        said.ear._turn = turn
        said.ear._place()

        said.say(b"one")

        assert said.ear.next(SHORT) is NOTHING
        assert said.ear.next(SOON) == b"one"
        said.say(b"two")
        assert said.ear.next(SOON) == b"two"


class Idles:
    """The pool's leader while it has nothing to do."""

    def __init__(self, said: Said, threads: ThreadPoolExecutor) -> None:
        self.waker = Waker()
        self.sleeps_on = True
        self._said = said
        self._threads = threads
        self.begin()

    def begin(self) -> None:
        self.over = self._threads.submit(self._said.ear.idle, self.waker, self._heard)
        until(lambda: self._said.ear._is_idle or self.over.done())

    def _heard(self, hear: Callable[[], object]) -> bool:
        hear()
        return self.sleeps_on

    def end(self) -> None:
        self.waker.ring()
        self.over.result(SOON)


@pytest.fixture
def idler(said: Said, threads: ThreadPoolExecutor) -> Iterator[Idles]:
    idles = Idles(said, threads)
    yield idles
    idles.end()


class TestWhoHasNothingToDo:
    def test_it_hears_everything_and_sleeps_on(self, said: Said, idler: Idles) -> None:
        said.say(b"one", b"answer")
        until(lambda: len(said.heard) == 2)

        assert said.heard == [(b"one", "waits_0"), (b"answer", "waits_0")]
        assert not idler.over.done()

    def test_with_something_to_do_it_leaves_the_rest_to_others(
        self, said: Said, idler: Idles
    ) -> None:
        idler.sleeps_on = False
        said.say(b"one")
        idler.over.result(SOON)

        said.say(b"two")

        assert said.ear.next(SOON) == b"two"
        assert said.words() == [b"one"]

    def test_it_is_woken_by_others_as_well(self, said: Said, idler: Idles) -> None:
        idler.end()

        said.say(b"one")

        assert said.ear.next(SOON) == b"one"

    def test_who_waits_for_an_answer_comes_first(
        self, said: Said, idler: Idles, asker: Waits
    ) -> None:
        said.say(b"answer")
        asker.result()
        said.say(b"then")
        until(lambda: len(said.heard) == 2)

        assert said.heard == [(b"answer", "waits_1"), (b"then", "waits_0")]

    def test_after_much_at_once_it_does_not_listen_for_a_while(
        self, said: Said, idler: Idles
    ) -> None:
        said.say(*[b"%d" % nth for nth in range(10)])
        until(lambda: len(said.heard) == 10)
        idler.end()

        idles = threading.Thread(target=said.ear.idle, args=(idler.waker, idler._heard))
        idles.start()
        said.say(b"one")

        assert said.ear.next(SOON) == b"one"
        idler.waker.ring()
        idles.join(SOON)

    def test_its_own_thread_knows_since_when_nothing_was_said(
        self, said: Said, idler: Idles
    ) -> None:
        opened = said.ear.heard_at
        assert said.ear.next(SHORT) is NOTHING
        silent = said.ear.heard_at

        said.say(b"one")
        until(lambda: said.heard)

        assert silent == opened
        assert said.ear.heard_at > opened

    def test_its_own_thread_hears_that_the_server_is_gone(self, said: Said, idler: Idles) -> None:
        said.there.close()

        with pytest.raises(TransportUnavailable, match="closed"):
            said.ear.next(SOON)
        assert not idler.over.done()


def test_nothing_is_said_twice_or_lost_while_all_take_turns(
    said: Said, threads: ThreadPoolExecutor
) -> None:
    """A few thousand things, of which some are answers, while threads come to wait and go."""
    most, ends = 3_000, threading.Event()
    idles = Waker()

    def wait() -> None:
        while not ends.is_set():
            said.ear.wait(lambda _: True, 0.001, REQUEST)

    def idle() -> None:
        while not ends.is_set():
            said.ear.idle(idles, lambda hear: bool(hear()))

    def hear() -> None:
        while len(said.heard) < most:
            word = said.ear.next(SHORT)
            if word is not NOTHING:
                said.heard.append((word, "own"))

    others = [threads.submit(wait), threads.submit(idle)]
    own = threads.submit(hear)
    words = [b"%s%d" % (b"a" if nth % 3 else b"o", nth) for nth in range(most)]
    for nth, word in enumerate(words):
        said.say(word)
        if nth % 50 == 0:
            until(lambda nth=nth: len(said.heard) >= nth)  # type: ignore[misc]
            idles.ring()

    own.result(SOON)
    ends.set()
    idles.ring()
    for other in others:
        other.result(SOON)
    assert sorted(said.words()) == sorted(words)
