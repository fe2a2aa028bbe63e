"""``actorbus audit runs``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

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
from actorbus.message import format_id, parse_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from actorbus.persistence.repositories import AgentRunView, RunView

_OF_RUNS: Final = ("name",)
_OF_PARTS: Final = ("agent", "node")


@command
def runs(
    history: History,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="List the agents that took part in it.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Older than this one: the next page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs, the newest first, or the agents that took part in one."""
    start = None if before is None else parse_id(before)
    found: Sequence[RunView | AgentRunView]
    if run is None:
        found = history.runs(limit=limit, before=start)
    else:
        found = history.agent_runs(run, limit=limit, before=start)
    if as_json:
        print_json([_plain(one) for one in found])
    elif found:
        _show(found, _OF_RUNS if run is None else _OF_PARTS)
    else:
        say_nothing_found(history)
    if len(found) == limit:
        console(stderr=True).print(f"More: --before {format_id(found[-1].id)}", style="dim")


def _show(found: Sequence[RunView | AgentRunView], names: Sequence[str]) -> None:
    listed = table(*names, "began (UTC)", "ended (UTC)")
    for one in found:
        # Nobody need say that it has ended, so `running` would say more than is known.
        ended = "-" if one.ended_at is None else f"{_moment(one.ended_at)}, {one.status}"
        cells = [*(getattr(one, name) for name in names), _moment(one.started_at), ended]
        listed.add_row(*map(inert, cells))
    console().print(listed)


def _plain(view: RunView | AgentRunView) -> dict[str, Any]:
    said = asdict(view)
    return {
        **said,
        "id": format_id(view.id),
        "status": str(view.status),
        "started_at": view.started_at.isoformat(),
        "ended_at": None if view.ended_at is None else view.ended_at.isoformat(),
    }


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
