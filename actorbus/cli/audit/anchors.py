"""``actorbus audit anchors``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from actorbus.cli.audit.common import AsJson, Tenant, Url, console, inert, print_json, table
from actorbus.cli.audit.proof import Anchors, done, proven


def anchors(
    audit: Url = None,
    tenant: Tenant = "default",
    anchors: Anchors = None,
    new_key: Annotated[
        Path | None,
        typer.Option("--new-key", help="Make a key to sign with here, and its .pub beside it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the anchors of a history, the last 20; or make a key that signs them."""
    from actorbus.persistence.anchors import make_keys

    if new_key is not None:
        public = new_key.with_name(f"{new_key.name}.pub")
        done(lambda: make_keys(new_key, public))
        console().print(f"{new_key} signs, {public} verifies.")
        return
    found = done(lambda: proven(audit, tenant, anchors=anchors).anchors())
    names = ("chain", "number", "seq", "hash", "at", "key")
    rows = [tuple(str(getattr(one, name)) for name in names) for one in found]
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    listed = table(*names)
    for row in rows[-20:]:
        listed.add_row(*map(inert, row))
    console().print(listed)
