"""The README keeps its word: its programs run, and what it points at is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
DEADLINE = 30

PRINTED = {
    "class WordCounter": "words=6\n",
    "audit=": "HELLO\nreply shouter -> None handled\nrequest None -> shouter handled\n",
    "Settings(": "30.0\n",
    "TestNode": "",
    "def counter(": "",
}
"""What each program prints, by words that only that one has."""


def test_every_program_is_known() -> None:
    owners = [[words for words in PRINTED if words in program] for program in PROGRAMS]

    assert owners == [[words] for words in PRINTED]


@pytest.mark.parametrize(
    ("program", "printed"), list(zip(PROGRAMS, PRINTED.values(), strict=True)), ids=list(PRINTED)
)
def test_a_program_runs_as_it_stands(program: str, printed: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=DEADLINE,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == printed


def test_what_it_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_rung_of_the_ladder_has_its_example() -> None:
    rungs = re.findall(r"\]\(examples/(\w+\.py)\)", README)

    assert rungs == sorted(path.name for path in ROOT.glob("examples/[0-9]*.py"))
