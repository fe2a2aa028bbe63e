from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from actorbus.actors.handlers import handles
from actorbus.cli.demo.report import letter
from actorbus.cli.demo.team import (
    SURVEY,
    Explore,
    Halt,
    Librarian,
    SayWhatYouDid,
    Scout,
    SourceFile,
    Summary,
    SumUp,
    SurveyBegins,
    Surveyor,
    Tally,
)
from actorbus.message import Priority
from actorbus.node import Node
from actorbus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class HeldSurveyor(Surveyor):
    """Says when it began with a gate, and waits until that is opened."""

    def __init__(self, began: threading.Event) -> None:
        super().__init__()
        self._began = began

    @handles
    def hold(self, gate: threading.Event) -> None:
        self._began.set()
        gate.wait(10)


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(settings=Settings(log_level="error")) as node:
        yield node


def _team(node: Node, surveyors: int) -> None:
    node.spawn(Librarian, name="librarian")
    for number in range(surveyors):
        node.spawn(Surveyor, name=f"surveyor-{number}")
    node.spawn(Scout, name="scout")


def _sum_up(node: Node) -> Summary:
    summary: Summary = node.ask("librarian", SumUp()).get()
    return summary


def test_every_file_is_surveyed_once_and_gathered(node: Node, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.py").write_text("import os\n" * (number + 1))
    _team(node, 3)

    node.tell("scout", Explore(str(tmp_path)))
    node.drain()
    summary = _sum_up(node)

    assert summary.files == 100
    assert summary.lines == sum(range(1, 101))
    assert [one.path for one in summary.largest[:2]] == ["099.py", "098.py"]
    assert summary.imported == (("os", 100),)
    assert sum(one.files for one in summary.tallies) == 100
    assert sum(one.lines for one in summary.tallies) == summary.lines
    assert node.context.namespace(SURVEY).get("found") == 100


def test_the_work_is_shared_by_who_is_least_busy(node: Node, tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.py").write_text("x = 1\n" * 200)
    _team(node, 4)

    node.tell("scout", Explore(str(tmp_path)))
    node.drain()

    assert all(one.files > 10 for one in _sum_up(node).tallies)


def test_a_file_that_cannot_be_parsed_is_a_dead_letter_with_the_reason(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("def\n")
    _team(node, 1)

    node.tell("scout", Explore(str(tmp_path)))
    node.drain()

    told = letter(node.dead_letters.list()[0])
    assert (told.about, told.reason, told.kind) == ("broken.py", "rejected", "syntax error")
    assert told.why.startswith("syntax error: line 1: ")
    assert _sum_up(node).tallies[0].refused == 1


def test_a_folder_that_cannot_be_listed_is_noted(node: Node, tmp_path: Path) -> None:
    _team(node, 1)

    node.tell("scout", Explore(str(tmp_path / "gone")))
    node.drain()
    summary = _sum_up(node)

    assert (summary.files, summary.folders_unlisted) == (0, 1)
    assert summary.unlisted[0].why == "No such file or directory"


def test_a_halt_overtakes_the_files_that_wait(node: Node, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("x = 1\n")
    began, gate = threading.Event(), threading.Event()
    surveyor = node.spawn(HeldSurveyor, began)
    surveyor.tell(SurveyBegins(str(tmp_path)))
    surveyor.tell(SourceFile("file.py"))
    surveyor.tell(gate)
    for _ in range(50):
        surveyor.tell(SourceFile("file.py"))
    assert began.wait(10)

    surveyor.tell(Halt("enough"), priority=Priority.URGENT)
    gate.set()
    node.drain()

    tally: Tally = surveyor.ask(SayWhatYouDid()).get()
    assert (tally.files, tally.refused) == (1, 0)
    assert [letter(one).kind for one in node.dead_letters.list()] == ["halted"] * 50


def test_a_halt_gets_in_between_what_the_scout_sends(node: Node, tmp_path: Path) -> None:
    for number in range(2_000):
        (tmp_path / f"{number}.py").touch()
    began, gate = threading.Event(), threading.Event()
    surveyor = node.spawn(HeldSurveyor, began)
    scout = node.spawn(Scout)
    surveyor.tell(gate)
    assert began.wait(10)

    # The mailbox of the surveyor holds 1,000, so there the scout has to wait for room.
    scout.tell(Explore(str(tmp_path)))
    scout.tell(Halt("enough"), priority=Priority.URGENT)
    gate.set()
    node.drain()

    assert node.context.namespace(SURVEY).get("found", 0) < 1_100
