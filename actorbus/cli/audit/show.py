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
from actorbus.persistence.drawing.wording import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

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
    _print_fields(page, dict(_fields(view)))
    _print_text(page, "payload", json.dumps(view.payload, indent=2, ensure_ascii=False))
    if len(view.deliveries) > 1 or any(one.node != view.node for one in view.deliveries):
        page.print(_deliveries(view))
    for title, error in _long_errors(view):
        _print_text(page, title, error)


def _fields(view: MessageView) -> Iterator[tuple[str, str]]:
    for name, value in plain(view).items():
        if value in (None, [], {}) or name in ("payload", "deliveries"):
            continue
        if name == "error":
            yield name, _in_one_line(str(value))
        elif name in ("waited", "took"):
            yield name, duration(value)
        else:
            yield name, _shown(value)


def _print_fields(page: Console, fields: Mapping[str, str]) -> None:
    if page.is_terminal:
        listed = Table.grid(padding=(0, 2))
        listed.add_column(style="bold", no_wrap=True)
        listed.add_column(overflow="fold")
        for name, value in fields.items():
            listed.add_row(name, inert(value))
        page.print(listed)
        return
    width = max(map(len, fields))
    for name, value in fields.items():  # a table would fill each line up to the longest
        page.print(Text.assemble(f"{name:{width}}  ", inert(value)))


def _print_text(page: Console, title: str, text: str) -> None:
    page.print(inert(title, style="bold"))
    page.print(inert(text, lines=True))


def _long_errors(view: MessageView) -> Iterator[tuple[str, str]]:
    """The errors of more than one line, such as tracebacks, each once."""
    told = set()
    of_message = [("error", view.error)]
    of_deliveries = [(f"error of {one.recipient or '-'}", one.error) for one in view.deliveries]
    for title, error in of_message + of_deliveries:
        if error and "\n" in error.strip() and error not in told:
            told.add(error)
            yield title, error.strip("\n")


def _in_one_line(error: str) -> str:
    """An error, and of a traceback the end, which says what it was."""
    return next(iter(error.strip().splitlines()[-1:]), "")


def _deliveries(view: MessageView) -> Table:
    told = table("delivered to", "node", "status", "attempt", "error")
    for one in view.deliveries:
        status = f"{one.status}: {one.reason}" if one.reason else str(one.status)
        told.add_row(
            inert(one.recipient or "-"),
            inert(one.node),
            inert(status),
            str(one.attempt),
            inert(_in_one_line(one.error or "")),
        )
    return told


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
