"""``actorbus audit hold``."""

from __future__ import annotations

from typing import Annotated

import typer

from actorbus.cli import terminal
from actorbus.cli.audit.common import AsJson, Tenant, Url, console, inert, print_json, table
from actorbus.cli.audit.proof import Anchors, SigningKey, Who, done, proven, whoever


def hold(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[tenant|run:NAME|conversation:ID]", help="Nothing: list holds."),
    ] = None,
    why: Annotated[str | None, typer.Option("--why", help="The reason, which is kept.")] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    audit: Url = None,
    tenant: Tenant = "default",
    by: Who = None,
    anchors: Anchors = None,
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Keep history from being deleted or redacted, or list what is kept."""
    history = proven(audit, tenant, anchors=anchors, signing_key=signing_key)
    if what is None:
        held = done(history.holds)
        rows = [(str(one), act.actor, act.at.isoformat(), act.reason) for one, act in held]
        names = ("held", "by", "since", "why")
        if as_json:
            print_json([dict(zip(names, row, strict=True)) for row in rows])
            return
        listed = table(*names)
        for row in rows:
            listed.add_row(*map(inert, row))
        console().print(listed)
        return
    if why is None:
        terminal.fail("a hold needs a reason: --why", 2)
    change = history.release if release else history.hold
    changed = done(lambda: change(what, actor=whoever(by), reason=why))
    unchanged = "It was not held." if release else "It is held already."
    console().print(("Released." if release else "Held.") if changed else unchanged)
