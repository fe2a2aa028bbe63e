"""The waker: a ring wakes who waits, and is kept for who comes later."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from actorbus.bus.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 10.0


@pytest.fixture(params=["eventfd", "pipe"])
def waker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waker]:
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    waker = Waker()
    yield waker
    waker.close()


def test_a_ring_wakes_the_thread_that_waits(waker: Waker) -> None:
    woken = threading.Event()

    def sleep() -> None:
        waker.wait()
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    waker.ring()

    assert woken.wait(SOON)
    thread.join(SOON)


def test_a_ring_that_nobody_waited_for_is_kept(waker: Waker) -> None:
    for _ in range(3):
        waker.ring()

    waker.wait()

    assert not select.select([waker], [], [], 0)[0], "three rings, kept as one"


def test_a_closed_waker_gives_its_descriptors_back_once(waker: Waker) -> None:
    descriptors = waker._descriptors

    waker.close()
    waker.close()

    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
