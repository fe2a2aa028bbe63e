"""``actorbus audit conversation``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from actorbus.cli.audit.common import (
    AsJson,
    Id,
    Project,
    Tenant,
    Url,
    addressed,
    answered,
    console,
    history,
    inert,
    plain,
    print_json,
    standing,
)
from actorbus.cli.terminal import fail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.persistence.audit import MessageView


def conversation(
    id: Id,
    audit: Url = None,
    tenant: Tenant = "default",
    project: Project = "default",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Draw who said what to whom, from the id of any message of the conversation."""
    found = answered(lambda: history(audit, tenant, project).conversation(id, limit=limit))
    if not found:
        fail(f"history has no conversation {id}", 1)
    if as_json:
        print_json([plain(view) for view in found])
        return
    page = console()
    for line in _sequence(found):
        page.print(line, no_wrap=True, overflow="ellipsis")
    if len(found) == limit:
        console(stderr=True).print(f"Only the first {limit:,}; see --limit.", style="dim")


def _sequence(views: list[MessageView]) -> Iterable[Text]:
    """One line a message, indented under the one that caused it."""
    depths: dict[int, int] = {}
    start = views[0].created_at
    for view in views:
        cause = view.causation_id
        depth = depths[cause] + 1 if cause in depths else 0
        depths[view.id] = depth
        after = (view.created_at - start).total_seconds()
        line = Text(f"{after:>9.3f}s  {'  ' * min(depth, 12)}")
        line.append(inert(view.sender or "(outside)"))
        line.append(" <── " if view.kind in ("reply", "error") else " ──> ", style="dim")
        line.append(inert(addressed(view)))
        line.append("  ")
        line.append(inert(view.type))
        line.append("  ")
        line.append(standing(view))
        if view.took is not None and view.took >= 0.001:
            line.append(f"  {view.took:.3f}s", style="dim")
        yield line
