"""``actorbus audit export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import History, console, say_nothing_found
from actorbus.cli.audit.filtered import Filtered
from actorbus.cli.files import writing
from actorbus.persistence.drawing.wording import counted


@command
def export(
    history: History,
    format: Annotated[str, typer.Option(help="jsonl, csv or cloudevents.")] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Into this file; else on stdout."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Even if the file exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    *,
    filters: Filtered,
) -> None:
    """Write messages out, oldest first, as JSON lines, CSV or CloudEvents 1.0.

    A file appears when it is whole, or not at all.
    """
    chosen = "jsonl" if as_json else format
    if output is None:
        if not history.export(sys.stdout, format=chosen, **filters):
            say_nothing_found(history)
        return
    with writing(output):
        count = history.export(output, format=chosen, overwrite=overwrite, **filters)
    console(stderr=True).print(f"{counted(count, 'message')} in {output}", style="dim")
