"""The spill: where records of history wait on disk while their database cannot take them.

A directory beside the history holds a file set for each process that had to spill: segments
that are only added to, and a lock that its process holds for as long as it lives. A set whose
lock is free was left by a process that is gone, and whoever opens a spill of the same tenant
and project next takes it over, to be drained before its own. Whose records they are stands in
the first frame of every segment.

``add`` returns once its records are on the disk. A segment is deleted when all of it was
written to the database, not before: after a crash it is read again from its beginning, which
is harmless, because every statement does nothing where the key exists.

What cannot be read is skipped, told of, and kept as ``*.damaged``; only a frame that a crash
tore off at the end of a segment is dropped with its segment, and told of too.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import msgpack  # type: ignore[import-untyped]

from actorbus.persistence.frames import Frame, Happening, Hole, Pair, Unreadable, frames, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_SEGMENT: Final = 16 << 20
_SETS: Final = 1_000
_LOCK: Final = "lock"
_SUFFIX: Final = ".spill"


class SpillFull(Exception):
    """The spill holds as many bytes as it may."""


class Owner(NamedTuple):
    """Whose history a segment holds."""

    tenant: str
    project: str
    node: str


class Damage(NamedTuple):
    """`size` bytes from `at` on of a segment that were skipped.

    ``records`` is how many are missing, as far as that can be known. ``torn``: nothing
    follows, as when a crash interrupted the last write.
    """

    path: Path
    at: int
    size: int
    records: int | None
    torn: bool


class Spilled(NamedTuple):
    """Records in the order they were spilled, and whose they are."""

    owner: Owner
    pairs: list[Pair]
    events: list[Happening]


class Spill:
    """Records on disk, first in, first out. For one thread.

    Nothing is made on disk before the first ``add``. ``size`` is what is there, in bytes.
    `report` hears of what could not be read.
    """

    def __init__(
        self, directory: Path, owner: Owner, *, limit: int, report: Callable[[Damage], None]
    ) -> None:
        self.directory = directory
        self.size = 0
        self._owner = owner
        self._limit = limit
        self._report = report
        self._sets: list[_Set] = []
        self._own: _Set | None = None
        self._segments: deque[_Segment] = deque()
        self._reading: Iterator[Spilled] | None = None
        self._oldest: Spilled | None = None

    def __bool__(self) -> bool:
        return bool(self._segments)

    def adopt(self) -> int:
        """Take over what processes that are gone have left; how many bytes.

        Raises:
            OSError: the directory cannot be read.
        """
        found = 0
        for path in sorted(self.directory.glob("*.set")):
            taken = _Set.lock(path)
            if taken is None:
                continue
            segments = [segment for segment in taken.segments() if self._is_ours(segment)]
            if not segments:
                taken.leave()
                continue
            self._sets.append(taken)
            self._segments.extend(segments)
            found += sum(segment.size for segment in segments)
        self.size += found
        return found

    def add(self, bodies: Iterable[tuple[int, bytes]]) -> None:
        """Put records behind the others: numbers of records, and frames' bodies. All or nothing.

        Raises:
            SpillFull: they would make it larger than it may be.
            OSError: the disk does not take them.
        """
        packed = list(bodies)
        more = sum(len(body) for _, body in packed)
        if self.size + more > self._limit:
            raise SpillFull(
                f"{self.directory} holds {self.size:,} bytes, of {self._limit:,} allowed"
            )
        segment = self._segments[-1] if self._segments else None
        if segment is None or not segment.writable or segment.size >= _SEGMENT:
            segment = self._begin_segment()
        before = segment.size
        segment.add(packed)
        self.size += segment.size - before

    def oldest(self) -> Spilled | None:
        """The records to be written next; None if there are none."""
        while self._oldest is None and self._segments:
            if self._reading is None:
                self._reading = self._read(self._segments[0])
            self._oldest = next(self._reading, None)
            if self._oldest is None and not self._grown():
                self._drop_segment()
        return self._oldest

    def written(self) -> None:
        """The ``oldest`` are in the database."""
        self._oldest = None
        self.oldest()

    def close(self) -> None:
        """Let go of the files; they stay for the next process. Idempotent."""
        for segment in self._segments:
            segment.close()
        self._segments.clear()
        self._reading = self._oldest = None
        for each in self._sets:
            each.leave()
        self._sets.clear()
        self._own = None
        with suppress(OSError):
            self.directory.rmdir()

    def _begin_segment(self) -> _Segment:
        if self._own is None:
            self._own = _Set.claim(self.directory, self._owner)
            self._sets.append(self._own)
        segment = self._own.begin(self._owner)
        self._segments.append(segment)
        self.size += segment.size
        return segment

    def _is_ours(self, segment: _Segment) -> bool:
        owner = segment.owner()
        # Without a readable beginning nobody's, but still to be told of: by any of them.
        return owner is None or owner[:2] == self._owner[:2]

    def _read(self, segment: _Segment) -> Iterator[Spilled]:
        owner = segment.owner() or self._owner
        while (found := segment.next()) is not None:
            if isinstance(found, Damage):
                self._report(found)
            else:
                yield Spilled(owner, *found)

    def _grown(self) -> bool:
        """Whether more was added to the segment after its end was seen."""
        self._reading = None
        return self._segments[0].unread()

    def _drop_segment(self) -> None:
        segment = self._segments.popleft()
        self.size -= segment.size
        segment.drop()
        if not self._segments:
            self.size = 0


class _Segment:
    """One file of a set: a frame that says whose it is, then frames of records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size if path.exists() else 0
        self._file: int | None = None
        self._records = 0
        self._at = 0
        """Up to where it was read."""
        self._expected = 0
        self._damaged = False
        self._data: bytes | None = None
        self._found: Iterator[Frame | Hole] | None = None

    @property
    def writable(self) -> bool:
        return self._file is not None

    @classmethod
    def begin(cls, path: Path, owner: Owner) -> _Segment:
        segment = cls(path)
        segment._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            segment._append(Frame(0, 0, msgpack.packb(owner)).packed())
        except OSError:
            segment.close()
            path.unlink(missing_ok=True)
            raise
        return segment

    def add(self, bodies: list[tuple[int, bytes]]) -> None:
        records, packed = self._records, bytearray()
        for count, body in bodies:
            packed += Frame(records, count, body).packed()
            records += count
        self._append(packed)
        self._records = records

    def _append(self, data: bytes | bytearray) -> None:
        assert self._file is not None  # noqa: S101 - only a segment of our own is added to
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            self._cut_back()
            raise
        self.size += len(data)

    def _cut_back(self) -> None:
        """Take back what was written of a frame, or write no more here."""
        assert self._file is not None  # noqa: S101 - as above
        try:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
        except OSError:
            self.close()

    def owner(self) -> Owner | None:
        with self.path.open("rb") as file:
            beginning = file.read(4096)
        first = next(frames(beginning), None)
        if not isinstance(first, Frame):
            return None
        try:
            return Owner(*msgpack.unpackb(first.body))
        except (ValueError, TypeError, msgpack.UnpackException):
            return None

    def next(self) -> tuple[list[Pair], list[Happening]] | Damage | None:
        """The next records or what stands in their place; None at the end so far."""
        if self._found is None:
            self._data = self.path.read_bytes()
            self._found = frames(self._data, self._at)
        for found in self._found:
            seen = self._seen(found)
            if seen is not None:
                return seen
        self._found = self._data = None
        return None

    def unread(self) -> bool:
        return self._at < self.size

    def _seen(self, found: Frame | Hole) -> tuple[list[Pair], list[Happening]] | Damage | None:
        at = self._at
        if isinstance(found, Hole):
            self._at += found.size
            self._damaged = self._damaged or not found.torn
            return Damage(self.path, at, found.size, self._missing(), found.torn)
        self._at += len(found.packed())
        self._expected = found.first + found.records
        if not found.records:
            return None
        try:
            return unpack(found.body)
        except Unreadable:
            self._damaged = True
            return Damage(self.path, at, self._at - at, found.records, torn=False)

    def _missing(self) -> int | None:
        """How many records stood in a hole that was just passed."""
        assert self._data is not None  # noqa: S101 - it is being read
        after = next(frames(self._data, self._at), None)
        return after.first - self._expected if isinstance(after, Frame) else None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def drop(self) -> None:
        """All of it is written; what could not be read is kept for people to look at."""
        self.close()
        if self._damaged:
            self.path.rename(self.path.with_suffix(".damaged"))
        else:
            self.path.unlink(missing_ok=True)


class _Set:
    """A directory of segments, held by this process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, directory: Path, owner: Owner) -> _Set:
        """A set of one's own.

        Raises:
            OSError: the directory cannot be made or written.
        """
        digest = sha256("\0".join(owner).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{quote(owner.node, safe='')[:64]}-{digest}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, _SETS):
            path = directory / f"{name}-{number}.set"
            path.mkdir(mode=0o700, exist_ok=True)
            made = cls.lock(path)
            if made is not None:
                _keep_names(directory)
                return made
        raise OSError(f"{directory} holds {_SETS:,} spills of {owner.node} in use")

    @classmethod
    def lock(cls, path: Path) -> _Set | None:
        """The set at `path`; None if another process has it."""
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # left and removed just now
            return None
        if _locked(lock) and _still_there(path / _LOCK, lock):
            return cls(path, lock)
        os.close(lock)
        return None

    def segments(self) -> list[_Segment]:
        return [_Segment(path) for path in sorted(self.path.glob(f"*{_SUFFIX}"))]

    def begin(self, owner: Owner) -> _Segment:
        taken = [int(path.stem) for path in self.path.iterdir() if path.stem.isdecimal()]
        segment = _Segment.begin(self.path / f"{max(taken, default=0) + 1:08}{_SUFFIX}", owner)
        _keep_names(self.path)
        return segment

    def leave(self) -> None:
        """Let go of it; if nothing is in it, it goes."""
        if {path.name for path in self.path.iterdir()} <= {_LOCK}:
            (self.path / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # another process may have come in between
                self.path.rmdir()
        os.close(self._lock)


def _locked(file: int) -> bool:
    """Take the lock of an open file, which ends with its process; False if it is taken."""
    try:
        import fcntl
    except ImportError:
        return _locked_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked_on_windows(file: int) -> bool:
    import msvcrt

    system: Any = msvcrt
    try:
        system.locking(file, system.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def _still_there(path: Path, file: int) -> bool:
    """Whether `path` still names the open file: its set may have been left meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _keep_names(directory: Path) -> None:
    """Have the names in a directory survive the machine, where that can be asked for."""
    with suppress(PermissionError):  # Windows opens no directories
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
