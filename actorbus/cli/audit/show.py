"""``actorbus audit show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import AsJson, History, Id, console, inert, print_json, table
from actorbus.cli.terminal import fail
from actorbus.persistence.drawing.plain import plain

if TYPE_CHECKING:
    from actorbus.persistence.answers import MessageView


@command
def show(id: Id, history: History, as_json: AsJson = False) -> None:
    """Show all there is to know of one message."""
    view = history.message(id)
    if view is None:
        fail(f"history has no message {id}", 1)
    if as_json:
        print_json(plain(view))
        return
    page = console()
    fields = Table.grid(padding=(0, 2))
    fields.add_column(style="bold", no_wrap=True)
    fields.add_column(overflow="fold")
    for name, value in plain(view).items():
        if value not in (None, [], {}) and name not in ("payload", "deliveries"):
            fields.add_row(name, inert(_shown(value)))
    page.print(fields)
    page.print(Text("payload", style="bold"))
    page.print(inert(json.dumps(view.payload, indent=2, ensure_ascii=False), lines=True))
    if len(view.deliveries) > 1 or any(one.node != view.node for one in view.deliveries):
        page.print(_deliveries(view))


def _deliveries(view: MessageView) -> Table:
    told = table("delivered to", "node", "status", "attempt", "error")
    for one in view.deliveries:
        status = f"{one.status}: {one.reason}" if one.reason else str(one.status)
        told.add_row(
            inert(one.recipient or "-"),
            inert(one.node),
            inert(status),
            str(one.attempt),
            inert(one.error or ""),
        )
    return told


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
