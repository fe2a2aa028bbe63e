"""``actorbus audit list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    History,
    addressed,
    console,
    inert,
    print_json,
    say_nothing_found,
    standing,
    table,
)
from actorbus.cli.audit.filtered import Filtered
from actorbus.message import format_id
from actorbus.persistence.drawing.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from actorbus.persistence.answers import MessageView

_WIDE: Final = 140
"""Columns of a terminal from which on everything about a message fits in one line."""


@command
def list_messages(
    history: History,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Older than this message: the next page.")
    ] = None,
    as_json: AsJson = False,
    *,
    filters: Filtered,
) -> None:
    """List messages, newest first."""
    found = history.messages(limit=limit, before=before, **filters)
    if not found:
        say_nothing_found(history)
    if as_json:
        print_json([plain(view) for view in found])
        return
    page = console()
    page.print(listed(found, wide=page.width >= _WIDE))
    if len(found) == limit:
        console(stderr=True).print(f"More: --before {format_id(found[-1].id)}", style="dim")


def listed(views: Iterable[MessageView], *, wide: bool) -> Table:
    """A row a message; on a narrow terminal one of several lines, with nothing cut off."""
    listed = table()
    listed.add_column("id", no_wrap=True, min_width=36)
    listed.add_column("sent (UTC)", no_wrap=True, min_width=10)
    if wide:
        for name in ("from", "to", "type"):
            listed.add_column(name, overflow="ellipsis", no_wrap=True)
        listed.add_column("status", min_width=8, overflow="fold")
    else:
        listed.add_column("message", overflow="fold")
    for view in views:
        sender, recipient = inert(view.sender or "(outside)"), inert(addressed(view))
        cells = [sender, recipient, inert(view.type), standing(view)]
        listed.add_row(
            format_id(view.id),
            view.created_at.strftime("%Y-%m-%d %H:%M:%S" if wide else "%Y-%m-%d\n%H:%M:%S"),
            *(cells if wide else [_in_lines(*cells)]),
        )
    return listed


def _in_lines(sender: Text, recipient: Text, kind: Text, status: Text) -> Text:
    return Text.assemble(sender, " ──> ", recipient, "\n", kind, ", ", status)
