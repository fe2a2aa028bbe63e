"""The database behind a history: which URLs mean one, how it is opened, what can be wrong.

Every failure to open comes out as ``AuditUnavailable`` with what would have worked, and none
shows a password. Writers and readers have engines of their own:

- SQLite: write-ahead log, so that reading goes on while a node writes. The writer begins with
  BEGIN IMMEDIATE, because a transaction that reads first and writes later gets "locked" at
  once, whatever the time-out. That time-out is Python's own, 5 s; ``?timeout=`` sets it.
- ``sqlite://`` is one connection for everybody, with a lock round each use.
- PostgreSQL: the same statements, and row-level security beside them (``tenancy.py``). No
  statement waits for its answer without end (``patience.py``). Readers keep one connection: a
  new one costs as much as a page, and plans everything anew.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, nullcontext
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import finalize

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from actorbus.errors import AuditUnavailable, InvalidAuditUrl, did_you_mean
from actorbus.persistence import migrations, tenancy
from actorbus.persistence.patience import limit_waits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import URL, Connection, Engine

_EXAMPLES: Final = (
    "sqlite:///history.db, sqlite:////absolute/history.db, sqlite:// (in memory)"
    " or postgresql+psycopg://user:password@host/database"
)
_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_POSTGRESQL: Final[Mapping[str, int]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""No call hangs on a host that is gone: seconds, and milliseconds. What the URL says goes first."""
_HASTY: Final = {**_POSTGRESQL, "connect_timeout": 2}
"""For who comes back every few seconds; 2 s is the least there is."""
_SQLITE_OPTIONS: Final = frozenset(
    {"cached_statements", "check_same_thread", "detect_types", "isolation_level", "timeout"}
)
"""What the driver takes after the question mark; it ignores all else with a warning."""
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""Ends of the names of files that SQLite keeps beside a database."""
_SQLITE_WRITER: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = {}",
    # 16 MiB each of pages and of log: indexes that stay in memory made writing 12 % faster.
    "PRAGMA cache_size = -16384",
    "PRAGMA wal_autocheckpoint = 4096",
)


class Database:
    """One history database. Nothing is opened before it is needed.

    Raises:
        InvalidAuditUrl: the URL cannot mean a database that we know.
    """

    def __init__(self, url: str, *, durable: bool = False) -> None:
        self._url = _parsed(url)
        self.shown = _shown(self._url)
        """The URL without its secrets."""
        self.dialect = self._url.get_backend_name()
        self.path = _path(self._url)
        """The file, for a database that is one."""
        self._tenant: str | None = None
        in_memory = self.dialect == "sqlite" and self.path is None
        self._exclusive: Any = threading.RLock() if in_memory else nullcontext()
        self._writer = self._engine(in_memory=in_memory)
        self._reader = self._writer if in_memory else self._engine(kept=1)
        self._hasty = self._writer if self.dialect == "sqlite" else self._engine(options=_HASTY)
        self._kept = _Kept(self._writer, self._reader, self._hasty)
        if self.dialect == "sqlite":
            _begin_at_once(self._writer, durable=durable)
        driver: Any = self._reader.dialect.loaded_dbapi
        self._driver_error: type[Exception] = driver.Error  # of who reads past SQLAlchemy

    def of(self, tenant: str) -> Database:
        """The same database, as one tenant may see it: PostgreSQL refuses all else.

        It shares the connections; closing one closes both, and so does forgetting both.
        """
        seen = copy(self)
        seen._tenant = tenant
        return seen

    def owns(self, path: Path) -> bool:
        """Whether the database keeps itself in that file."""
        if self.path is None:
            return False
        own = self.path.resolve()
        return path.resolve() in (own, *(own.with_name(own.name + one) for one in _BESIDE))

    def upgrade(self) -> None:
        """Make the database if there is none, and bring its schema to this version's.

        Raises:
            AuditUnavailable: it cannot be opened or written, it is no database of ours, or a
                newer actorbus wrote it.
        """
        self._check_place()
        with self._exclusive, self._explained(), self._writer.begin() as connection:
            found = migrations.version(connection)
            self._check_known(found)
            if found != migrations.HEAD:
                migrations.upgrade(connection)

    def connect(self, *, hasty: bool = False) -> Connection:
        """A connection for writing, to be closed by whoever asked for it.

        `hasty`: the server is believed to be away, and is asked again before long.
        """
        with self._exclusive:
            return (self._hasty if hasty else self._writer).connect()

    def release(self, connection: Connection) -> None:
        """Close a connection, whatever state it is in."""
        with self._exclusive:
            connection.close()

    @contextmanager
    def writing(self, connection: Connection) -> Iterator[None]:
        """One transaction: all of it is there in the end, or nothing."""
        with self._exclusive, connection.begin():
            tenancy.enter(connection, self._tenant)
            yield

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """One transaction, for what is changed now and then; foreign keys are enforced in it.

        SQLite does so for who asks, and the writer does not: it knows its keys, and the look at
        the parent would cost it something for every row.

        Raises:
            AuditUnavailable: the database cannot be opened or written.
        """
        self.upgrade()
        with self._exclusive, self._explained(), self._writer.connect() as connection:
            self._enforce_keys(connection, "ON")
            try:
                with connection.begin():
                    tenancy.enter(connection, self._tenant)
                    yield connection
            finally:
                self._enforce_keys(connection, "OFF")

    @contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """A connection to a history that exists; this never makes one.

        With `snapshot` all questions see history as it was at the first.

        Raises:
            AuditUnavailable: there is none, or it cannot be read.
        """
        self._check_place()
        if self.path is not None and not self.path.exists():
            raise AuditUnavailable(
                f"there is no history at {self.path}: a node started with"
                f' audit="{self.shown}" writes one'
            )
        with self._exclusive, self._explained(), self._reader.connect() as connection:
            if snapshot and connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            elif snapshot and self.path is not None:
                connection.exec_driver_sql("BEGIN")  # the driver begins none for what only reads
            self._check_schema(connection)
            tenancy.enter(connection, self._tenant)
            yield connection

    def explain(self, error: BaseException) -> str:
        """What a failure means, in one line without secrets."""
        if isinstance(error, AuditUnavailable):
            return str(error)
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        if "unable to open database file" in reason:
            return f"{self.path} cannot be opened or made: check who may write there"
        if "file is not a database" in reason:
            return f"{self.path} is not an SQLite database: name another file, or a new one"
        if "readonly database" in reason:
            return f"{self.path} cannot be written: check who may write there"
        return f"{self.shown}: {_without(self._url.password, reason)}"

    def close(self) -> None:
        """Close what is kept open. Idempotent; a database in memory is gone then."""
        with self._exclusive:
            self._kept.close()

    def __repr__(self) -> str:
        return f"<Database {self.shown}>"

    def _engine(
        self,
        *,
        in_memory: bool = False,
        kept: int = 0,
        options: Mapping[str, int] = _POSTGRESQL,
    ) -> Engine:
        """`kept`: how many connections to a server stay open for the next who asks."""
        if self.dialect == "sqlite":
            return create_engine(
                self._url,
                hide_parameters=True,
                poolclass=StaticPool if in_memory else NullPool,
                connect_args={"check_same_thread": False},
            )
        pool: dict[str, Any] = {"poolclass": NullPool}
        if kept:
            pool = {"pool_size": kept, "max_overflow": -1, "pool_pre_ping": True}
        wanted = {name: value for name, value in options.items() if name not in self._url.query}
        try:
            engine = create_engine(
                self._url,
                hide_parameters=True,
                paramstyle="format",
                connect_args=wanted,
                **pool,
            )
        except ImportError:
            raise AuditUnavailable(
                f"{self.shown} needs the driver psycopg: pip install 'actorbus[postgres]'"
            ) from None
        limit_waits(engine)
        return engine

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except migrations.ForeignSchema as error:
            raise AuditUnavailable(
                f"{self.shown} is a database of something else (tables {error}); name an empty one"
            ) from None
        except (DBAPIError, self._driver_error, TypeError, OSError) as error:
            raise AuditUnavailable(self.explain(error)) from None

    def _enforce_keys(self, connection: Connection, state: str) -> None:
        if self.dialect == "sqlite":  # past SQLAlchemy: within a transaction it has no effect
            driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA foreign_keys = {state}").close()

    def _check_place(self) -> None:
        if self.path is None:
            return
        if self.path.is_dir():
            raise AuditUnavailable(
                f"{self.path} is a directory: name a file in it,"
                f" sqlite:///{self.path / 'history.db'}"
            )
        if not self.path.parent.is_dir():
            raise AuditUnavailable(
                f"the directory {self.path.parent} does not exist: make it, or name a file"
                " in one that does"
            )

    def _check_schema(self, connection: Connection) -> None:
        """See once a connection that there is a history, of a schema that we can read."""
        if connection.info.get("schema") == migrations.HEAD:
            return
        found = migrations.version(connection)
        if found is None:
            raise AuditUnavailable(f"{self.shown} holds no history yet; a node writes it")
        self._check_known(found)
        connection.info["schema"] = found

    def _check_known(self, version: str | None) -> None:
        if version is not None and version not in migrations.KNOWN:
            raise AuditUnavailable(
                f"{self.shown} was written by a newer actorbus (schema {version[:32]}, this one"
                f" knows up to {migrations.HEAD}): upgrade actorbus, or name another database"
            )


class _Kept:
    """Who owns the connections that are kept: they are closed with the last that holds this."""

    def __init__(self, *engines: Engine) -> None:
        self._mine = engines, os.getpid()
        finalize(self, _dispose, *self._mine)

    def close(self) -> None:
        _dispose(*self._mine)


def _dispose(engines: Iterable[Engine], process: int) -> None:
    for engine in engines:
        # The child of a fork forgets its parent's connections; closing would tell the server.
        engine.dispose(close=os.getpid() == process)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        driver = _DRIVERS.get(parsed.drivername)
    except (ArgumentError, ValueError, TypeError, AttributeError):
        raise InvalidAuditUrl(f"that is no URL of a database; use {_EXAMPLES}") from None
    if driver is None:
        raise InvalidAuditUrl(
            f"no history in a database of kind {parsed.drivername[:32]!r}."
            f"{did_you_mean(parsed.drivername, _DRIVERS)} Use {_EXAMPLES}."
        )
    if parsed.get_backend_name() == "sqlite" and (
        parsed.host or (parsed.database or "").startswith("file:")
    ):
        raise InvalidAuditUrl(
            f"an SQLite URL has three slashes and a path, or four for an absolute one;"
            f" use {_EXAMPLES}"
        )
    if parsed.get_backend_name() == "sqlite" and (unknown := set(parsed.query) - _SQLITE_OPTIONS):
        raise InvalidAuditUrl(
            f"an SQLite URL has no option {min(unknown)[:32]!r}:"
            f" use {_shown(parsed)}, with ?timeout=SECONDS at most"
        )
    return parsed.set(drivername=driver)


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite" and url.database == ":memory:":
        return "sqlite:///:memory:"  # which rendering would escape
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def _path(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _without(secret: object, text: str) -> str:
    return text.replace(str(secret), "***") if secret else text


def _begin_at_once(engine: Engine, *, durable: bool) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None
        for pragma in _SQLITE_WRITER:
            connection.execute(pragma.format("FULL" if durable else "NORMAL")).close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
