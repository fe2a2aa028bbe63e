"""``actorbus audit talk``."""

from __future__ import annotations

from typing import Annotated

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    History,
    console,
    inert,
    print_json,
    say_nothing_found,
    table,
)
from actorbus.cli.audit.filtered import Filtered


@command
def talk(
    history: History,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many pairs.")] = 50,
    as_json: AsJson = False,
    *,
    filters: Filtered,
) -> None:
    """Show who talked to whom how often, the most frequent pairs first."""
    found = history.talk(limit=limit, **filters)
    if not found:
        say_nothing_found(history)
    if as_json:
        print_json(
            [
                {
                    "sender": one.sender,
                    "recipient": one.recipient,
                    "count": one.count,
                    "failures": one.failures,
                    "last": one.last.isoformat(),
                }
                for one in found
            ]
        )
        return
    shown = table("from", "to")
    for name in ("count", "failures"):
        shown.add_column(name, justify="right")
    shown.add_column("last (UTC)", no_wrap=True)
    for one in found:
        shown.add_row(
            inert(one.sender or "(outside)"),
            inert(one.recipient or "(outside)"),
            f"{one.count:,}",
            inert(f"{one.failures:,}", style="red" if one.failures else ""),
            f"{one.last:%Y-%m-%d %H:%M:%S}",
        )
    console().print(shown)
