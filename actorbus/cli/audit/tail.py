"""``actorbus audit tail``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    History,
    addressed,
    console,
    inert,
    say_nothing_found,
    standing,
)
from actorbus.cli.audit.filtered import Filtered
from actorbus.message import format_id
from actorbus.persistence.drawing.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.persistence.answers import MessageView
    from actorbus.persistence.audit import Audit


@command
def tail(
    history: History,
    count: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=0, help="How many.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
    *,
    filters: Filtered,
) -> None:
    """Show the newest messages, oldest first; with -f also those to come.

    With --json each message is a line.
    """
    try:
        _show(_told(history, count, follow, filters), as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _told(history: Audit, count: int, follow: bool, filters: Any) -> Iterable[MessageView]:
    if follow:
        return history.follow(last=count, **filters)
    found = history.messages(limit=count, **filters) if count else []
    if count and not found:
        say_nothing_found(history)
    return reversed(found)


def _show(views: Iterable[MessageView], as_json: bool) -> None:
    page = console()
    for view in views:
        if as_json:
            sys.stdout.write(json.dumps(plain(view)) + "\n")
        else:
            page.print(_line(view), soft_wrap=True)
        sys.stdout.flush()


def _line(view: MessageView) -> Text:
    line = Text(f"{view.created_at:%Y-%m-%d %H:%M:%SZ}  {format_id(view.id)}  ")
    line.append_text(inert(view.sender or "(outside)"))
    line.append(" ──> ", style="dim")
    line.append_text(inert(addressed(view)))
    line.append("  ")
    line.append_text(inert(view.type))
    line.append("  ")
    line.append_text(standing(view))
    return line
