"""The doorbell: a ring wakes who waits, and is kept for who comes later."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from actorbus.actors.dispatchers.doorbell import Doorbell

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 10.0


@pytest.fixture(params=["eventfd", "pipe"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorbell]:
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    bell = Doorbell()
    yield bell
    bell.close()


def test_a_ring_wakes_the_thread_that_waits(bell: Doorbell) -> None:
    woken = threading.Event()

    def sleep() -> None:
        bell.wait()
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    bell.ring()

    assert woken.wait(SOON)
    thread.join(SOON)


def test_a_ring_that_nobody_waited_for_is_kept(bell: Doorbell) -> None:
    for _ in range(3):
        bell.ring()

    bell.wait()

    assert not select.select([bell._descriptors[0]], [], [], 0)[0], "three rings, kept as one"


def test_a_closed_doorbell_gives_its_descriptors_back_once(bell: Doorbell) -> None:
    descriptors = bell._descriptors

    bell.close()
    bell.close()

    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
