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
from actorbus.persistence.drawing import Format, draw, lay_out, page
from actorbus.persistence.drawing.terminal import Tone
from actorbus.persistence.drawing.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actorbus.persistence.answers import MessageView

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
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many.")] = 1_000,
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
        if history.owns(output):
            fail(f"cannot write {output}: history itself is kept there: name another file", 1)
        write(output, draw(found, wanted, width=_UNBOUNDED))
    elif wanted is Format.TEXT:
        _show(found)
    else:
        typer.echo(draw(found, wanted).encode(), nl=False)
    for sentence in _missing(found, limit):
        console(stderr=True).print(sentence, style="dim")


def _missing(found: Sequence[MessageView], limit: int) -> Iterator[str]:
    here = {view.id for view in found}
    causes = {view.causation_id for view in found if view.causation_id is not None}
    if lost := len(causes - here):
        yield (
            f"{counted(lost, 'message')} that caused some of these"
            f" {'is' if lost == 1 else 'are'} not here: deleted, or sent by a node without history."
        )
    if len(found) == limit:
        yield f"Only the first {limit:,}; see --limit."


_UNBOUNDED: Final = 10_000
"""Columns: a file has no edge, and whoever reads it wants whole names."""


def _show(views: Sequence[MessageView]) -> None:
    terminal = console()
    for line in page(lay_out(views), terminal.width):
        told = Text.assemble(*((part.text, _STYLES[part.tone]) for part in line))
        terminal.print(told, no_wrap=True, overflow="ellipsis")
