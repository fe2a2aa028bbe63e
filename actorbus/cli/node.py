"""``actorbus node``."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - typer reads the hint
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from actorbus.cli import terminal
from actorbus.errors import ActorbusError, AuditUnavailable, NotStopped, TransportUnavailable

if TYPE_CHECKING:
    from actorbus import Node
    from actorbus.actors.loader import Loaded


def node(
    bus: Annotated[
        str,
        typer.Option(
            envvar="ACTORBUS_BUS", metavar="URL", help="The bus, such as redis://host:6379/0."
        ),
    ],
    load: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="A file, folder or package with agents; may be repeated."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The node's name; made up if not given.")
    ] = None,
    audit: Annotated[
        str | None,
        typer.Option(envvar="ACTORBUS_AUDIT", metavar="URL", help="Where history is written."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of the loopback.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds for handlers to return once it is to stop.")
    ] = 25.0,
    pin: Annotated[
        int | None,
        typer.Option(
            metavar="CPU", help="Stay on one core: a process cannot use two, and switching costs."
        ),
    ] = None,
) -> None:
    """Run a node until SIGTERM or Ctrl-C; its agents then move to other nodes.

    The first signal has handlers finish what they have in hand, and gives the agents up; a second
    one ends the process at once, and others take over once it is silent for too long.

    Ends with 0 after an orderly stop, with 1 if the bus or the history cannot be had, or handlers
    did not return in time, and with 2 for arguments that cannot be meant.
    """
    from actorbus import Node

    try:
        _pin(pin)
        runs = Node(bus, name=name, audit=audit, metrics_port=metrics_port)
        runs.start()
    except (TransportUnavailable, AuditUnavailable) as error:
        terminal.fail(str(error), 1)
    except ActorbusError as error:
        terminal.fail(str(error), 2)
    try:
        _load(runs, load or [])
        runs.wait()
    finally:
        _stop(runs, grace)


def _load(node: Node, paths: list[Path]) -> None:
    """Load agents, and run those here that run nowhere else."""
    try:
        found = [node.load(path) for path in paths]
    except ActorbusError as error:
        terminal.fail(str(error), 2)
    running = node.run_loaded()
    _show(node, found, running)


def _show(node: Node, found: list[Loaded], running: list[str]) -> None:
    console = terminal.console()
    console.print(f"{node.name} is up on {node.bus.guarantees.transport}. Ctrl-C stops it.")
    if any(one.agents for one in found):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("agent", "runs", "can do", "handles"):
            table.add_column(column, overflow="fold")
        for one in found:
            for agent in one.agents.values():
                table.add_row(
                    agent.name,
                    "here" if agent.name in running else "elsewhere",
                    ", ".join(agent.capabilities),
                    ", ".join(agent.handles),
                )
        console.print(table)
    for one in found:
        for broken in one.broken:
            where = broken.path if broken.line is None else f"{broken.path}:{broken.line}"
            terminal.console(stderr=True).print(
                terminal.inert(f"not loaded: {where}: {broken.error}"), style="yellow"
            )


def _pin(cpu: int | None) -> None:
    if cpu is None:
        return
    affinity: Any = getattr(os, "sched_setaffinity", None)
    if affinity is None:
        terminal.fail("this system cannot keep a process on one core; leave --pin out", 2)
    try:
        affinity(0, {cpu})
    except (OSError, ValueError):
        known = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        terminal.fail(f"there is no CPU {cpu} for this process; there are {known}", 2)


def _stop(node: Node, grace: float) -> None:
    try:
        node.stop(grace)
    except NotStopped as left:
        terminal.fail(str(left), 1)
    terminal.console().print(f"{node.name} has stopped.")
