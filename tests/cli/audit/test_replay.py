"""``actorbus audit replay`` and ``actorbus audit repair``, as a user calls them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from actorbus import Node, format_id
from actorbus.cli.audit import app
from actorbus.message import IdSource, Message, MessageKind, Priority
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Result]

TEAM = """
from actorbus import Agent, handles

class Editor(Agent):
    @handles
    def edit(self, draft: str) -> str:
        return self.ask("checker", draft.{how}()).get()

class Checker(Agent):
    @handles
    def check(self, draft: str) -> str:
        return f"{{draft}}?"
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}"


@pytest.fixture
def team(tmp_path: Path) -> Callable[[str], str]:
    def write(how: str) -> str:
        folder = tmp_path / how
        folder.mkdir()
        (folder / "team.py").write_text(TEAM.format(how=how))
        return str(folder)

    return write


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("ACTORBUS_TENANT", "ACTORBUS_PROJECT", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACTORBUS_AUDIT", url)

    def call(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input)

    return call


@pytest.fixture
def conversation(url: str, team: Callable[[str], str]) -> str:
    """Any message of it."""
    with Node(audit=url) as node:
        node.load(team("upper"))
        node.ask("editor", "Abc \x1b[2J").get()
        return format_id(node.audit.messages()[0].id)


def test_the_same_agents_do_the_same(run: Run, conversation: str, tmp_path: Path) -> None:
    ran = run("replay", conversation, "--load", str(tmp_path / "upper"))

    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert "editor -> checker: request str" in lines[1]
    assert lines[-1] == "the same: 4 messages, 4 recorded"
    assert "\x1b[2J" not in ran.output


def test_a_changed_agent_diverges_with_code_3(
    run: Run, conversation: str, team: Callable[[str], str]
) -> None:
    ran = run("replay", conversation, "--load", team("lower"))

    assert ran.exit_code == 3
    assert "diverged at message 2 of 4: another message was sent" in ran.stdout
    assert "\x1b[2J" not in ran.output


def test_json_says_it_to_programs(run: Run, conversation: str, team: Callable[[str], str]) -> None:
    ran = run("replay", conversation, "--load", team("lower"), "--json")

    told: dict[str, Any] = json.loads(ran.stdout)
    assert ran.exit_code == 3
    assert told["same"] is False
    assert told["divergence"]["position"] == 2
    assert told["divergence"]["got"]["payload"] == "abc \x1b[2j"


def test_step_waits_for_enter_and_goes_on_at_the_end_of_input(
    run: Run, conversation: str, tmp_path: Path
) -> None:
    ran = run("replay", conversation, "--load", str(tmp_path / "upper"), "--step", input="\n\n")

    assert ran.exit_code == 0
    assert "the same: 4 messages" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--load", "nowhere"], 2, "nowhere"),
        (["--load", "upper", "--speed", "0"], 2, "speed is 0"),
        (["--load", "upper", "--speed", "nan"], 2, "speed is nan"),
        ([], 2, "--load"),
    ],
)
def test_wrong_usage_is_said(
    run: Run, conversation: str, arguments: list[str], code: int, says: str
) -> None:
    ran = run("replay", conversation, *arguments)

    assert ran.exit_code == code
    assert says in ran.output


def test_a_conversation_that_is_not_there_is_said(run: Run, conversation: str) -> None:
    missing = run("replay", "01990000-0000-7000-8000-000000000000", "--load", "upper")
    malformed = run("replay", "what", "--load", "upper")

    assert conversation
    assert (missing.exit_code, malformed.exit_code) == (1, 2)
    assert "there is no message to replay" in missing.output


@pytest.fixture
def lost_id(url: str) -> str:
    """A tell to the checker that a node accepted and, because it died, never handled."""
    clock = ManualClock()
    audit = Audit(url)
    recorder = audit.record(node="gone", settings=Settings(), telemetry=Telemetry(), clock=clock)
    recorder.start()
    made = IdSource().make(clock.now())
    message: Message[Any] = Message(
        made,
        MessageKind.TELL,
        None,
        "checker",
        None,
        "draft",
        Priority.NORMAL,
        clock.now(),
        None,
        made,
        None,
        None,
        1,
        0,
        None,
    )
    recorder.sent(message)
    recorder.close(10)
    audit.close()
    return format_id(made)


def test_repair_lists_what_was_lost_and_sends_nothing(run: Run, lost_id: str, url: str) -> None:
    before = Audit(url).counts()

    shown = run("repair")
    told = json.loads(run("repair", "--json").stdout)

    assert shown.exit_code == 0
    assert lost_id in shown.stdout
    assert [(one["id"], one["standing"]) for one in told] == [(lost_id, "lost")]
    assert Audit(url).counts() == before


def test_repair_sends_once(run: Run, lost_id: str, url: str, team: Callable[[str], str]) -> None:
    load = team("upper")

    first = json.loads(run("repair", "--load", load, "--send", "--json").stdout)
    second = json.loads(run("repair", "--load", load, "--send", "--json").stdout)

    sent = Audit(url).message(first[0]["sent_as"])
    assert first[0]["standing"] == "sent"
    assert [(one["id"], one["standing"]) for one in second] == [(lost_id, "repaired")]
    assert sent is not None
    assert sent.status == "handled"


def test_repair_says_who_is_missing(run: Run, lost_id: str, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")

    ran = run("repair", "--load", "empty.py", "--send")

    assert lost_id
    assert ran.exit_code == 3
    assert "no agent 'checker'" in ran.stdout


def test_sending_needs_agents(run: Run, lost_id: str) -> None:
    ran = run("repair", "--send")

    assert lost_id
    assert ran.exit_code == 2
    assert "--load PATH" in ran.output


def test_where_nothing_was_lost_it_says_so(run: Run, conversation: str) -> None:
    assert conversation
    assert run("repair").stdout == "nothing was lost\n"


@pytest.mark.parametrize("option", ["--tenant", "--project"])
def test_nothing_is_not_said_to_be_lost_of_what_is_not_there(
    run: Run, conversation: str, option: str
) -> None:
    ran = run("repair", option, "defualt")

    assert conversation
    assert ran.exit_code == 1
    assert f"no {option[2:]} 'defualt'" in ran.output
    assert "nothing was lost" not in ran.output
