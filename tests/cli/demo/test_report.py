from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from actorbus.cli.demo.report import History, Letter, Report, plain
from actorbus.cli.demo.source import Findings, Function, Unlisted
from actorbus.cli.demo.tables import write, write_next
from actorbus.cli.demo.team import Summary, Tally

LONG = "a/rather/long/way/down/" * 3 + "module.py"

SUMMARY = Summary(
    files=2,
    bytes=30,
    lines=3,
    functions=1,
    classes=1,
    documented=1,
    modules=1,
    largest=(Findings(LONG, 20, 2, 1, 1, 1, ("os",), None),),
    longest=(Function("run", LONG, 1, 2),),
    imported=(("os", 2),),
    folders_unlisted=0,
    unlisted=(),
    tallies=(Tally("surveyor-1", 2, 0, 3, 0.25),),
)

REPORT = Report(
    root="/tree",
    interrupted=False,
    seconds=2.0,
    found=2,
    summary=SUMMARY,
    letters=(),
    forgotten=0,
)

REFUSED = Letter(LONG, "id-1", "rejected", "syntax error", "syntax error: line 1: no")
HALTED = Letter("b.py", "id-2", "rejected", "halted", "halted: nobody had begun with it")
FAILED = Letter("c.py", "id-3", "handler-error", "", "ValueError: oops")


def _shown(report: Report, width: int = 80) -> str:
    screen = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    write(report, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_every_file_is_read_refused_left_or_lost() -> None:
    report = replace(REPORT, found=7, letters=(REFUSED, HALTED, FAILED))

    assert report.refused == [REFUSED]
    assert report.left == 1
    assert report.failures == [FAILED]
    assert report.lost == 2
    assert replace(report, forgotten=2).lost == 0
    assert report.rate == 1.5


def test_where_no_file_was_broken_it_says_so() -> None:
    halted = replace(REPORT, interrupted=True, letters=(HALTED,), found=3)

    assert "None: every file could be parsed." in _shown(REPORT)
    assert "the halt overtook 1 file that waited" in _shown(halted)
    assert "Every file that was looked at could be parsed." in _shown(halted)


def test_what_could_not_be_done_is_told_with_the_reason() -> None:
    unlisted = replace(SUMMARY, folders_unlisted=1, unlisted=(Unlisted("x", "Permission denied"),))
    letters = (REFUSED, *(replace(REFUSED, id=f"id-{n}") for n in range(100, 120)), FAILED)

    shown = _shown(replace(REPORT, summary=unlisted, letters=letters, forgotten=5), width=200)

    assert "syntax error: line 1: no" in shown
    assert "ValueError: oops" in shown
    assert "and 10 more" in shown
    assert "Permission denied" in shown
    assert "forgotten, too many to keep" in shown


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = _shown(replace(REPORT, letters=(REFUSED,)), width).splitlines()

    assert max(map(len, lines)) <= width
    assert any("Largest files" in line and "What it holds" in line for line in lines) == (
        width == 200
    )


def test_names_cannot_speak_to_the_terminal() -> None:
    hostile = replace(REFUSED, about="\x1b]0;owned\x07.py", why="\x1b[2J \udce9")

    shown = _shown(replace(REPORT, root="/\x1b[2J", letters=(hostile,)))

    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J" in shown
    assert "\\udce9" in shown


def test_the_json_is_complete_and_plain() -> None:
    history = History("sqlite://", "run-1", 5, "id-4", None)

    document = json.loads(json.dumps(plain(replace(REPORT, letters=(REFUSED,)), history)))

    assert document["files"] == {"found": 2, "read": 2, "refused": 1, "left": 0, "per_second": 1.5}
    assert document["most_imported"] == [{"module": "os", "files": 2}]
    assert document["surveyors"][0]["name"] == "surveyor-1"
    assert document["dead_letters"]["by_reason"] == [
        {"reason": "rejected", "kind": "syntax error", "messages": 1}
    ]
    assert document["history"]["conversation"] == "id-4"


def test_a_history_in_memory_is_not_offered_for_reading() -> None:
    screen = Console(file=io.StringIO(), width=80)

    write_next(History("sqlite://", "run-1", 5, "id-4", "id-1"), screen, default_url="x")

    assert isinstance(screen.file, io.StringIO)
    assert "gone now" in screen.file.getvalue()
    assert "audit" not in screen.file.getvalue()
