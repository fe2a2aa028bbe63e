from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.redis.marks import Marks, MissingMark, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_a_mark_is_made_when_its_message_was_handled(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    marks = Marks(str(file), [3, 1])

    before = time.monotonic()
    for _ in range(3):
        marks.handled()

    made = [line.split()[0] for line in file.read_text().splitlines()]
    assert made == ["1", "3"]
    assert before <= wait_for(file, 3, until=0.0, alive=lambda: True) <= time.monotonic()


def test_marks_that_are_passed_at_once_are_all_made(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    marks = Marks(str(file), [1, 2, 10])

    marks.handled(5)

    assert [line.split()[0] for line in file.read_text().splitlines()] == ["1", "2"]


def test_a_consumer_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    Marks(str(file), []).ready()

    with pytest.raises(MissingMark, match="ended before mark 7"):
        wait_for(file, 7, until=time.monotonic() + 60, alive=lambda: False)


def test_a_consumer_that_is_too_slow_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    Marks(str(file), []).ready()

    with pytest.raises(MissingMark, match="still short of mark 7"):
        wait_for(file, 7, until=0.0, alive=lambda: True)
