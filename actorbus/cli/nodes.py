"""``actorbus nodes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from actorbus.cli.audit.common import console, inert, print_json, table
from actorbus.cli.deployment import COLOURS, Bus, Namespace, deployment, verdicts

if TYPE_CHECKING:
    from actorbus.registry.directories.redis.directory import NodeView


def nodes(
    bus: Bus,
    namespace: Namespace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the nodes of a running deployment, and how they are.

    A node is suspect, and then dead, once the server has not heard of it for as long as
    ACTORBUS_SUSPECT_AFTER and ACTORBUS_DEAD_AFTER say; set these as the nodes have them.

    Ends with 0 also where there are none, with 1 if the server is not there, and with 2 for
    arguments that cannot be meant.
    """
    with deployment(bus, namespace) as (directory, settings):
        found = directory.nodes()
    judged = verdicts(found, settings)
    rows = [_plain(one, str(judged.get(one.name, "alive"))) for one in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        console(stderr=True).print(inert(f"No nodes in namespace {settings.namespace!r}."))
        return
    columns = (
        "node",
        "status",
        "agents",
        "load",
        "last beat",
        "host",
        "pid",
        "version",
        "incarnation",
    )
    listed = table(*columns)
    for row in rows:
        listed.add_row(
            inert(row["name"]),
            Text(row["status"], style=COLOURS.get(row["status"], "green")),
            str(row["agents"]),
            str(row["load"]),
            f"{row['silence']:.1f} s ago",
            inert(row["host"] or "-"),
            str(row["pid"] or "-"),
            inert(row["version"] or "-"),
            inert(row["incarnation"]),
        )
    console().print(listed)


def _plain(node: NodeView, status: str) -> dict[str, Any]:
    told = node._asdict()
    return {"name": told.pop("name"), "status": status, **told}
