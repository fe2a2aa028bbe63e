"""``actorbus audit list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    History,
    addressed,
    console,
    inert,
    print_json,
    standing,
    table,
)
from actorbus.cli.audit.filtered import Filtered
from actorbus.message import format_id
from actorbus.persistence.drawing.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from actorbus.persistence.audit import MessageView


@command
def list_messages(
    history: History,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Older than this message: the next page.")
    ] = None,
    as_json: AsJson = False,
    *,
    filters: Filtered,
) -> None:
    """List messages, newest first."""
    found = history.messages(limit=limit, before=before, **filters)
    if as_json:
        print_json([plain(view) for view in found])
        return
    console().print(_listed(found))
    if len(found) == limit:
        console(stderr=True).print(f"More: --before {format_id(found[-1].id)}", style="dim")


def _listed(views: Iterable[MessageView]) -> Table:
    listed = table()
    listed.add_column("id", no_wrap=True, min_width=36)
    listed.add_column("sent (UTC)", no_wrap=True)
    for name in ("from", "to", "type"):
        listed.add_column(name, overflow="ellipsis", no_wrap=True)
    listed.add_column("status", min_width=8, overflow="fold")
    for view in views:
        listed.add_row(
            format_id(view.id),
            view.created_at.strftime("%H:%M:%S"),
            inert(view.sender or "-"),
            inert(addressed(view)),
            inert(view.type),
            standing(view),
        )
    return listed
