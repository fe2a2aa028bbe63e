from __future__ import annotations

import json
import threading
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from actorbus import Node
from actorbus.cli.audit import app
from actorbus.cli.audit.list import listed
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


def _upper(text: str) -> str:
    return text.upper()


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


@pytest.mark.parametrize("width", [80, 120, 140, 200])
def test_a_list_on_a_terminal_of_any_width_cuts_nothing_off(ids: list[str], width: int) -> None:
    views = Audit("sqlite:///history.db").messages()
    page = StringIO()

    Console(width=width, file=page).print(listed(views, wide=width >= 140))

    shown = page.getvalue()
    assert all(whole in shown for whole in ids)
    assert "2023-11-14" in shown
    assert "22:13:21" in shown
    assert "librarian-of-alexandria" in shown
    assert "handler-error" in shown
    assert "…" not in shown


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


@pytest.mark.parametrize(
    "command",
    [["list"], ["tail"], ["talk"], ["times"], ["runs"], ["conversation", "0"], ["causes", "0"]],
    ids=lambda one: one[0],
)
def test_how_many_is_asked_in_one_way(ids: list[str], command: list[str]) -> None:
    known = [ids[int(one)] if one.isdigit() else one for one in command]

    short, long = _audit(*known, "-n", "1"), _audit(*known, "--limit", "1")

    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout


@pytest.mark.parametrize("command", ["list", "tail", "talk", "times", "export"])
def test_times_the_wrong_way_round_are_no_answer(ids: list[str], command: str) -> None:
    result = _audit(command, "--since", "2026-03-02", "--until", "2026-03-01")

    assert ids
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--since 2026-03-02 is no time before --until 2026-03-01" in result.stderr


def test_one_message_is_shown_in_full(ids: list[str]) -> None:
    result = _audit("show", ids[1])

    assert result.exit_code == 0
    assert "x" * 200 in result.stdout
    assert f"causation_id    {ids[0]}" in result.stdout


def test_a_traceback_is_shown_in_its_lines_and_once(tmp_path: Path) -> None:
    def broken(text: str) -> None:
        raise ValueError(f"cannot {text}\x1b[2J")

    with Node(audit="sqlite:///history.db") as node:
        node.spawn(broken, name="broken").tell("parse")
        node.drain(10)
        [failed] = node.audit.messages(recipient="broken")

    shown = _audit("show", format_id(failed.id)).stdout
    lines = shown.splitlines()

    assert "error           ValueError: cannot parse\\x1b[2J" in lines
    assert lines[lines.index("error") + 1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: cannot parse\\x1b[2J"
    assert shown.count("Traceback") == 1
    assert all(line == line.rstrip() for line in lines)


def test_a_conversation_is_drawn_from_any_of_its_messages(ids: list[str]) -> None:
    result = _audit("conversation", ids[1])

    _, _, question, answer = result.stdout.splitlines()
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
        (["list", "--audit", "mysql://user:secret@host/db"], 2, "sqlite:///history.db"),
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


def test_a_tail_shows_the_newest_oldest_first(ids: list[str]) -> None:
    shown = _audit("tail", "-n", "2").stdout.splitlines()
    lines = [json.loads(line) for line in _audit("tail", "--json").stdout.splitlines()]

    assert [line.split()[2] for line in shown] == ids[1:]
    assert all(line.startswith("2023-11-14 22:13:2") for line in shown)
    assert [line["id"] for line in lines] == ids


def test_a_tail_that_follows_ends_quietly_on_ctrl_c(
    ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Event, "wait", interrupted)

    result = _audit("tail", "-f", "-n", "1")

    assert result.exit_code == 130
    assert ids[2] in result.stdout
    assert result.stderr == ""


def test_causes_draws_a_tree_and_marks_what_was_asked_for(ids: list[str]) -> None:
    above, below = _audit("causes", ids[1]).stdout.splitlines()
    told = json.loads(_audit("causes", ids[0], "--json").stdout)

    assert above.endswith(ids[0])
    assert below.startswith("=>   librarian-of-alexandria")
    assert [one["message"]["id"] for one in told["effects"]] == [ids[1]]


def test_causes_says_what_it_leaves_out(ids: list[str]) -> None:
    unknown = _audit("causes", "01990000-0000-7000-8000-000000000000")

    assert unknown.exit_code == 1
    assert "history has no message" in unknown.stderr


def test_talk_and_times_are_tables_and_json(ids: list[str]) -> None:
    talk = json.loads(_audit("talk", "--json").stdout)
    times = json.loads(_audit("times", "--json").stdout)

    assert {(one["sender"], one["recipient"], one["failures"]) for one in talk} == {
        (None, "librarian-of-alexandria", 0),
        ("librarian-of-alexandria", None, 0),
        ("alice", "bob", 1),
    }
    assert {one["type"]: one["took"]["max"] for one in times} == {"dict": 0, "str": 0}
    assert "alice" in _audit("talk").stdout
    assert "waited p50" in _audit("times", "--recipient", "librarian-of-alexandria").stdout


def test_runs_and_who_took_part_in_one_are_listed() -> None:
    with Node(audit="sqlite:///history.db") as node:
        upper = node.spawn(_upper, name="upper")
        for name in ("first", "second"):
            with node.run(name):
                upper.ask("a").get()

    listed = json.loads(_audit("runs", "--json").stdout)
    page = _audit("runs", "--limit", "1")
    rest = _audit("runs", "--before", listed[0]["id"])
    parts = _audit("runs", "first")
    unknown = _audit("runs", "frist")

    assert [one["name"] for one in listed] == ["second", "first"]
    assert {one["ended_at"] for one in listed} == {None}
    assert "second" in page.stdout
    assert f"--before {listed[0]['id']}" in page.stderr
    assert "first" in rest.stdout
    assert "upper" in parts.stdout
    assert unknown.exit_code == 1
    assert "Did you mean 'first'?" in unknown.stderr


@pytest.mark.parametrize("format", ["jsonl", "csv", "cloudevents"])
def test_an_export_goes_to_stdout_or_into_a_file(
    ids: list[str], format: str, tmp_path: Path
) -> None:
    printed = _audit("export", "--format", format)
    written = _audit("export", "--format", format, "-o", "out")
    again = _audit("export", "--format", format, "-o", "out")

    assert printed.exit_code == written.exit_code == 0
    assert all(one in printed.stdout for one in ids)
    assert (tmp_path / "out").read_bytes().decode() == printed.stdout_bytes.decode()
    assert "3 messages in out" in written.stderr
    assert again.exit_code == 1
    assert "give --overwrite" in again.stderr


def test_an_export_that_cannot_be_written_leaves_nothing_behind(
    ids: list[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())

    nowhere = _audit("export", "-o", "nowhere/out")
    no_format = _audit("export", "--format", "excel", "-o", "out")

    assert (nowhere.exit_code, no_format.exit_code) == (1, 2)
    assert "cannot write nowhere/out: No such file" in nowhere.stderr
    assert "jsonl, csv, cloudevents" in no_format.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("into", ["history.db", "history.db.anchors", "link"])
@pytest.mark.parametrize("command", ["export", "conversation"])
def test_nothing_is_written_over_history_itself(
    ids: list[str], tmp_path: Path, command: str, into: str
) -> None:
    (tmp_path / "link").symlink_to("history.db")
    anchors = tmp_path / "history.db.anchors"
    before = anchors.read_bytes()
    options = ["--overwrite"] if command == "export" else [ids[0]]

    result = _audit(command, *options, "-o", into)

    assert result.exit_code == 1
    assert f"cannot write {into}: history itself is kept there" in result.stderr
    assert all(one in _audit("list").stdout for one in ids)
    assert anchors.read_bytes() == before


@pytest.mark.parametrize("command", ["export", "conversation"])
def test_nothing_is_written_over_anchors_that_are_kept_elsewhere(
    ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("an anchor")
    monkeypatch.setenv("ACTORBUS_AUDIT_ANCHORS", str(elsewhere))
    options = ["--overwrite"] if command == "export" else [ids[0]]

    result = _audit(command, *options, "-o", str(elsewhere))

    assert result.exit_code == 1
    assert "history itself is kept there" in result.stderr
    assert elsewhere.read_text() == "an anchor"


@pytest.mark.parametrize(
    "arguments", [["tail"], ["causes", "2"], ["talk"], ["times"], ["export", "--format", "csv"]]
)
def test_further_answers_come_out_inert_too(ids: list[str], arguments: list[str]) -> None:
    known = [ids[int(one)] if one.isdigit() else one for one in arguments]

    for result in (_audit(*known), _audit(*known, "--json")):
        assert result.exit_code == 0
        assert not set(result.output) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("command", ["list", "tail", "talk", "times", "export"])
def test_every_filter_is_an_option_of_every_list(ids: list[str], command: str) -> None:
    nothing = _audit(command, "--topic", "none", "--kind", "tell", "--reason", "expired", "--json")
    wrong = _audit(command, "--kind", "shout")
    no_time = _audit(command, "--until", "tea")

    assert nothing.exit_code == 0
    assert not [one for one in ids if one in nothing.stdout]
    assert (wrong.exit_code, no_time.exit_code) == (2, 2)
    assert "use one of tell" in wrong.stderr
    assert "--until 'tea'" in no_time.stderr


def test_a_file_that_is_no_database_is_said(ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, only text " * 100)

    for command in ("list", "tail", "talk", "times", "export"):
        result = _run(command, "--audit", "sqlite:///text.db")
        assert result.exit_code == 1
        assert "text.db is not an SQLite database" in result.stderr
