from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from actorbus.cli.audit import app
from actorbus.message import (
    IdSource,
    Message,
    MessageId,
    MessageKind,
    Priority,
    Reason,
    Status,
    format_id,
)
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202e"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ACTORBUS_AUDIT", "ACTORBUS_TENANT", "ACTORBUS_PROJECT", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    """A history of a question, its answer, and a hostile message that died."""
    clock, source = ManualClock(), IdSource()
    recorder = Audit(f"sqlite:///{tmp_path / 'history.db'}").record(
        node="node-1", settings=Settings(), telemetry=Telemetry(), clock=clock
    )
    recorder.start()

    def say(payload: Any, kind: MessageKind, cause: MessageId | None, *who: str | None) -> Any:
        clock.advance(1)
        made = source.make(clock.now())
        message: Message[Any] = Message(
            made,
            kind,
            who[0],
            who[1],
            None,
            payload,
            Priority.NORMAL,
            clock.now(),
            None,
            cause or made,
            cause,
            None,
            1,
            0,
            None,
        )
        recorder.sent(message)
        return message

    question = say({"n": 1}, MessageKind.REQUEST, None, None, "librarian-of-alexandria")
    answer = say("x" * 200, MessageKind.REPLY, question.id, "librarian-of-alexandria", None)
    hostile = say({HOSTILE: HOSTILE}, MessageKind.TELL, None, "alice", "bob")
    now = clock.now()
    for message in (question, answer):
        recorder.ended(message, message.recipient, Status.HANDLED, None, None, now, now)
    recorder.ended(hostile, "bob", Status.DEAD, Reason.HANDLER_ERROR, HOSTILE, None, now)
    recorder.close(10)
    return [format_id(one.id) for one in (question, answer, hostile)]


def _run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, arguments, env=env)


def _audit(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return _run(*arguments, "--audit", "sqlite:///history.db", env=env)


def test_a_list_shows_whole_ids_when_piped(ids: list[str]) -> None:
    result = _audit("list")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.split()[0] for line in lines[1:]] == ids[::-1]
    assert "librarian-of-alexandria" in result.stdout
    assert "dead: handler-error" in result.stdout


def test_a_list_takes_filters_and_names_the_next_page(ids: list[str]) -> None:
    first = _audit("list", "--limit", "2")
    rest = _audit("list", "--before", ids[1])
    dead = _audit("list", "--status", "dead", "--agent", "bob", "--since", "2023-11-14T00:00Z")

    assert f"--before {ids[1]}" in first.stderr
    assert ids[0] in rest.stdout
    assert ids[1] not in rest.stdout
    assert ids[2] in dead.stdout
    assert ids[0] not in dead.stdout


def test_json_is_for_programs(ids: list[str]) -> None:
    listed = json.loads(_audit("list", "--json").stdout)
    shown = json.loads(_audit("show", ids[0], "--json").stdout)
    told = json.loads(_audit("conversation", ids[0], "--json").stdout)

    assert [one["id"] for one in listed] == ids[::-1]
    assert shown["payload"] == {"n": 1}
    assert shown["created_at"].endswith("+00:00")
    assert [one["id"] for one in told] == ids[:2]


def test_one_message_is_shown_in_full(ids: list[str]) -> None:
    result = _audit("show", ids[1])

    assert result.exit_code == 0
    assert "x" * 200 in result.stdout
    assert f"causation_id    {ids[0]}" in result.stdout


def test_a_conversation_is_drawn_from_any_of_its_messages(ids: list[str]) -> None:
    result = _audit("conversation", ids[1])

    question, answer = result.stdout.splitlines()
    assert "  outside ──> librarian-of-alexandria  dict" in question
    assert answer == "   +1.00 s    librarian-of-alexandria ╌╌> outside  str"


@pytest.mark.parametrize("command", ["list", "show", "conversation"])
def test_what_a_terminal_would_obey_comes_out_inert(ids: list[str], command: str) -> None:
    arguments = [] if command == "list" else [ids[2]]

    for result in (_audit(command, *arguments), _audit(command, *arguments, "--json")):
        assert result.exit_code == 0
        assert not set(result.output) & {"\x1b", "\x07", "\u202e"}


def test_the_history_may_come_from_the_environment(ids: list[str]) -> None:
    result = _run("list", env={"ACTORBUS_AUDIT": "sqlite:///history.db"})

    assert ids[0] in result.stdout


def test_the_history_of_the_demo_is_the_default(ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "history.db").rename(tmp_path / "actorbus-demo.db")

    assert ids[0] in _run("list").stdout


def test_another_tenant_sees_nothing(ids: list[str]) -> None:
    assert ids[0] not in _audit("list", "--tenant", "other").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["list"], 1, "--audit sqlite:///history.db, or set ACTORBUS_AUDIT"),
        (["list", "--audit", "sqlite:///missing.db"], 1, "no history at missing.db"),
        (["list", "--audit", "mysql://user:secret@host/db"], 1, "sqlite:///history.db"),
        (["show", "nonsense", "--audit", "sqlite:///history.db"], 2, "is no name for a message"),
        (["list", "--audit", "sqlite:///history.db", "--limit", "0"], 2, "from 1 to 10,000"),
        (["list", "--audit", "sqlite:///history.db", "--status", "x"], 2, "no status 'x'"),
        (["list", "--audit", "sqlite:///history.db", "--since", "tea"], 2, "no time such as"),
        (["list", "--limit", "many"], 2, "--limit"),
    ],
)
def test_what_cannot_be_done_is_said_on_stderr(
    ids: list[str], arguments: list[str], code: int, says: str
) -> None:
    result = _run(*arguments)

    assert result.exit_code == code
    assert result.stdout == ""
    assert says in result.stderr
    assert "secret" not in result.stderr


@pytest.mark.parametrize("command", ["show", "conversation"])
def test_an_id_that_history_does_not_have_is_said(ids: list[str], command: str) -> None:
    result = _audit(command, "01990000-0000-7000-8000-000000000000")

    assert result.exit_code == 1
    assert "history has no" in result.stderr


def test_no_color_is_honoured(ids: list[str]) -> None:
    coloured = _audit("list", env={"FORCE_COLOR": "1"})
    plain = _audit("list", env={"FORCE_COLOR": "1", "NO_COLOR": "1"})

    assert "\x1b[32m" in coloured.stdout
    assert "\x1b[3" not in plain.stdout
