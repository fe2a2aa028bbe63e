"""Whatever history holds, and whatever it is asked for: each command's answer is inert."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from actorbus.cli.audit import app
from actorbus.message import IdSource, Message, MessageKind, Priority, Reason, Status, format_id
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

    from actorbus.message import MessageId

STEERING = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\r"
FORMULA = "=cmd|' /C calc'!A0"
MARKUP = "</text><script>alert(1)</script><!-- & ]]>"
HOSTILE = f"{FORMULA} {STEERING} {MARKUP} [red]"

BY = ("--why", HOSTILE, "--by", HOSTILE)
ANSWERS: list[tuple[str, ...]] = [
    ("list",),
    ("show", "ID"),
    ("conversation", "ID"),
    ("conversation", "ID", "--format", "mermaid"),
    ("conversation", "ID", "--format", "svg"),
    ("conversation", "ID", "--format", "json"),
    ("conversation", "ID", "--format", "chrome-trace"),
    ("causes", "ID"),
    ("tail",),
    ("talk",),
    ("times",),
    ("runs",),
    ("runs", MARKUP),
    ("export",),
    ("export", "--format", "csv"),
    ("export", "--format", "cloudevents"),
    ("verify",),
    ("retain", "--messages", "100", *BY),
    ("hold",),
    ("hold", f"run:{HOSTILE}", "--release", *BY),
    ("redact", "ID", *BY),
    ("anchors",),
    ("repair", "--grace", "0"),
    ("replay", "ID", "--load", "agents"),
]
PROGRAMS = [one for one in ANSWERS if "--format" not in one]

WRONG_IDS = [
    "",
    "nonsense",
    "0199",
    "01990000-0000-7000-8000-00000000000g",
    "9" * 60,
    "../../etc/passwd",
    "' OR 1=1 --",
    "%",
    HOSTILE,
    "x" * 100_000,
]
TAKE_AN_ID: list[tuple[str, ...]] = [
    ("show", "--", "ID"),
    ("conversation", "--", "ID"),
    ("causes", "--", "ID"),
    ("replay", "--load", "agents", "--", "ID"),
    ("redact", "--why", "policy", "--", "ID"),
    ("hold", "--why", "policy", "--", "conversation:ID"),
    ("hold", "--why", "policy", "--release", "--", "conversation:ID"),
    ("list", "--before=ID"),
    ("runs", "--before=ID"),
    *((command, "--conversation=ID") for command in ("list", "tail", "talk", "times", "export")),
]


@pytest.fixture
def hostile_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A message whose every text is hostile, in a history that has nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTORBUS_AUDIT", "sqlite:///history.db")
    (tmp_path / "agents").mkdir()
    clock, ids = ManualClock(), IdSource()
    audit = Audit("sqlite:///history.db")
    recorder = audit.record(node=HOSTILE, settings=Settings(), telemetry=Telemetry(), clock=clock)
    recorder.start()
    told = _message(ids.make(clock.now()), clock.now(), MessageKind.TELL)
    event = _message(ids.make(clock.now()), clock.now(), MessageKind.EVENT)
    for message in (told, event):
        recorder.sent(message)
        recorder.ended(
            message, HOSTILE, Status.DEAD, Reason(HOSTILE), HOSTILE, clock.now(), clock.now() + 1
        )
    recorder.sent(_message(ids.make(clock.now()), clock.now(), MessageKind.TELL))
    recorder.close(10)
    audit.hold(f"run:{HOSTILE}", actor=HOSTILE, reason=HOSTILE)
    audit.close()
    return format_id(told.id)


def _message(id: MessageId, now: float, kind: MessageKind) -> Message[Any]:
    return Message(
        id=id,
        kind=kind,
        sender=HOSTILE,
        recipient=HOSTILE if kind is MessageKind.TELL else None,
        topic=HOSTILE if kind is MessageKind.EVENT else None,
        payload={HOSTILE: HOSTILE},
        priority=Priority.NORMAL,
        created_at=now,
        deadline=None,
        correlation_id=id,
        causation_id=None,
        run_id=HOSTILE,
        attempt=1,
        hops=0,
        headers={HOSTILE: HOSTILE},
        type=HOSTILE,
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def _of(arguments: tuple[str, ...], id: str) -> tuple[str, ...]:
    return tuple(one.replace("ID", id) for one in arguments)


def _steers(result: Result) -> set[str]:
    return {char for char in result.output if not char.isprintable() and char != "\n"}


@pytest.mark.parametrize("arguments", ANSWERS, ids=lambda one: " ".join(one)[:40])
def test_no_field_of_history_steers_a_terminal(hostile_id: str, arguments: tuple[str, ...]) -> None:
    result = run(*_of(arguments, hostile_id))

    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1, 3)
    assert result.output
    assert not _steers(result) - ({"\r"} if "csv" in arguments else set())


@pytest.mark.parametrize("arguments", PROGRAMS, ids=lambda one: " ".join(one)[:40])
def test_no_field_of_history_leaves_its_json(hostile_id: str, arguments: tuple[str, ...]) -> None:
    result = run(*_of(arguments, hostile_id), "--json")

    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not _steers(result)
    for line in result.stdout.splitlines() if arguments[0] in ("tail", "export") else [""]:
        json.loads(line or result.stdout or "null")


def test_no_field_of_history_is_markup_in_a_drawing(hostile_id: str) -> None:
    drawn = run("conversation", hostile_id, "--format", "svg").stdout

    names = {one.tag.rpartition("}")[2] for one in ElementTree.fromstring(drawn).iter()}  # noqa: S314 - our own
    assert "script" not in names
    assert "alert(1)" in drawn


def test_no_field_of_history_is_a_formula_in_a_table(hostile_id: str) -> None:
    written = run("export", "--format", "csv").stdout_bytes.decode()

    cells = [cell for row in csv.reader(io.StringIO(written)) for cell in row]
    assert any(FORMULA in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))]


@pytest.mark.parametrize("wrong", WRONG_IDS, ids=lambda one: ascii(one[:12]))
@pytest.mark.parametrize("arguments", TAKE_AN_ID, ids=lambda one: " ".join(one)[:40])
def test_what_is_no_id_is_wrong_usage(
    hostile_id: str, arguments: tuple[str, ...], wrong: str
) -> None:
    result = run(*_of(arguments, wrong))

    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 400
    assert not _steers(result)


@pytest.mark.parametrize("command", ["list", "tail", "talk", "times", "export"])
def test_a_name_that_was_mistyped_is_told_from_nothing(hostile_id: str, command: str) -> None:
    nothing = run(command, "--sender", "nobody")
    no_project = run(command, "--project", "defualt")
    no_tenant = run(command, "--tenant", "defualt")

    assert (nothing.exit_code, no_project.exit_code, no_tenant.exit_code) == (0, 0, 0)
    assert nothing.stderr == "Nothing matches.\n"
    assert "no project 'defualt'. Did you mean 'default'?" in no_project.stderr
    assert "no tenant 'defualt'" in no_tenant.stderr
