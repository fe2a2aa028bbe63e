"""``actorbus agents``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from actorbus.cli import terminal
from actorbus.cli.audit.common import console, inert, print_json, table
from actorbus.cli.deployment import COLOURS, Bus, Namespace, deployment, verdicts
from actorbus.errors import InvalidArgument, InvalidName
from actorbus.message import check_name

if TYPE_CHECKING:
    from actorbus.registry.entry import Entry


def agents(
    bus: Bus,
    namespace: Namespace = None,
    capability: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those that offer it.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="Only those that stand so: starting, busy, idle, active (busy or idle),"
            " suspect, dead, parked, stopped.",
        ),
    ] = None,
    node: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those on that node.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the agents of a running deployment, what they can do and how busy they are.

    Loads are as old as their nodes' last report, a second or so. Who runs on a suspect or dead
    node is shown as that; see `actorbus nodes`.

    Ends with 0 also where there are none, with 1 if the server is not there, and with 2 for
    arguments that cannot be meant.
    """
    from actorbus.registry.entry import statuses

    try:
        wanted = None if status is None else statuses(status)
        if capability is not None:
            check_name("a capability", capability)
    except (InvalidArgument, InvalidName) as error:
        terminal.fail(str(error), 2)
    with deployment(bus, namespace) as (directory, settings):
        directory.look()
        judged = verdicts(directory.nodes(), settings)
        found = directory.members(capability)
    standing = [(one, judged.get(one.node) or one.member.status) for one in found]
    rows = [
        _plain(one, str(stands))
        for one, stands in standing
        if (wanted is None or stands in wanted) and (node is None or one.node == node)
    ]
    rows.sort(key=lambda row: str(row["name"]))
    if as_json:
        print_json(rows)
        return
    if not rows:
        sentence = "Nothing matches." if found else f"No agents in {settings.namespace!r}."
        console(stderr=True).print(inert(sentence))
        return
    listed = table("agent", "status", "load", "handled", "capabilities", "node", "type")
    for row in rows:
        offered = [f"{one['name']} {one['version']}".strip() for one in row["capabilities"]]
        listed.add_row(
            inert(row["name"]),
            Text(row["status"], style=COLOURS.get(row["status"], "green")),
            str(row["load"]),
            str(row["handled"]),
            inert(", ".join(offered) or "-"),
            inert(row["node"]),
            inert(row["type"]),
        )
    console().print(listed)


def _plain(entry: Entry, status: str) -> dict[str, Any]:
    from actorbus.registry.entry import Capability

    member = entry.member
    offered = [Capability.parse(one) for one in member.capabilities]
    return {
        "name": member.name,
        "status": status,
        "node": entry.node,
        "load": member.load,
        "handled": member.message_count,
        "capabilities": [{"name": one.name, "version": one.version} for one in offered],
        "type": member.agent_type,
    }
