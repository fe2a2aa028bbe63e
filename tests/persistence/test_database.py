from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from actorbus.errors import AuditUnavailable
from actorbus.persistence.audit import Audit
from actorbus.persistence.database import Database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "sqlite:///history.db"),
        ("history.db", "sqlite:///history.db"),
        ("mysql://host/db", "'mysql'.*sqlite:///history.db"),
        ("sqllite:///history.db", "Did you mean sqlite|Did you mean 'sqlite'"),
        ("postgresql+asyncpg://host/db", r"postgresql\+psycopg"),
        ("sqlite://history.db", "three slashes"),
        ("sqlite:///file:history.db?uri=true", "three slashes"),
        ("sqlite:///history.db?mode=ro", r"no option 'mode'.*use sqlite:///history\.db, "),
        ("postgresql://user:secret@host:port/db", "no URL of a database"),
        ("postgresql+psycopg://u:secret@[::1/db", "no URL of a database"),
        ("http://user:secret@host/db", "'http'"),
    ],
)
def test_a_url_that_means_no_database_is_told_what_would(url: str, says: str) -> None:
    with pytest.raises(AuditUnavailable, match=says) as caught:
        Database(url)

    assert "secret" not in str(caught.value)


def test_a_url_that_is_no_text_is_refused() -> None:
    with pytest.raises(AuditUnavailable, match="no URL"):
        Database(None)  # type: ignore[arg-type]


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match=r"is a directory: name a file in it, .*history\.db"):
        Database(f"sqlite:///{tmp_path}").upgrade()


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match="does not exist: make it"):
        Database(f"sqlite:///{tmp_path}/missing/history.db").upgrade()


def test_a_place_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(AuditUnavailable, match=r"/proc/history\.db cannot be"):
        Database("sqlite:////proc/history.db").upgrade()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_history_in_memory_is_shown_as_it_was_written(url: str) -> None:
    assert Database(url).shown == url


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 500)

    with pytest.raises(AuditUnavailable, match=r"notes.txt is not an SQLite database"):
        Database(f"sqlite:///{path}").upgrade()
    with pytest.raises(AuditUnavailable, match=r"notes.txt is not an SQLite database"):
        Audit(f"sqlite:///{path}").counts()

    assert path.read_text() == "dear diary " * 500


def test_a_database_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER)")
    shop.close()

    with pytest.raises(AuditUnavailable, match=r"something else \(tables orders\)"):
        Database(f"sqlite:///{path}").upgrade()
    with pytest.raises(AuditUnavailable, match="something else"):
        Audit(f"sqlite:///{path}").counts()


def test_the_history_of_a_newer_actorbus_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    Database(url).upgrade()
    with sqlite3.connect(tmp_path / "history.db") as connection:
        connection.execute("UPDATE actorbus_schema SET version_num = '9999'")
    connection.close()

    with pytest.raises(AuditUnavailable, match=r"newer actorbus \(schema 9999.*upgrade actorbus"):
        Database(url).upgrade()
    with pytest.raises(AuditUnavailable, match="newer actorbus"):
        Audit(url).counts()


def test_reading_makes_no_file(tmp_path: Path) -> None:
    audit = Audit(f"sqlite:///{tmp_path / 'history.db'}")

    with pytest.raises(AuditUnavailable, match=r"no history at .*history\.db: a node started with"):
        audit.messages()

    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_holds_no_history() -> None:
    with pytest.raises(AuditUnavailable, match="holds no history yet"):
        Audit("sqlite://").messages()


def test_a_server_that_is_away_is_named_without_the_password() -> None:
    database = Database("postgresql+psycopg://user:secret@127.0.0.1:1/db?connect_timeout=1")

    with pytest.raises(
        AuditUnavailable, match=r"postgresql://user:\*\*\*@127.0.0.1:1/db"
    ) as caught:
        database.upgrade()

    assert "secret" not in f"{caught.value!r} {database!r}"


def test_an_audit_shows_no_password() -> None:
    audit = Audit("postgresql://user:secret@host/db?password=secret")

    assert "secret" not in f"{audit!r} {audit.url}"


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(AuditUnavailable, match=r"pip install 'actorbus\[postgres\]'"):
        Database("postgresql+psycopg://host/db")


def test_naming_an_audit_imports_no_sqlalchemy() -> None:
    program = (
        "import sys; from actorbus.persistence.audit import Audit; Audit('sqlite://');"
        "sys.exit(any(name in sys.modules for name in ('sqlalchemy', 'alembic')))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
