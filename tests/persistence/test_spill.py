from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.message import MessageId
from actorbus.persistence import spill as spilling
from actorbus.persistence.frames import pack
from actorbus.persistence.spill import Damage, Owner, Spill, SpillFull

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER = Owner("tenant", "project", "node")


class Disk:
    """Spills in one directory, and the damage that they report."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.damage: list[Damage] = []

    def open(self, owner: Owner = OWNER, limit: int = 1 << 20) -> Spill:
        made = Spill(self.directory, owner, limit=limit, report=self.damage.append)
        made.adopt()
        return made

    def segments(self) -> list[Path]:
        return sorted(self.directory.rglob("*.spill"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "history.db.spill")


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "_SEGMENT", 200)


def add(spill: Spill, *numbers: int) -> None:
    """Each number as a frame of its own."""
    for number in numbers:
        spill.add(pack([], [(MessageId(number), ending(number))]))


def ending(number: int) -> Any:
    return (MessageId(number), None, "handled", None, None, 1, None, 1.0, None)


def drained(spill: Spill) -> list[int]:
    numbers: list[int] = []
    while (oldest := spill.oldest()) is not None:
        numbers += [key for key, _ in oldest.events]
        spill.written()
    return numbers


def test_what_is_added_comes_out_in_order(disk: Disk) -> None:
    spill = disk.open()
    add(spill, 1, 2, 3)

    assert drained(spill) == [1, 2, 3]
    assert not spill


def test_adding_and_draining_may_take_turns(disk: Disk, small_segments: None) -> None:
    spill = disk.open()
    found: list[int] = []

    for start in range(0, 60, 3):
        add(spill, start, start + 1, start + 2)
        oldest = spill.oldest()
        assert oldest is not None
        found += [key for key, _ in oldest.events]
        spill.written()

    assert found + drained(spill) == list(range(60))
    assert spill.size == 0


def test_a_spill_that_nothing_was_added_to_leaves_no_trace(disk: Disk) -> None:
    disk.open().close()

    assert not disk.directory.exists()


def test_a_spill_that_is_drained_leaves_no_trace(disk: Disk) -> None:
    spill = disk.open()
    add(spill, 1)
    drained(spill)

    spill.close()
    spill.close()

    assert not disk.directory.exists()


def test_what_was_left_is_drained_before_what_is_new(disk: Disk, small_segments: None) -> None:
    first = disk.open()
    add(first, *range(20))
    first.close()

    second = disk.open()
    add(second, 20, 21)

    assert second.size == sum(path.stat().st_size for path in disk.segments())
    assert drained(second) == list(range(22))


def test_what_was_taken_but_not_written_is_there_again(disk: Disk) -> None:
    first = disk.open()
    add(first, 1, 2)
    first.oldest()
    first.close()

    assert drained(disk.open()) == [1, 2]


def test_another_process_of_the_same_name_has_files_of_its_own(disk: Disk) -> None:
    one, other = disk.open(), disk.open()
    add(one, 1)
    late = disk.open()
    add(other, 2)

    assert drained(late) == []
    assert drained(other) == [2]
    assert drained(one) == [1]


def test_what_a_node_of_another_name_left_is_taken_over_in_its_name(disk: Disk) -> None:
    gone = Owner("tenant", "project", "a/../b " + "x" * 120)
    first = disk.open(gone)
    add(first, 1)
    first.close()

    oldest = disk.open().oldest()

    assert oldest is not None
    assert oldest.owner == gone


def test_what_another_project_left_is_not_ours(disk: Disk) -> None:
    theirs = Owner("tenant", "theirs", "node")
    first = disk.open(theirs)
    add(first, 1)
    first.close()

    assert drained(disk.open()) == []
    assert drained(disk.open(theirs)) == [1]


def test_a_killed_process_holds_no_files(disk: Disk) -> None:
    script = f"""
import os, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_spill import Disk, add
spill = Disk(pathlib.Path({str(disk.directory)!r})).open()
add(spill, 1, 2, 3)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)

    assert killed.returncode == -9
    assert drained(disk.open()) == [1, 2, 3]


def test_more_than_it_may_hold_is_refused_and_nothing_of_it_kept(disk: Disk) -> None:
    spill = disk.open(limit=1_000)
    add(spill, 1)
    size = spill.size

    with pytest.raises(SpillFull, match="of 1,000 allowed"):
        spill.add([(1, b"x" * 1_000)])

    assert spill.size == size
    assert drained(spill) == [1]


def test_a_torn_end_is_dropped_and_told_of(disk: Disk) -> None:
    first = disk.open()
    add(first, 1, 2)
    first.close()
    (segment,) = disk.segments()
    os.truncate(segment, segment.stat().st_size - 5)

    assert drained(disk.open()) == [1]
    (damage,) = disk.damage
    assert (damage.torn, damage.records, damage.path) == (True, None, segment)
    assert not disk.segments()


def test_damage_in_the_middle_is_told_of_and_its_file_kept(disk: Disk) -> None:
    first = disk.open()
    add(first, 1, 2, 3)
    first.close()
    (segment,) = disk.segments()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)

    assert drained(disk.open()) == [1, 3]
    (damage,) = disk.damage
    assert (damage.torn, damage.records) == (False, 1)
    assert segment.with_suffix(".damaged").read_bytes() == data


def test_a_segment_without_its_beginning_is_read_all_the_same(disk: Disk) -> None:
    first = disk.open()
    add(first, 1)
    first.close()
    (segment,) = disk.segments()
    segment.write_bytes(b"\0" + segment.read_bytes()[1:])

    assert drained(disk.open()) == [1]
    assert disk.damage[0].records == 0


def test_no_record_of_another_make_is_executed_or_lost_silently(disk: Disk) -> None:
    first = disk.open()
    first.add([(1, b"cos\nsystem\n(S'false'\ntR.")])
    add(first, 2)
    first.close()

    assert drained(disk.open()) == [2]
    assert disk.damage[0].records == 1


@pytest.mark.parametrize("part", [0, 7])
def test_a_full_disk_leaves_no_half_of_a_frame(
    disk: Disk, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = disk.open()
    add(spill, 1)
    full_disk(monkeypatch, part)

    with pytest.raises(OSError, match="No space"):
        add(spill, 2)
    monkeypatch.undo()
    add(spill, 3)

    assert drained(spill) == [1, 3]
    assert disk.damage == []


def full_disk(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Have the disk take the first `part` bytes of what is written, and no more."""
    write: Callable[[int, Any], int] = os.write
    left = [part]

    def write_a_part(file: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, bytes(data)[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_a_part)
