"""``actorbus audit repair``.

Exit codes: 0 listed, or all that was lost was sent; 3 something was lost and could not be sent;
else as for ``actorbus audit``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    History,
    check_project,
    console,
    inert,
    moment,
    print_json,
    table,
)
from actorbus.cli.terminal import fail
from actorbus.message import format_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from actorbus.persistence.audit import Audit
    from actorbus.replay import Repair

NOT_SENT: Final = 3


@command
def repair(
    history: History,
    since: Annotated[str | None, typer.Option(help="Sent at or after this time.")] = None,
    grace: Annotated[
        float, typer.Option(help="Seconds that a message may wait before it counts as lost.")
    ] = 60.0,
    load: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The agents to send to: a file, folder or package."),
    ] = None,
    send: Annotated[
        bool, typer.Option("--send", help="Send them again, to the agents of --load.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what was accepted and never handled, or send it again with --load PATH --send.

    Exit codes: 0 listed, or all sent; 3 something was lost and could not be sent.
    """
    if send and load is None:
        fail("--send needs --load PATH: the agents that are to handle it", 2)
    found = _found(history, moment("--since", since), grace, load, send=send)
    if not found:
        check_project(history)
    if as_json:
        print_json([_plain(one) for one in found])
    else:
        _show(found)
    if send and any(str(one.standing) in ("lost", "nobody", "unreadable") for one in found):
        raise typer.Exit(NOT_SENT)


def _found(
    audit: Audit, since: datetime | None, grace: float, load: str | None, *, send: bool
) -> list[Repair]:
    from actorbus import replay
    from actorbus.node import Node
    from actorbus.settings import Settings

    if load is None:
        return replay.lost(audit, since=since, grace=grace)
    settings = Settings(tenant=audit.tenant, project=audit.project)
    with Node(audit=audit if send else None, settings=settings) as node:
        for broken in node.load(load).broken:
            console(stderr=True).print(inert(f"not loaded: {broken}"), style="yellow")
        return replay.repair(node, audit, since=since, grace=grace, dry_run=not send)


def _show(found: Iterable[Repair]) -> None:
    rows = list(found)
    if not rows:
        console().print("nothing was lost")
        return
    listed = table("id", "sent (UTC)", "from", "to", "type", "standing", "")
    for one in rows:
        view = one.message
        more = one.why if one.sent_as is None else f"as {format_id(one.sent_as)}"
        listed.add_row(
            format_id(view.id),
            view.created_at.strftime("%Y-%m-%d %H:%M:%S"),
            inert(view.sender or "-"),
            inert(view.recipient or "-"),
            inert(view.type),
            str(one.standing),
            inert(more),
        )
    console().print(listed)


def _plain(one: Repair) -> dict[str, Any]:
    view = one.message
    return {
        "id": format_id(view.id),
        "created_at": view.created_at.isoformat(),
        "sender": view.sender,
        "recipient": view.recipient,
        "type": view.type,
        "standing": str(one.standing),
        "why": one.why,
        "sent_as": None if one.sent_as is None else format_id(one.sent_as),
    }
