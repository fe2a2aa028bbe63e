"""``actorbus doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from actorbus.cli import terminal
from actorbus.errors import InvalidSettings, InvalidUrl, TransportUnavailable, UnknownTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.transports.redis.checkup import Finding

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
    """Check Redis servers: can they carry a bus, and what should be changed?

    Of a service behind Sentinel or a cluster, every server is looked at. Ends with 0 if they
    can, warnings or not, with 1 if they cannot or are not there, and with 2 if the URL is none.
    """
    from actorbus.bus.transports.redis.checkup import Verdict, examine
    from actorbus.redis_client import Access, RedisServer, parsed
    from actorbus.settings import Settings

    try:
        transport, url = parsed(bus)
        server = RedisServer(url, name="actorbus-doctor", access=Access.of(Settings()))
    except (InvalidSettings, InvalidUrl, UnknownTransport) as error:
        terminal.fail(str(error), 2)
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    try:
        findings = examine(server, durable=transport == "durable")
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    finally:
        server.close()
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in findings], indent=2) + "\n")
    else:
        terminal.console().print(_table(findings))
    if any(one.verdict is Verdict.REFUSED for one in findings):
        raise typer.Exit(1)


def _table(findings: Sequence[Finding]) -> Table:
    """One row a finding; with the server's, where there are several."""
    many = any(one.server for one in findings)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*(["server"] if many else []), "check", "verdict", "found", "to change"):
        table.add_column(name, overflow="fold")
    for one in findings:
        table.add_row(
            *([terminal.inert(one.server or "all")] if many else []),
            one.what,
            Text(one.verdict, style=_COLOURS[one.verdict]),
            terminal.inert(one.found),
            one.change,
        )
    return table
