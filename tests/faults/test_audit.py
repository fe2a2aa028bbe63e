"""Faults of a history's database, as a node meets them: nothing is lost that was promised.

``FAULTS_ROUNDS`` and ``FAULTS_SECONDS`` make them longer; ``make faults-audit``
does.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from actorbus import Agent, handles
from actorbus import Node as LiveNode
from actorbus.clock import SystemClock
from actorbus.errors import AuditUnavailable
from actorbus.message import IdSource
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import AuditResumed, AuditSpilled, AuditStalled, Telemetry
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus import Ref
    from actorbus.persistence.recorder import Recorder
    from actorbus.persistence.verify import Verification

ROUNDS = int(os.environ.get("FAULTS_ROUNDS", "5"))
SECONDS = float(os.environ.get("FAULTS_SECONDS", "1.5"))
WRITER = Path(__file__).with_name("writer.py")
STEADY_WRITER = Path(__file__).with_name("steady_writer.py")
UNDISTURBED = "FAULTS_SECONDS" in os.environ
"""Whether timings mean something."""
SPILL = 200_000
INTERVAL = Settings().audit_interval
SLACK = 1.0
"""Seconds that a loaded machine may keep a writer waiting beyond its interval."""
BATCH = 0.05
"""Seconds for writing one batch, once it is taken: what is in hand when a writer is killed."""
PHASE = min(3.0, SECONDS / 3)
PAIRS = max(1, int(SECONDS / PHASE / 2))
PAUSE = 0.0005
RING = int(2_000 * PHASE)
"""Records: two seconds' worth, so that the node spills while the database is locked."""


class Node:
    """A recorder in real time, and what it told."""

    def __init__(self, path: Path, name: str = "writer") -> None:
        self.path = path
        self.name = name
        self.told: list[Any] = []
        self._clock = SystemClock()
        self._ids = IdSource()

    def close(self) -> None:
        self._clock.close()

    def record(self, **settings: Any) -> Recorder:
        telemetry = Telemetry()
        telemetry.listen(self.told.append)
        recorder = Audit(f"sqlite:///{self.path}").record(
            node=self.name, settings=Settings(**settings), telemetry=telemetry, clock=self._clock
        )
        recorder.start()
        return recorder

    def send(self, recorder: Recorder, number: int) -> float:
        """How long the sender was kept."""
        now = self._clock.now()
        made = self._ids.make(now)
        begun = time.perf_counter()
        recorder.sent((made, "a", number, 2, now, made, None, None, 0, None, None, "bob"))
        recorder.handled(made, now, now)
        return time.perf_counter() - begun

    def kept(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = connection.execute("SELECT payload FROM agent_messages ORDER BY id").fetchall()
        return [int(payload) for (payload,) in rows]

    def verified(self) -> Verification:
        with closing(Audit(f"sqlite:///{self.path}")) as audit:
            return audit.verify()

    def heard(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with closing(Node(tmp_path / "history.db")) as node:
        yield node


Figure = tuple[str, str]
"""What was measured, and how much it was."""


class _Table:
    """Shows figures at the end of a run."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.figures:
            terminalreporter.section("what the faults of its database cost the history's node")
            for what, figure in self.figures:
                terminalreporter.line(f"{what:<64} {figure:>24}")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[Figure]:
    """What the table at the end of a run shows."""
    plugins = request.config.pluginmanager
    table = plugins.get_plugin("figures of the history's faults")
    if table is None:
        table = _Table()
        plugins.register(table, "figures of the history's faults")
    assert isinstance(table, _Table)
    return table.figures


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the lock meanwhile."""
    script = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        yield
        assert holder.stdin is not None
        holder.stdin.close()


def test_a_lock_held_by_another_process_loses_nothing_and_holds_up_no_sender(node: Node) -> None:
    recorder = node.record(audit_ring=2_000)
    recorder.flush(30)
    waits: list[float] = []
    waited = count_waits(recorder)

    with locked(node.path):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or not node.heard(AuditSpilled):
            waits.append(node.send(recorder, len(waits)))
            time.sleep(0.0005)
    recorder.flush(30)

    waits.sort()
    assert node.kept() == list(range(len(waits)))
    assert node.heard(AuditResumed)
    assert len(waited) <= len(waits) // 100
    if UNDISTURBED:
        assert waits[len(waits) * 99 // 100] < 0.1
    recorder.close(30)


class Clerk(Agent):
    """Notes how long messages took from their sender to here."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    @handles
    def take(self, sent_at: float) -> None:
        self.waits.append(time.perf_counter() - sent_at)

    @handles
    def give(self, _: str) -> list[float]:
        waits, self.waits = self.waits, []
        return waits


def test_a_locked_database_holds_up_no_message(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "history.db"
    free: list[float] = []
    during: list[float] = []
    ratios: list[float] = []
    spilled = 0
    settings = Settings(audit_ring=RING, log_level="off")
    with LiveNode(audit=f"sqlite:///{path}", settings=settings) as node:
        clerk = node.spawn(Clerk)
        warm = measured(clerk)

        for pair in range(PAIRS):
            for hold in (False, True) if pair % 2 else (True, False):
                node.audit.counts()  # a question is answered once all is written
                if not hold:
                    free += (without := measured(clerk))
                    continue
                with locked(path):
                    during += (meanwhile := measured(clerk, enough=lambda: spilled_by(node)))
                    spilled += spilled_by(node) > 0
            ratios.append(percentile(meanwhile, 99) / percentile(without, 99))
        node.audit.counts()  # a node that stops before its next attempt leaves the spill

    told = len(warm) + len(free) + len(during)
    with closing(Audit(f"sqlite:///{path}")) as audit:
        assert audit.verify().findings == ()
        assert audit.counts().by_type["float"] == told
    assert spilled == PAIRS
    ratio = percentile(ratios, 50)
    for how, waits in (("free", free), ("locked", during)):
        shown = " ".join(f"{percentile(waits, one) * 1e6:,.0f}" for one in (50, 99, 99.9))
        what = f"us from tell to handler, {how}, of {len(waits):,}: p50 p99 p99.9"
        figures.append((what, shown))
    figures.append((f"p99 locked / free, median of {PAIRS} pairs", f"{ratio:.2f}"))
    if UNDISTURBED:
        assert ratio <= 1.1


def spilled_by(node: LiveNode) -> int:
    recorder = node.audit._recorder
    return 0 if recorder is None else recorder.spilled


def measured(clerk: Ref, enough: Callable[[], object] = lambda: True) -> list[float]:
    """How long messages took that were sent at a steady pace for a phase, and until `enough`."""
    end = time.monotonic() + PHASE
    while time.monotonic() < end or not enough():
        assert time.monotonic() < end + 30
        clerk.tell(time.perf_counter())
        time.sleep(PAUSE)
    waits: list[float] = clerk.ask("all").get()
    return waits


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[int(len(values) * percent / 100)]


def count_waits(recorder: Recorder) -> list[float]:
    """One for each sender that found no room, as they come."""
    waited: list[float] = []
    wait = recorder._ring.wait_for_room

    def counted(timeout: float) -> bool:
        waited.append(timeout)
        return wait(timeout)

    recorder._ring.wait_for_room = counted  # type: ignore[method-assign]
    return waited


@pytest.mark.parametrize(
    ("pragma", "why"),
    [("query_only = ON", "cannot be written"), ("max_page_count = 1", "full")],
    ids=["read-only", "full"],
)
def test_a_database_that_takes_nothing_spills_to_the_limit_then_blocks_then_recovers(
    node: Node, pragma: str, why: str
) -> None:
    # A batch is what waits in the ring: a small part of what may be spilled, else one that does
    # not fit any more leaves half of that free.
    recorder = node.record(audit_ring=100, audit_spill_bytes=SPILL, send_timeout=0.3)
    node.send(recorder, 0)
    recorder.flush(30)

    with hindered(recorder, pragma):
        taken = sent_until_refused(node, recorder, first=1)
        during, spilled = recorder.health, recorder.spilled
    recorder.flush(30)

    assert why in node.heard(AuditStalled)[0].error
    assert len(node.heard(AuditSpilled)) == 1
    assert SPILL // 2 < spilled <= SPILL
    assert (during, recorder.health) == ("blocked", "ok")
    assert node.kept() == list(range(taken))
    assert node.verified().findings == ()
    recorder.close(30)


@contextmanager
def hindered(recorder: Recorder, pragma: str) -> Iterator[None]:
    """SQLite refuses to write meanwhile, on the connection there is and on each new one.

    A file system that is full or read-only takes more rights to make than a test has.
    """

    def hinder(connection: Any, record: object = None) -> None:
        connection.execute(f"PRAGMA {pragma}").close()

    engine = recorder.database._writer
    current = recorder._writer._appender.connection
    assert current is not None
    hinder(current.connection.driver_connection)
    event.listen(engine, "connect", hinder)
    yield
    event.remove(engine, "connect", hinder)


def test_a_file_that_is_taken_away_and_brought_back_loses_and_doubles_nothing(node: Node) -> None:
    recorder = node.record(audit_ring=500, audit_spill_bytes=SPILL, send_timeout=0.3)
    node.send(recorder, 0)
    recorder.flush(30)
    away = node.path.with_name("away.db")

    node.path.rename(away)
    node.path.mkdir()
    taken = sent_until_refused(node, recorder, first=1)
    during, spilled = recorder.health, recorder.spilled
    node.path.rmdir()
    away.rename(node.path)
    recorder.flush(30)

    assert "deleted or replaced" in node.heard(AuditStalled)[0].error
    assert SPILL // 2 < spilled <= SPILL
    assert (during, recorder.health) == ("blocked", "ok")
    assert node.kept() == list(range(taken))
    assert node.verified().findings == ()
    recorder.close(30)


def test_a_file_that_is_deleted_is_made_anew_and_takes_all_that_came_since(node: Node) -> None:
    recorder = node.record()
    node.send(recorder, 0)
    recorder.flush(30)

    node.path.unlink()
    for number in range(1, 1_000):
        node.send(recorder, number)
    recorder.flush(30)

    assert "deleted or replaced" in node.heard(AuditStalled)[0].error
    assert node.heard(AuditResumed)
    assert recorder.health == "ok"
    assert node.kept() == list(range(1, 1_000))
    recorder.close(30)


def test_a_full_disk_blocks_in_the_end_and_loses_nothing(node: Node) -> None:
    recorder = node.record(audit_ring=500, send_timeout=0.5)
    recorder.flush(30)

    with files_of_at_most(512 * 1024):
        taken = sent_until_refused(node, recorder)
        during = recorder.health
    recorder.flush(30)

    assert (during, recorder.health) == ("blocked", "ok")
    assert node.kept() == list(range(taken))
    recorder.close(30)


def sent_until_refused(node: Node, recorder: Recorder, *, first: int = 0) -> int:
    for number in range(first, 1_000_000):
        try:
            node.send(recorder, number)
        except AuditUnavailable:
            return number
    pytest.fail("nothing was refused")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes meanwhile: a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_database_that_refuses_rows_loses_nothing(node: Node) -> None:
    recorder = node.record(audit_ring=100)
    recorder.flush(30)
    with closing(sqlite3.connect(node.path, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON agent_messages "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        for number in range(1_000):
            node.send(recorder, number)
        until(lambda: node.heard(AuditSpilled))
        connection.execute("DROP TRIGGER refuse")
    recorder.flush(30)

    assert node.kept() == list(range(1_000))
    recorder.close(30)


def test_a_killed_writer_loses_at_most_its_last_interval(node: Node) -> None:
    for turn in range(ROUNDS):
        flushed, sent = killed(node.path, after=6 + 3 * turn)

        node.record().close(30)

        kept = node.kept()
        assert node.verified().findings == ()
        assert len(kept) == len(set(kept))
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) >= flushed
        last = max((at for _, at in sent), default=0.0)
        safe = [number for number, at in sent if at < last - INTERVAL - SLACK]
        assert len(kept) >= max(safe, default=0)
        for left in node.path.parent.glob("history.db*"):
            left.unlink()


def test_a_killed_writer_loses_at_most_one_interval_and_a_batch(
    node: Node, writers: subprocess.Popen[bytes], figures: list[Figure]
) -> None:
    ages: list[float] = []
    lost: list[int] = []
    for turn in range(ROUNDS):
        sent, killed_at = killed_at_work(writers, node.path, after=300 + 37 * turn)

        node.record().close(30)

        kept = node.kept()
        assert node.verified().findings == ()
        assert kept == list(range(1, len(kept) + 1))
        missing = [at for number, at in sent if number > len(kept) and at <= killed_at]
        lost.append(len(missing))
        ages.append(killed_at - min(missing, default=killed_at))
        for left in node.path.parent.glob("history.db*"):
            left.unlink()
    figures.append((f"ms of traffic lost by a kill, most of {ROUNDS}", f"{max(ages) * 1e3:.1f}"))
    figures.append((f"messages lost by a kill, most of {ROUNDS}", str(max(lost))))
    assert max(ages) <= INTERVAL + BATCH + (0 if UNDISTURBED else SLACK)


@pytest.fixture
def writers() -> Iterator[subprocess.Popen[bytes]]:
    """The process that forks steady writers."""
    with subprocess.Popen(
        [sys.executable, str(STEADY_WRITER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()  # a writer that is left ends when nobody listens any more


def killed_at_work(
    writers: subprocess.Popen[bytes], path: Path, *, after: int
) -> tuple[list[tuple[int, float]], float]:
    """What a steady writer had sent, each with its time, when it was killed, and when that was."""
    assert writers.stdin is not None
    assert writers.stdout is not None
    writers.stdin.write(f"sqlite:///{path}\n".encode())
    writers.stdin.flush()
    writer = int(writers.stdout.readline())
    said = [writers.stdout.readline() for _ in range(after)]
    killed_at = time.time()
    os.kill(writer, signal.SIGKILL)
    said += iter(writers.stdout.readline, b"dead\n")
    sent = [line.split() for line in said]
    return [(int(number), float(at)) for number, at in sent], killed_at


def test_what_a_killed_node_spilled_another_node_writes_and_both_chains_verify(
    tmp_path: Path,
) -> None:
    here = Node(tmp_path / "history.db", name="here")
    flushed = spilled_and_killed(here.path)

    recorder = here.record()
    here.send(recorder, 0)
    recorder.close(30)

    *there, own = here.kept()
    verification = here.verified()
    assert own == 0
    assert there == list(range(1, len(there) + 1))
    assert len(there) > flushed
    assert here.heard(AuditResumed)
    assert verification.findings == ()
    assert verification.chains == 2
    assert not segments_beside(here.path)


def spilled_and_killed(path: Path) -> int:
    """The last message that a writer flushed before it had to spill, and then was killed."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), f"sqlite:///{path}?timeout=0", "100"], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        while not (line := writer.stdout.readline()).startswith(b"flushed"):
            assert line
        with ThreadPoolExecutor() as pool, locked(path):
            rest = pool.submit(writer.stdout.readlines)  # or it would wait for its reader
            until(lambda: any(one.stat().st_size > 1_000 for one in segments_beside(path)))
            writer.send_signal(signal.SIGKILL)
            said = [line, *rest.result(30)]
            writer.wait()
    return max(int(line.split()[1]) for line in said if line.startswith(b"flushed"))


def segments_beside(path: Path) -> list[Path]:
    return list(path.parent.glob("*.spill/*/*.spill"))


def killed(path: Path, *, after: int) -> tuple[int, list[tuple[int, float]]]:
    """What a writer had said when it was killed: the last flushed, and what was sent when."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), f"sqlite:///{path}", "100000"], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(51 * after)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    words = [line.split() for line in said if line.endswith(b"\n")]
    flushed = [int(line[1]) for line in words if line[0] == b"flushed"]
    sent = [(int(line[1]), float(line[2])) for line in words if line[0] == b"sent"]
    return max(flushed), sent
