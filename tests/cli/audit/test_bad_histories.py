"""What every command says of a history that is none, or not of this version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from actorbus import Node, format_id
from actorbus.cli.audit import app
from actorbus.persistence import migrations
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from pathlib import Path

NO_ID = "01990000-0000-7000-8000-000000000000"
BY = ("--why", "policy", "--by", "ada")

READING: list[tuple[str, ...]] = [
    ("list",),
    ("show", NO_ID),
    ("conversation", NO_ID),
    ("causes", NO_ID),
    ("replay", NO_ID, "--load", "."),
    ("repair",),
    ("tail",),
    ("tail", "-f"),
    ("talk",),
    ("times",),
    ("runs",),
    ("runs", "some-run"),
    ("export",),
    ("verify",),
    ("hold",),
    ("anchors",),
]
CHANGING: list[tuple[str, ...]] = [
    ("retain", "--messages", "0", *BY),
    ("redact", NO_ID, *BY),
    ("hold", "tenant", *BY),
    ("hold", "tenant", "--release", *BY),
]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTORBUS_AUDIT", "sqlite:///history.db")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history of a question and its answer."""

    def upper(text: str) -> str:
        return text.upper()

    with Node(audit=Audit("sqlite:///history.db", anchors=False)) as node:
        node.spawn(upper, name="upper").ask("a").get()
    return tmp_path / "history.db"


@pytest.fixture
def older(path: Path) -> Path:
    """One as the first version wrote it."""
    audit = Audit(f"sqlite:///{path}")
    connection = audit._database().connect()
    with connection.begin():
        migrations.downgrade(connection, "0001")
    connection.close()
    audit.close()
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def _make(what: str, path: Path) -> None:
    match what:
        case "text":
            path.write_text("no database at all, only text " * 100)
        case "nothing":
            path.write_bytes(b"")
        case "a folder":
            path.mkdir()
        case "another's tables":
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("CREATE TABLE orders (id)")
        case "noise":
            path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 16)


@pytest.mark.parametrize("arguments", [*READING, *CHANGING], ids=" ".join)
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("nowhere", "there is no history at history.db"),
        ("text", "history.db is not an SQLite database"),
        ("nothing", "holds no history yet"),
        ("a folder", "history.db is a directory"),
        ("another's tables", "history.db is a database of something else"),
        ("noise", "history.db"),
    ],
)
def test_what_is_no_history_is_said_and_left_alone(
    tmp_path: Path, what: str, says: str, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / "history.db"
    _make(what, path)
    before = path.read_bytes() if path.is_file() else None

    result = run(*arguments)

    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [one.name for one in tmp_path.iterdir()] == ([path.name] if path.exists() else [])


@pytest.mark.parametrize("arguments", [*READING, *CHANGING], ids=" ".join)
def test_a_newer_schema_is_left_to_newer_programs(path: Path, arguments: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")  # noqa: S608

    result = run(*arguments)

    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert "newer actorbus" in result.stderr


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_an_older_schema_is_read_or_said(older: Path, arguments: tuple[str, ...]) -> None:
    before = older.read_bytes()

    result = run(*arguments)

    assert result.exit_code in (0, 1)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "no such" not in result.output
    assert older.read_bytes() == before


def test_an_older_schema_shows_its_messages(older: Path) -> None:
    (question, answer) = Audit(f"sqlite:///{older}").messages()[::-1]

    shown = [run("list"), run("tail"), run("conversation", format_id(question.id))]

    assert all("upper" in one.stdout for one in shown)
    assert format_id(answer.id) in shown[0].stdout


@pytest.mark.parametrize("arguments", [("tail", "-f"), ("verify",), ("hold",)])
def test_what_an_older_schema_cannot_answer_says_how_it_is_brought_up_to_date(
    older: Path, arguments: tuple[str, ...]
) -> None:
    result = run(*arguments)

    assert result.exit_code == 1
    assert "an older actorbus wrote" in result.stderr
    assert "a node started on it" in result.stderr
