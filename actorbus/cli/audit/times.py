"""``actorbus audit times``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actorbus.cli.audit.common import (
    AsJson,
    Project,
    Tenant,
    Url,
    answered,
    console,
    history,
    inert,
    print_json,
    table,
)
from actorbus.cli.audit.filtered import filtered

if TYPE_CHECKING:
    from actorbus.persistence.answers import Spread


@filtered
def times(
    *,
    audit: Url = None,
    tenant: Tenant = "default",
    project: Project = "default",
    limit: Annotated[int, typer.Option(help="At most so many lines.")] = 50,
    as_json: AsJson = False,
    filters: Any,
) -> None:
    """Show how long messages waited and took, in seconds, by recipient and type."""
    found = answered(lambda: history(audit, tenant, project).times(limit=limit, **filters))
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
