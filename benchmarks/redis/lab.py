"""One measurement's server and consumers, and whose processors were busy meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.redis.marks import FILE, MILESTONES, wait_for
from benchmarks.redis.server import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.redis.server import Redis
    from benchmarks.workload import Sample

URL: Final = "BENCH_URL"
_ROOT: Final = Path(__file__).resolve().parents[2]
_ALL_WITHIN: Final = 90.0
_ENDS_WITHIN: Final = 5.0


class Lab:
    """Starts consumers, and waits for what they have handled."""

    def __init__(self, server: Redis, folder: Path) -> None:
        self.server = server
        self.url = server.url
        self._folder = folder
        self._until = time.monotonic() + _ALL_WITHIN
        self._made = 0

    @contextmanager
    def consumer(self, *command: str, milestones: tuple[int, ...]) -> Iterator[Consumer]:
        """Run ``python -m COMMAND``, which finds URL, FILE and MILESTONES in its environment."""
        self._made += 1
        marks = self._folder / f"marks-{self._made}"
        marks.touch()
        environment = {
            **os.environ,
            URL: self.url,
            FILE: str(marks),
            MILESTONES: ",".join(map(str, milestones)),
        }
        with (self._folder / f"log-{self._made}").open("w+") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                yield Consumer(process, marks, self._until)
            except Exception:
                log.seek(0)
                sys.stderr.write(log.read()[-4_000:])
                raise
            finally:
                _end(process)


class Consumer:
    """A process that handles messages and makes marks."""

    def __init__(self, process: subprocess.Popen[bytes], marks: Path, until: float) -> None:
        self.pid = process.pid
        self._process = process
        self._marks = marks
        self._until = until

    def reached(self, mark: int) -> float:
        """Wait for it; the time."""
        return wait_for(self._marks, mark, self._until, self._is_alive)

    def kill(self) -> float:
        """As a crash would; the time."""
        self._process.kill()
        self._process.wait(_ENDS_WITHIN)
        return time.monotonic()

    def cpu_seconds(self) -> float:
        """Of this process alone, not of what it started."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _is_alive(self) -> bool:
        return self._process.poll() is None


@dataclass(frozen=True, slots=True)
class Accounts:
    """Processor time so far: of this process, of the server and of the consumer."""

    sender: float
    redis: float
    owner: float

    @classmethod
    def now(cls, lab: Lab, consumer: Consumer) -> Accounts:
        return cls(time.process_time(), lab.server.cpu_seconds(), consumer.cpu_seconds())

    def until(self, later: Accounts, n: int) -> Sample:
        """Microseconds a message."""
        return {
            "sender": (later.sender - self.sender) / n * 1e6,
            "redis": (later.redis - self.redis) / n * 1e6,
            "owner": (later.owner - self.owner) / n * 1e6,
        }


@contextmanager
def lab(*, aof: bool = False) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="actorbus-lab-") as folder, redis(aof=aof) as server:
        yield Lab(server, Path(folder))


def _end(process: subprocess.Popen[bytes]) -> None:
    """What it has started in its turn ends with the process of the measurement."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_ENDS_WITHIN)
