"""``actorbus node``."""

from __future__ import annotations

import gc
import os
import queue
import signal
import time
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the hint
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from actorbus.cli import terminal
from actorbus.errors import (
    ActorbusError,
    AuditUnavailable,
    InvalidAuditUrl,
    InvalidUrl,
    NameTaken,
    TransportUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus import Node
    from actorbus.actors.loader import Loaded

_LONG: Final = 3_600.0
_LEFT: Final = 5.0
"""Seconds that a node has to run its share of what several loaded that started together."""
_LOOK: Final = 0.25
"""Seconds between two looks whether a node of the same name still beats."""


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
    namespace: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which nodes it sees; by default ACTORBUS_NAMESPACE, or else actorbus.",
        ),
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
    one ends the process at once, and others take over once it is silent for too long. Where a node
    of that name was killed a moment ago, this one waits until that is certain.

    Ends with 0 after an orderly stop, with 1 if the bus or the history cannot be had, or handlers
    did not return in time, and with 2 for arguments that cannot be meant.
    """
    began = time.monotonic()

    from actorbus import Node, Settings

    def start() -> Node:
        settings = Settings() if namespace is None else Settings(namespace=namespace)
        return Node(
            bus, name=name, audit=audit, metrics_port=metrics_port, settings=settings
        ).start()

    with _signals() as signals:
        try:
            _pin(pin)
            runs = _started(start, bus, name, namespace, signals)
        except (InvalidAuditUrl, InvalidUrl) as error:
            terminal.fail(str(error), 2)
        except (TransportUnavailable, AuditUnavailable) as error:
            terminal.fail(str(error), 1)
        except ActorbusError as error:
            terminal.fail(str(error), 2)
        try:
            _load(runs, load or [], time.monotonic() - began)
            left = bool(load)
            while not signals.wait(_LEFT if left else _LONG):
                left = left and not _run_left(runs)
        finally:
            _stop(runs, grace)


class _Signals:
    """SIGTERM and Ctrl-C: the first is waited for, a second one ends the process at once."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may interrupt its get

    def note(self, number: int, _frame: object) -> None:
        if not self._arrived.empty():
            os._exit(128 + number)
        self._arrived.put(number)

    def wait(self, seconds: float) -> bool:
        """Whether one has come, within so many seconds."""
        try:
            self._arrived.put(self._arrived.get(timeout=seconds))
        except queue.Empty:
            return False
        return True


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    before = {
        number: signal.signal(number, signals.note)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _started(
    start: Callable[[], Node],
    bus: str,
    name: str | None,
    namespace: str | None,
    signals: _Signals,
) -> Node:
    """The node, once its name is free.

    Raises:
        NameTaken: a node that has it lives.
        ActorbusError: it cannot be had for another reason.
    """
    give_up: float | None = None
    while True:
        try:
            return start()
        except NameTaken:
            if name is None:
                raise
            now = time.monotonic()
            if give_up is None:
                give_up = now + _wait_for(bus, name)
            if now > give_up or _is_heard(bus, name, namespace, signals):
                raise


def _wait_for(bus: str, name: str) -> float:
    """Say that this node waits; for how many seconds at most."""
    from actorbus.settings import Settings

    settings = Settings()
    seconds = settings.dead_after + settings.beat
    sentence = (
        f"A node {name!r} was here a moment ago. Waiting at most {seconds:g} s until it is"
        " certain that it is gone."
    )
    terminal.console(stderr=True).print(sentence, soft_wrap=True)
    return seconds


def _is_heard(bus: str, name: str, namespace: str | None, signals: _Signals) -> bool:
    """Whether the node of that name beats; false once it does not any more, or is gone.

    A signal ends the program meanwhile: there is nothing yet to stop.
    """
    from actorbus.cli.deployment import deployment

    with deployment(bus, namespace) as (directory, settings):
        silence, incarnation = 0.0, None
        while True:
            found = next((one for one in directory.nodes() if one.name == name), None)
            if found is None or found.silence >= settings.dead_after:
                return False
            if incarnation is not None and found.incarnation != incarnation:
                return True  # another was faster
            if found.silence < silence:
                return True
            silence, incarnation = found.silence, found.incarnation
            if signals.wait(min(_LOOK, settings.beat / 4)):
                raise typer.Exit(130)


def _load(node: Node, paths: list[Path], took: float) -> None:
    """Load agents, and run those here that run nowhere else.

    Where it `took` long to get here, it takes others long as well that were started with this.
    """
    together = node.settings.start_together
    if not paths:
        together = 0.0
    elif together:
        together = max(together, took)
    try:
        found = [node.load(path, lazily=True) for path in paths]
        running = node.run_loaded(together=together)
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    except ActorbusError as error:
        terminal.fail(str(error), 2)
    _keep_what_is_here()
    _show(node, found, running)


def _keep_what_is_here() -> None:
    """Have the garbage collector pass over what is there once the node is up.

    That stays as long as the process does: modules and classes, mostly, 60,000 objects and more
    that each full collection would look at, for 30 ms, with all agents at rest. Only who owns the
    process may say so, so a ``Node`` does not.
    """
    gc.collect()  # or the garbage would be kept, too
    gc.freeze()


def _run_left(node: Node) -> bool:
    """Run what nodes that started with this one should have run and do not; False: not now."""
    try:
        node.run_loaded()
    except TransportUnavailable:  # the node has said so, and goes on trying
        return False
    except ActorbusError as error:
        terminal.fail(str(error), 2)
    return True


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
                    "here" if agent.name in running else "stands by",
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
    except ActorbusError as error:  # handlers did not return, or history was not written
        terminal.fail(str(error), 1)
    terminal.console().print(f"{node.name} has stopped.")
