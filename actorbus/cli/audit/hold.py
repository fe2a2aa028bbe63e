"""``actorbus audit hold``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actorbus.cli import terminal
from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import AsJson, console, print_change, print_rows
from actorbus.cli.audit.proof import Changed, Who, whoever

if TYPE_CHECKING:
    from actorbus.persistence.audit import Audit


@command
def hold(
    history: Changed,
    what: Annotated[
        str | None,
        typer.Argument(metavar="tenant|run:NAME|conversation:ID", help="Nothing: list holds."),
    ] = None,
    why: Annotated[str | None, typer.Option("--why", help="The reason, which is kept.")] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    by: Who = None,
    as_json: AsJson = False,
) -> None:
    """Keep history from being deleted or redacted, or list what is kept."""
    if what is None:
        if release or why is not None:
            terminal.fail("say what: tenant, run:NAME or conversation:ID", 2)
        _list(history, as_json=as_json)
        return
    if why is None:
        terminal.fail("a hold needs a reason: --why", 2)
    change = history.release if release else history.hold
    changed = change(what, actor=whoever(by), reason=why)
    unchanged = "It was not held." if release else "It is held already."
    said = ("Released." if release else "Held.") if changed else unchanged
    print_change(changed, said, as_json=as_json)
    if not release and not history.keeps_any(what):
        sentence = "No message of it is here yet: those to come will be kept."
        console(stderr=True).print(sentence, style="yellow")


def _list(history: Audit, *, as_json: bool) -> None:
    rows = [(str(one), act.actor, act.at.isoformat(), act.reason) for one, act in history.holds()]
    print_rows(("held", "by", "since", "why"), rows, as_json=as_json)
