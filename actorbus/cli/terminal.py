"""What all commands share: where they write, what a terminal may be shown, how they fail."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text


def console(*, stderr: bool = False) -> Console:
    """A console that takes text for what it is. rich itself honours NO_COLOR and COLUMNS."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def inert(text: str) -> str:
    """`text` with what a terminal would obey shown as an escape instead."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def fail(sentence: str, code: int) -> NoReturn:
    """End with one sentence on stderr and an exit code."""
    console(stderr=True).print(Text(f"Error: {inert(sentence)}", style="red"), soft_wrap=True)
    raise typer.Exit(code)


def write_whatever_it_is() -> None:
    """Show as an escape what the terminal's encoding has no letter for, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
