from __future__ import annotations

from itertools import islice
from typing import Any

import fakeredis
import pytest

from actorbus.bus.transports.redis.newest import newest_of


class Counting(fakeredis.FakeRedis):
    """Says how many bytes it was asked for."""

    given = 0

    def xrevrange(self, *arguments: Any, **options: Any) -> Any:
        page: Any = super().xrevrange(*arguments, **options)
        self.given += sum(len(fields[b"item"]) for _, fields in page)
        return page


@pytest.fixture
def client() -> Counting:
    return Counting(server=fakeredis.FakeServer())


@pytest.mark.parametrize("size", [0, 10, 100_000])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 700])
def test_all_come_the_newest_first(client: Counting, count: int, size: int) -> None:
    for number in range(count):
        client.xadd("s", {"item": b"x" * (size if number % 7 == 0 else 1), "n": number})

    found = [int(fields[b"n"]) for _, fields in newest_of(client, "s", b"item")]

    assert found == list(reversed(range(count)))


def test_of_large_ones_no_more_are_asked_for_than_a_page(client: Counting) -> None:
    for _ in range(100):
        client.xadd("s", {"item": b"x" * 1_000_000})

    list(islice(newest_of(client, "s", b"item"), 17))

    assert client.given == 16_000_000 + 4_000_000
