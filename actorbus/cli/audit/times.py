"""``actorbus audit times``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from actorbus.persistence.answers import Spread


@command
def times(
    history: History,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many lines.")] = 50,
    as_json: AsJson = False,
    *,
    filters: Filtered,
) -> None:
    """Show how long messages waited and took, in seconds, by recipient and type."""
    found = history.times(limit=limit, **filters)
    if not found:
        say_nothing_found(history)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    shown = table("recipient", "type")
    for name in ("count", "waited p50", "p95", "max", "took p50", "p95", "max"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in found:
        shown.add_row(
            inert(one.recipient or "(outside)"),
            inert(one.type),
            f"{one.count:,}",
            *_shown(one.waited),
            *_shown(one.took),
        )
    console().print(shown)


def _shown(spread: Spread) -> tuple[str, ...]:
    return tuple(f"{seconds:.6f}" for seconds in (spread.p50, spread.p95, spread.max))
