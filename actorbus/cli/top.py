"""``actorbus top``."""

from __future__ import annotations

import select
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Group
from rich.text import Text

from actorbus.cli import terminal
from actorbus.cli.audit.common import AsJson, console, inert, print_json, table
from actorbus.cli.deployment import (
    COLOURS,
    Bus,
    Namespace,
    verdicts,
)
from actorbus.cli.guest import failures_told, reached
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.bus.transports.redis.dead_letters import DeploymentLetters
    from actorbus.cli.guest import Deployment
    from actorbus.registry.directories.redis import RedisDirectory

_MOST_AGENTS: Final = 10_000
"""Agents whose inboxes are looked at."""
_BESIDE: Final = 12
"""Lines of a screen that are not agents, beside one a node."""


def top(
    bus: Bus,
    once: Annotated[bool, typer.Option("--once", help="One picture, and no more.")] = False,
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="Between two pictures.")
    ] = 2.0,
    lines: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="Agents to show, the busiest.")
    ] = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show a running deployment live: nodes, the busiest agents, what waits, and the server.

    "waits" is what lies in an agent's inbox, what it has in hand included. q or Ctrl-C ends it.
    With --once or --json, or where there is no terminal, it is one picture.

    Ends with 0, with 1 if the server is not there, with 2 for arguments that cannot be meant,
    and with 130 after Ctrl-C.
    """
    with reached(bus, namespace) as there, failures_told(), _looking(there) as look:
        if as_json:
            print_json(look())
        elif once or not terminal.console().is_terminal:
            console().print(_page(look(), lines or 20))
        else:
            _live(look, every, lines)


@contextmanager
def _looking(there: Deployment) -> Iterator[Callable[[], dict[str, Any]]]:
    """What takes a picture; from the second on with rates."""
    from actorbus.bus.transports.redis.dead_letters import DeploymentLetters
    from actorbus.registry.directories.redis import RedisDirectory

    directory = RedisDirectory(
        there.server, there.codec, namespace=there.settings.namespace, names_held=True
    )
    letters = DeploymentLetters(there.server, there.log, there.codec)
    handled: dict[str, int] = {}
    looked_at: float | None = None

    def look() -> dict[str, Any]:
        nonlocal handled, looked_at
        now = time.monotonic()
        passed = 0.0 if looked_at is None else now - looked_at
        picture = _picture(there, directory, letters, handled, passed)
        handled = {one["name"]: one["handled"] for one in picture["agents"]}
        looked_at = now
        return picture

    try:
        yield look
    finally:
        directory.close()


def _picture(
    there: Deployment,
    directory: RedisDirectory,
    letters: DeploymentLetters,
    handled: dict[str, int],
    passed: float,
) -> dict[str, Any]:
    """`handled`: what each agent had handled `passed` seconds ago."""
    directory.look()
    nodes = directory.nodes()
    judged = verdicts(nodes, there.settings)
    members = directory.members()
    waiting = there.log.depths([one.member.name for one in members[:_MOST_AGENTS]])
    waiting += [0] * (len(members) - len(waiting))
    agents: list[dict[str, Any]] = []
    for one, waits in zip(members, waiting, strict=True):
        name, count = one.member.name, one.member.message_count
        known = handled.get(name) if passed else None
        agents.append(
            {
                "name": name,
                "node": one.node,
                "status": str(judged.get(one.node) or one.member.status),
                "waits": waits,
                "handled": count,
                "rate": None if known is None else round(max(0, count - known) / passed, 1),
            }
        )
    agents.sort(key=lambda one: (-one["waits"], -(one["rate"] or 0), one["name"]))
    rates = [one["rate"] for one in agents if one["rate"] is not None]
    return {
        "namespace": there.settings.namespace,
        "taken": datetime.now(UTC).isoformat(),
        "nodes": [
            {
                "name": one.name,
                "status": str(judged.get(one.name, "alive")),
                "agents": one.agents,
                "silence": round(one.silence, 3),
                "host": one.host,
                "pid": one.pid,
            }
            for one in nodes
        ],
        "agents": agents,
        "waits": sum(waiting),
        "rate": round(sum(rates), 1) if rates else None,
        "dead_letters": letters.count(),
        "redis": _server(there),
    }


def _server(there: Deployment) -> dict[str, Any]:
    """Of all servers that hold data, the sums."""
    told = {"ops": 0, "memory": 0, "clients": 0, "servers": 0}
    with there.server.members() as members:
        for one in members:
            with there.server.errors():
                info: Any = one.client.info()
            if "used_memory" not in info or one.role == "sentinel":
                continue
            told["ops"] += int(info["instantaneous_ops_per_sec"])
            told["memory"] += int(info["used_memory"])
            told["clients"] += int(info["connected_clients"])
            told["servers"] += 1
    return told


def _live(look: Callable[[], dict[str, Any]], every: float, lines: int | None) -> None:
    from rich.live import Live

    page = terminal.console()
    try:
        with _keys() as pressed, Live(console=page, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    picture = look()
                    room = page.size.height - _BESIDE - len(picture["nodes"])
                    shown: Any = _page(picture, lines or max(3, room))
                except TransportUnavailable as error:
                    shown = inert(f"{error}\nTrying again. q ends it.", lines=True, style="red")
                live.update(shown, refresh=True)
                if pressed(every):
                    return
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """What waits for so many seconds, and says whether q was pressed meanwhile."""
    try:
        import termios
        import tty

        kept = termios.tcgetattr(sys.stdin)
    except (ImportError, OSError, termios.error):
        yield _no_key
        return
    tty.setcbreak(sys.stdin)
    try:
        yield _is_q_pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)


def _is_q_pressed(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            key = sys.stdin.read(1)
            if key in ("q", "Q", ""):
                return True
    return False


def _no_key(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _page(picture: dict[str, Any], lines: int) -> Group:
    nodes = table("node", "status", "agents", "last beat", "host", "pid")
    for one in picture["nodes"]:
        nodes.add_row(
            inert(one["name"]),
            Text(one["status"], style=COLOURS.get(one["status"], "green")),
            str(one["agents"]),
            f"{one['silence']:.1f} s ago",
            inert(one["host"] or "-"),
            str(one["pid"] or "-"),
        )
    agents = table("agent", "status", "waits", "handled", "per second", "node")
    for one in picture["agents"][:lines]:
        agents.add_row(
            inert(one["name"]),
            Text(one["status"], style=COLOURS.get(one["status"], "green")),
            f"{one['waits']:,}",
            f"{one['handled']:,}",
            _rate(one["rate"]),
            inert(one["node"]),
        )
    redis = picture["redis"]
    total = (
        f"{len(picture['nodes'])} nodes, {len(picture['agents']):,} agents;"
        f" {picture['waits']:,} wait, {_rate(picture['rate'])} handled a second,"
        f" {picture['dead_letters']:,} dead letters"
    )
    server = (
        f"Redis: {redis['ops']:,} commands a second, {redis['memory'] / 2**20:.1f} MiB,"
        f" {redis['clients']:,} connections"
    )
    hidden = len(picture["agents"]) - lines
    more = [inert(f"and {hidden:,} more", style="dim")] if hidden > 0 else []
    head = [inert(f"actorbus {picture['namespace']}", style="bold"), inert(total), inert(server)]
    return Group(*head, Text(), nodes, Text(), agents, *more)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}"
