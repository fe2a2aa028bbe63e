"""``actorbus audit conversation``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import History, Id, console
from actorbus.cli.files import write
from actorbus.cli.terminal import fail
from actorbus.persistence.drawing import Format, draw, lay_out, lines
from actorbus.persistence.drawing.terminal import Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.persistence.audit import MessageView

_STYLES: Final = {
    Tone.NAME: "",
    Tone.DIM: "dim",
    Tone.TYPE: "bold",
    Tone.WRONG: "red",
    Tone.WAITS: "yellow",
}
_STDOUT: Final = Path("-")


@command
def conversation(
    id: Id,
    history: History,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 1_000,
    format: Annotated[
        Format,
        typer.Option(
            help="As lines of text, or as a file: mermaid and svg are sequence diagrams,"
            " chrome-trace opens in Perfetto."
        ),
    ] = Format.TEXT,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is stdout."),
    ] = _STDOUT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Draw who said what to whom, from the id of any message of the conversation."""
    found = history.conversation(id, limit=limit)
    if not found:
        fail(f"history has no conversation {id}", 1)
    wanted = Format.JSON if as_json else format
    if output != _STDOUT:
        write(output, draw(found, wanted, width=_UNBOUNDED))
    elif wanted is Format.TEXT:
        _show(found)
    else:
        typer.echo(draw(found, wanted).encode(), nl=False)
    if len(found) == limit:
        console(stderr=True).print(f"Only the first {limit:,}; see --limit.", style="dim")


_UNBOUNDED: Final = 10_000
"""Columns: a file has no edge, and whoever reads it wants whole names."""


def _show(views: Sequence[MessageView]) -> None:
    page = console()
    for line in lines(lay_out(views), page.width):
        told = Text.assemble(*((part.text, _STYLES[part.tone]) for part in line))
        page.print(told, no_wrap=True, overflow="ellipsis")
