from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from actorbus import Agent, Node, handles
from actorbus.cli.audit import app
from actorbus.message import format_id
from actorbus.persistence.audit import Audit
from actorbus.persistence.drawing import Format, draw


class Counter(Agent):
    @handles
    def count(self, text: str) -> int:
        return len(text.split())


class Boss(Agent):
    @handles
    def begin(self, task: str) -> int:
        words: int = self.ask("counter", task).get()
        self.tell("counter", 3.5)
        return words


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A boss asked a counter, and told it something that it does not understand."""
    url = f"sqlite:///{tmp_path_factory.mktemp('history') / 'history.db'}"
    with Node(audit=url) as node:
        node.spawn(Counter, name="counter")
        node.spawn(Boss, name="boss").ask("to be or not").get()
        node.drain(10)
    return url


@pytest.fixture(scope="module")
def found(history: str) -> Any:
    audit = Audit(history)
    first = audit.messages(recipient="boss")[-1]
    views = audit.conversation(first.id)
    audit.close()
    return views


@pytest.fixture
def run(history: str, found: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command on that conversation, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("ACTORBUS_TENANT", "ACTORBUS_PROJECT", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str, env: dict[str, str] | None = None) -> Result:
        command = ["conversation", format_id(found[1].id), "--audit", history, *arguments]
        return CliRunner().invoke(app, command, env=env)

    return invoke


def test_a_reply_is_drawn_from_who_was_asked_to_who_asked(run: Any) -> None:
    told = [line.split("  ") for line in run().stdout.splitlines()[2:]]

    arrows = [next(part for part in line if "> " in part or "x " in part) for line in told]
    assert arrows == [
        "outside ──> boss",
        "boss ──> counter",
        "counter ╌╌> boss",
        "boss ──x counter",
        "boss ╌╌> outside",
    ]


def test_a_cause_that_is_not_in_history_is_said(
    run: Any, history: str, found: Any, tmp_path: Path
) -> None:
    copied = tmp_path / "part.db"
    with closing(Audit(history)) as audit, closing(sqlite3.connect(copied)) as part:
        assert audit.path is not None
        with closing(sqlite3.connect(audit.path)) as whole:
            whole.backup(part)
        part.execute("DELETE FROM agent_messages WHERE recipient = 'boss' AND sender IS NULL")
        part.commit()

    told = run("--audit", f"sqlite:///{copied}").stderr
    whole_told = run().stderr

    assert "1 message that caused some of these is not here" in told
    assert whole_told == ""


def test_colours_are_for_terminals_that_want_them(run: Any) -> None:
    assert "\x1b[31m" in run(env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout
    assert "\x1b[31m" not in run(env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout
    assert "\x1b" not in run().stdout


@pytest.mark.parametrize("format", list(Format))
def test_each_format_is_written_to_stdout_or_to_a_file(
    run: Any, found: Any, format: Format
) -> None:
    printed = run("--format", format)
    filed = run("--format", format, "-o", "drawing")

    wanted = draw(found, format, width=10_000)
    assert (printed.exit_code, filed.exit_code) == (0, 0)
    assert printed.stdout == wanted
    assert Path("drawing").read_text(encoding="utf-8") == wanted
    assert filed.stdout == ""


def test_json_is_a_format_too(run: Any) -> None:
    assert run("--json").stdout == run("--format", "json").stdout
    assert len(json.loads(run("--json").stdout)) == 5


def test_json_says_of_each_message_what_show_says(run: Any, history: str) -> None:
    told = json.loads(run("--json").stdout)

    for one in told:
        command = ["show", one["id"], "--json", "--audit", history]
        assert json.loads(CliRunner().invoke(app, command).stdout) == one


def test_the_drawing_of_a_real_conversation_is_well_formed(run: Any) -> None:
    root = ElementTree.fromstring(run("--format", "svg").stdout)  # noqa: S314 - our own

    assert sum("data-id" in element.attrib for element in root.iter()) == 5


def test_a_format_nobody_knows_is_wrong_usage(run: Any) -> None:
    result = run("--format", "pdf")

    assert result.exit_code == 2
    assert "chrome-trace" in result.stderr


@pytest.mark.parametrize("path", ["missing/drawing.svg", "folder"])
def test_a_path_that_cannot_be_written_is_said(run: Any, path: str) -> None:
    Path("folder").mkdir()

    result = run("--format", "svg", "-o", path)

    assert result.exit_code == 1
    assert f"Error: cannot write {path}: " in result.stderr
    assert os.listdir() == ["folder"]  # noqa: PTH208 - nothing half written, hidden or not
    assert os.listdir("folder") == []  # noqa: PTH208


def test_a_file_is_replaced_whole_and_keeps_its_permissions(run: Any) -> None:
    drawing = Path("drawing.svg")
    drawing.write_text("what was there")
    drawing.chmod(0o600)
    with drawing.open() as reader:
        run("--format", "svg", "-o", "drawing.svg")

        assert reader.read() == "what was there"

    assert drawing.read_text(encoding="utf-8").startswith("<svg")
    assert stat.S_IMODE(drawing.stat().st_mode) == 0o600


def test_a_link_is_followed_and_a_device_is_written_to(run: Any) -> None:
    Path("link").symlink_to("drawing.svg")

    followed = run("--format", "svg", "-o", "link")
    thrown_away = run("--format", "svg", "-o", os.devnull)

    assert (followed.exit_code, thrown_away.exit_code) == (0, 0)
    assert Path("link").is_symlink()
    assert Path("drawing.svg").read_text(encoding="utf-8").startswith("<svg")
    assert Path(os.devnull).is_char_device()


def test_more_than_the_limit_is_said_beside_the_drawing(run: Any) -> None:
    result = run("--limit", "2", "--format", "mermaid")

    assert result.stdout.startswith("sequenceDiagram\n")
    assert "Only the first 2" in result.stderr
