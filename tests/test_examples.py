"""Each example runs as its reader would run it, and prints what it says at its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted(Path(__file__).parents[1].glob("examples/[0-9]*.py"))
DEADLINE = 30
MARK = "\n# Prints:\n"


def test_there_is_one_for_each_rung_of_the_ladder() -> None:
    numbers = [int(example.name[:2]) for example in EXAMPLES]

    assert numbers == list(range(1, 21))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_it_prints_what_it_says(example: Path, tmp_path: Path) -> None:
    program, mark, said = example.read_text().partition(MARK)

    ran = subprocess.run(
        [sys.executable, "-W", "error", example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=DEADLINE,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert mark
    assert ran.stdout == "".join(line.removeprefix("#   ") for line in said.splitlines(True))
    assert len(program.splitlines()) + len(said.splitlines()) < 45
    assert not list(tmp_path.iterdir())
