"""Ctrl-C at any moment of the program: a process of its own, interrupted where it stands."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PRELUDE = """
import atexit, signal, sys

class AtImport:
    '''Ctrl-C at the moment when a module is about to be imported.'''
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            signal.raise_signal(signal.SIGINT)

if MODULE == 'the exit':
    atexit.register(signal.raise_signal, signal.SIGINT)
sys.meta_path.insert(0, AtImport())
sys.argv = ['actorbus', '--version']
from actorbus.__main__ import main
main()
"""


def _heed() -> None:
    """Whoever runs the tests in the background has interrupts ignored, and children inherit it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupted(
    module: str, preexec_fn: Callable[[], object] = _heed
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"MODULE = {module!r}\n{PRELUDE}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=preexec_fn,
    )


@pytest.mark.parametrize("module", ["actorbus.cli", "typer", "rich.console", "actorbus.cli.keys"])
def test_an_interrupt_while_the_program_imports_ends_it_without_a_word(module: str) -> None:
    ended = _interrupted(module)

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_an_interrupt_at_the_very_end_takes_nothing_back() -> None:
    ended = _interrupted("the exit")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("actorbus ")


def test_who_is_told_to_ignore_interrupts_does() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    ended = _interrupted("actorbus.cli", preexec_fn=ignore)

    assert (ended.returncode, ended.stderr) == (0, "")
