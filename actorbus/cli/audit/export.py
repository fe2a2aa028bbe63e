"""``actorbus audit export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import History, console
from actorbus.cli.audit.filtered import Filtered
from actorbus.cli.terminal import fail


@command
def export(
    history: History,
    filters: Filtered,
    format: Annotated[str, typer.Option(help="jsonl, csv or cloudevents.")] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Into this file; else on stdout."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Even if the file exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Write messages out, oldest first, as JSON lines, CSV or CloudEvents 1.0.

    A file appears when it is whole, or not at all.
    """
    chosen = "jsonl" if as_json else format
    if output is None:
        history.export(sys.stdout, format=chosen, **filters)
        return
    try:
        count = history.export(output, format=chosen, overwrite=overwrite, **filters)
    except FileExistsError:
        fail(f"{output} exists: name another file, or give --overwrite", 1)
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror or error}", 1)
    console(stderr=True).print(f"{count:,} messages in {output}", style="dim")
