"""Batches as they go over a channel, to which anybody may publish."""

from __future__ import annotations

from typing import Any

import pytest

from actorbus.bus.transports.pubsub.wire import Word, pack_batch, read_batch
from actorbus.codec.frames import SMALL
from actorbus.errors import Undecodable

LIMIT = 1 << 20


def test_a_batch_is_read_as_it_was_packed() -> None:
    frames: list[list[Any]] = [[Word.BYE], [Word.ECHO, 7]]

    assert read_batch(pack_batch("eu-1", frames), LIMIT) == ("eu-1", frames)


@pytest.mark.parametrize("size", [10, 2 * SMALL], ids=["small", "large"])
def test_a_batch_that_is_cut_short_is_undecodable(size: int) -> None:
    data = pack_batch("eu-1", [[Word.ECHO, number] for number in range(size)])

    with pytest.raises(Undecodable):
        read_batch(data[:-1], LIMIT)
