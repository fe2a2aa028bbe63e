"""``actorbus audit anchors``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import (
    AsJson,
    Tenant,
    Url,
    console,
    inert,
    print_json,
    print_rows,
)
from actorbus.cli.audit.proof import Anchors, proven
from actorbus.cli.terminal import fail


@command
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
        if not new_key.name:
            fail(f"--new-key {new_key} is no file: name one, such as key.pem", 2)
        public = new_key.with_name(f"{new_key.name}.pub")
        make_keys(new_key, public)
        if as_json:
            print_json({"signs": str(new_key), "verifies": str(public)})
        else:
            console().print(inert(f"{new_key} signs, {public} verifies."))
        return
    found = proven(audit, tenant, anchors).anchors()
    names = ("chain", "number", "seq", "hash", "at", "key")
    if not found:
        console(stderr=True).print("No anchors of this tenant are there.", style="dim")
    rows = [tuple(getattr(one, name) for name in names) for one in found]
    print_rows(names, rows if as_json else rows[-20:], as_json=as_json)
