"""``actorbus keys``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from actorbus.cli import terminal
from actorbus.errors import InvalidName, InvalidSettings


def keys(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The name of the node.")],
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where the two files go.")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a line.")] = False,
) -> None:
    """Make the pair of keys that a node signs its messages with.

    Prints the line that makes others trust it. NODE.pem is for the node alone
    (ACTORBUS_SIGNING_KEY); NODE.pub holds the line, for a file or folder that every node has
    (ACTORBUS_TRUSTED_KEYS).
    """
    from actorbus.codec.signing import make_keys

    try:
        made = make_keys(node, folder)
    except InvalidName as error:
        terminal.fail(str(error), 2)
    except InvalidSettings as error:
        terminal.fail(str(error), 1)
    if as_json:
        told = {"private": str(made.private), "public": str(made.public), "line": made.line}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return
    sys.stdout.write(f"{made.line}\n")
    terminal.console(stderr=True).print(
        terminal.inert(f"{made.private} signs; keep it to the node. {made.public} is for all."),
        soft_wrap=True,
    )
