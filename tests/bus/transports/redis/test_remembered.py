from __future__ import annotations

from actorbus.bus.transports.redis.remembered import Remembered


def test_what_was_added_is_known_until_it_is_forgotten() -> None:
    remembered: Remembered[int] = Remembered(3)
    remembered.add(1)

    assert [remembered.forget(1), remembered.forget(1), remembered.forget(2)] == [
        True,
        False,
        False,
    ]
    assert not remembered


def test_of_too_many_the_oldest_are_forgotten() -> None:
    remembered: Remembered[int] = Remembered(3)
    for one in range(5):
        remembered.add(one)

    assert list(remembered) == [2, 3, 4]
