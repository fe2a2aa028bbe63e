"""``actorbus audit retain``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated

import typer

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import AsJson, console, print_json
from actorbus.cli.audit.proof import Changed, Who, Why, whoever
from actorbus.cli.terminal import fail
from actorbus.persistence.drawing.wording import counted

_DAY = 86_400.0
_MIB = 1 << 20


@command
def retain(
    why: Why,
    history: Changed,
    days: Annotated[float | None, typer.Option(help="Keep what is younger.")] = None,
    messages: Annotated[int | None, typer.Option(help="Keep so many, the newest.")] = None,
    mib: Annotated[float | None, typer.Option(help="Keep about so many MiB.")] = None,
    by: Who = None,
    as_json: AsJson = False,
) -> None:
    """Delete the oldest history. What stays still verifies; what is on hold stays."""
    from actorbus.persistence.retention import Limits

    for option, given in (("--days", days), ("--mib", mib)):
        if given is not None and not math.isfinite(given):
            fail(f"{option} is {given}: it must be a number from 0", 2)
    limits = Limits(
        age=None if days is None else days * _DAY,
        messages=messages,
        size=None if mib is None else int(mib * _MIB),
    )
    deleted = history.retain(limits, actor=whoever(by), reason=why)
    if as_json:
        print_json([asdict(one) for one in deleted])
        return
    console().print(f"{counted(sum(one.rows for one in deleted), 'row')} deleted.")
    if any(one.held for one in deleted):
        console().print("A legal hold kept more: actorbus audit hold lists them.")
