"""``actorbus doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from actorbus.cli import terminal
from actorbus.errors import TransportUnavailable, UnknownTransport

_COLOURS: Final = {"ok": "green", "warning": "yellow", "refused": "red"}


def doctor(
    bus: Annotated[
        str,
        typer.Option(
            envvar="ACTORBUS_BUS", metavar="URL", help="The server, such as redis://host:6379/0."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check a Redis server: can it carry a bus, and what should be changed?

    Ends with 0 if it can, warnings or not, and with 1 if it cannot or is not there.
    """
    from actorbus.bus.transports.redis.checkup import Verdict, examine
    from actorbus.redis_client import RedisServer

    try:
        server = RedisServer(bus, name="actorbus-doctor")
    except UnknownTransport as error:
        terminal.fail(str(error), 2)
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    try:
        findings = examine(server)
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    finally:
        server.close()
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in findings], indent=2) + "\n")
    else:
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("check", "verdict", "found", "to change"):
            shown.add_column(name, overflow="fold")
        for one in findings:
            shown.add_row(
                one.what,
                Text(one.verdict, style=_COLOURS[one.verdict]),
                terminal.inert(one.found),
                one.change,
            )
        terminal.console().print(shown)
    if any(one.verdict is Verdict.REFUSED for one in findings):
        raise typer.Exit(1)
