"""``actorbus audit verify``, ``retain``, ``redact``, ``hold`` and ``anchors``, as a user calls
them."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from actorbus import Node, format_id
from actorbus.cli.audit import app
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from pathlib import Path

HOLD = ("hold", "tenant", "--why", "lawsuit", "--by", "ada")
NO_ID = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of four messages and their replies."""
    path = tmp_path / "history.db"
    monkeypatch.setenv("ACTORBUS_AUDIT", f"sqlite:///{path}")

    def upper(text: str) -> str:
        return text.upper()

    with Node(audit=f"sqlite:///{path}") as node:
        ref = node.spawn(upper)
        for word in ("a", "b", "c", "d"):
            ref.ask(word).get()
    return path


@pytest.fixture
def some_id(path: Path) -> str:
    return _any_id(path)


def _any_id(path: Path) -> str:
    return format_id(Audit(f"sqlite:///{path}").messages()[0].id)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_a_sound_history_ends_with_0(path: Path) -> None:
    result = run("verify")

    assert result.exit_code == 0, result.output
    assert "sound" in result.output


def test_counts_are_said_in_good_english(path: Path) -> None:
    run("redact", _any_id(path), "--why", "asked to", "--by", "ada")
    kept = len(Audit(f"sqlite:///{path}").messages())
    left = run("retain", "--messages", str(kept), "--why", "policy", "--by", "ada")

    said = run("verify").output

    assert left.output == "0 rows deleted.\n"
    assert re.search(r"^\d+ rows in 2 chains, \d+ anchors: sound\.$", said, re.MULTILINE)
    assert "Redacted: 1 row.\n" in said


def test_a_changed_history_ends_with_3_and_names_the_row(path: Path, some_id: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE agent_messages SET sender = 'mallory' WHERE id = ?",
            (bytes.fromhex(some_id.replace("-", "")),),
        )

    result = run("verify", "--json")

    assert result.exit_code == 3
    found = json.loads(result.output)
    assert not found["sound"]
    assert [(one["flaw"], one["id"]) for one in found["findings"]] == [("changed", some_id)]


def test_a_history_that_is_not_there_ends_with_1(tmp_path: Path) -> None:
    assert run("verify", "--audit", f"sqlite:///{tmp_path / 'no.db'}").exit_code == 1


def test_a_hold_blocks_redaction_until_it_is_released(path: Path, some_id: str) -> None:
    held = run("hold", "tenant", "--why", "lawsuit", "--by", "ada")

    refused = run("redact", some_id, "--why", "asked to", "--by", "ada")
    listed = json.loads(run("hold", "--json").output)
    run("hold", "tenant", "--release", "--why", "settled", "--by", "ada")
    taken = run("redact", some_id, "--why", "asked to", "--by", "ada")

    assert held.exit_code == 0, held.output
    assert refused.exit_code == 1
    assert "legal hold" in refused.output
    assert [(one["held"], one["by"], one["why"]) for one in listed] == [
        ("tenant", "ada", "lawsuit")
    ]
    assert taken.exit_code == 0, taken.output
    assert run("verify").exit_code == 0


@pytest.mark.parametrize("arguments", [("--why", "lawsuit"), ("--release",)], ids=" ".join)
def test_a_hold_on_nothing_is_wrong_usage_and_no_list(
    path: Path, arguments: tuple[str, ...]
) -> None:
    result = run("hold", *arguments)

    assert result.exit_code == 2
    assert "say what: tenant, run:NAME or conversation:ID" in result.output


def test_a_hold_that_keeps_nothing_yet_says_so(path: Path) -> None:
    early = run("hold", "run:tomorrow", "--why", "lawsuit", "--by", "ada")
    mistyped = run("hold", f"conversation:{NO_ID}", "--why", "lawsuit", "--by", "ada")
    plain = run("hold", "tenant", "--why", "lawsuit", "--by", "ada")

    assert (early.exit_code, early.stdout) == (0, "Held.\n")
    assert "No message of it is here yet" in early.stderr
    assert mistyped.exit_code == 1
    assert f"no conversation '{NO_ID}'" in mistyped.stderr
    assert (plain.stdout, plain.stderr) == ("Held.\n", "")


def test_what_is_done_and_could_not_be_anchored_is_said_in_words(
    path: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()

    held = run(*HOLD, "--anchors", str(tmp_path / "folder"))

    assert held.exit_code == 1
    assert "it is done, and could not be anchored: [Errno 21] Is a directory" in held.stderr
    assert run(*HOLD).stdout == "It is held already.\n"


def test_where_no_anchors_are_it_says_so(path: Path) -> None:
    there = run("anchors")
    elsewhere = run("anchors", "--anchors", "nowhere")

    assert there.stderr == ""
    assert (elsewhere.exit_code, elsewhere.stderr) == (0, "No anchors of this tenant are there.\n")


def test_anchors_do_not_go_into_the_database(path: Path) -> None:
    before = path.read_bytes()

    held = run(*HOLD, "--anchors", str(path))
    verified = run("verify", "--anchors", str(path))

    for result in (held, verified):
        assert result.exit_code == 1
        assert f"anchors cannot go into {path}" in result.stderr
    assert path.read_bytes() == before


def test_a_hold_blocks_retention(path: Path) -> None:
    run("hold", "tenant", "--why", "lawsuit", "--by", "ada")

    result = run("retain", "--messages", "0", "--why", "policy", "--by", "ada", "--json")

    assert result.exit_code == 0, result.output
    assert {(one["rows"], one["held"]) for one in json.loads(result.output)} == {(0, True)}
    assert Audit(f"sqlite:///{path}").counts().messages > 0


def test_what_retention_leaves_is_sound(path: Path) -> None:
    result = run("retain", "--messages", "1", "--why", "policy", "--by", "ada")

    assert result.exit_code == 0, result.output
    assert "rows deleted" in result.output
    assert run("verify").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("retain", "--why", "policy", "--by", "ada"),
        ("retain", "--messages", "-1", "--why", "policy", "--by", "ada"),
        ("retain", "--mib", "nan", "--why", "policy", "--by", "ada"),
        ("retain", "--mib", "inf", "--why", "policy", "--by", "ada"),
        ("retain", "--days", "nan", "--why", "policy", "--by", "ada"),
        ("retain", "--messages", "1000", "--why", " ", "--by", "ada"),
        ("retain", "--messages", "1000", "--why", "policy", "--by", ""),
        ("anchors", "--new-key", ""),
        ("hold", "everything", "--why", "lawsuit", "--by", "ada"),
        ("hold", "tenant", "--by", "ada"),
        ("hold", "tenant", "--why", " ", "--by", "ada"),
        ("redact", "no-id", "--why", "asked to", "--by", "ada"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(path: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)


def test_what_was_changed_is_said_to_programs_too(path: Path, some_id: str) -> None:
    by = ("--why", "policy", "--by", "ada", "--json")
    changes = [
        ("hold", "run:none", *by),
        ("hold", "run:none", *by),
        ("hold", "run:none", "--release", *by),
        ("redact", some_id, *by),
        ("redact", some_id, *by),
    ]

    said = [json.loads(run(*one).stdout) for one in changes]

    assert [one["changed"] for one in said] == [True, False, True, True, False]


def test_a_new_key_signs_and_verifies(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = tmp_path / "key.pem"
    made = run("anchors", "--new-key", str(key))
    by = ("--why", "lawsuit", "--by", "ada", "--signing-key", str(key))
    run("hold", "tenant", *by)

    anchors = json.loads(run("anchors", "--json").output)

    assert made.exit_code == 0, made.output
    assert key.stat().st_mode & 0o077 == 0
    assert anchors[-1]["key"] is not None
    assert anchors[0]["key"] is None
    assert anchors[0]["number"] == 1
    assert run("verify", "--public-key", f"{key}.pub").exit_code == 3  # the node's are unsigned
