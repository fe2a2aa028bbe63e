"""``actorbus context``: the shared state of a running deployment."""

from __future__ import annotations

import json
import queue
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actorbus.cli import terminal
from actorbus.cli.audit.common import AsJson, console, inert, print_json, table
from actorbus.cli.deployment import Bus, Namespace  # noqa: TC001 - typer reads the hints
from actorbus.cli.guest import failures_told, guest
from actorbus.cli.sending import value_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from actorbus.context.context import Context
    from actorbus.context.store import Change
    from actorbus.context.watch import Lagged

Where = Annotated[
    str, typer.Argument(metavar="NAMESPACE", help="Such as global, plan or agent/editor.")
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Actor = Annotated[
    str | None,
    typer.Option("--agent", metavar="NAME", help="Read as that agent: its private namespace too."),
]
Version = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Only if that is its version now; 0: if it is absent."),
]

app = typer.Typer(
    name="context",
    help="Read and change the shared state of a running deployment.",
    epilog="Exit codes: 0 done, 1 failed (no such key, another version, no access, no server),"
    " 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def get(
    where: Where,
    key: Key,
    bus: Bus,
    agent: Actor = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Print the value of a key as JSON; with --json also its version, author and time."""
    with _context(bus, namespace, where, agent) as context:
        found = context.versioned(key)
    if found.version == 0:
        terminal.fail(f"{where!r} has no key {key!r}", 1)
    if as_json:
        print_json(
            {
                "key": key,
                "value": _plain(found.value),
                "version": found.version,
                "author": found.author,
                "at": _iso(found.at),
            }
        )
        return
    sys.stdout.write(json.dumps(_plain(found.value), indent=2) + "\n")


@app.command("set")
def set_key(
    where: Where,
    key: Key,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="JSON text, @FILE, or - for stdin.")
    ],
    bus: Bus,
    ttl: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Absent again after that.")
    ] = None,
    if_version: Version = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Set a key, and print the version that it is now."""
    with failures_told():
        wanted = value_of(value)
    with _context(bus, namespace, where) as context:
        if if_version is None:
            version = context.set(key, wanted, ttl)
        else:
            version = context.compare_and_set(key, wanted, if_version, ttl)
    if as_json:
        print_json({"key": key, "version": version})
        return
    console().print(inert(f"{key} is version {version} now."))


@app.command()
def delete(
    where: Where, key: Key, bus: Bus, namespace: Namespace = None, as_json: AsJson = False
) -> None:
    """Delete a key; that it was not there is no failure."""
    with _context(bus, namespace, where) as context:
        gone = context.delete(key)
    if as_json:
        print_json({"key": key, "deleted": gone})
        return
    console().print(inert(f"{key} is gone." if gone else f"{key} was not there."))


@app.command()
def keys(
    where: Where,
    bus: Bus,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Only keys that start so.")] = "",
    agent: Actor = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List the keys of a namespace, sorted."""
    with _context(bus, namespace, where, agent) as context:
        found = context.keys(prefix)
    if as_json:
        print_json(found)
        return
    if not found:
        console(stderr=True).print(inert(f"No keys in {where!r}."))
    for key in found:
        console().print(inert(key))


@app.command()
def history(
    where: Where,
    key: Key,
    bus: Bus,
    agent: Actor = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List the versions of a key that are kept, oldest first."""
    with _context(bus, namespace, where, agent) as context:
        found = context.history(key)
    if not found:
        terminal.fail(f"{where!r} has no key {key!r}, and none of its versions is kept", 1)
    if as_json:
        print_json([_told(one) for one in found])
        return
    listed = table("version", "at", "author", "value")
    for one in found:
        listed.add_row(
            str(one.version),
            f"{datetime.fromtimestamp(one.at).astimezone():%Y-%m-%d %H:%M:%S}",
            inert(one.author or "-"),
            _value(one),
        )
    console().print(listed)


@app.command()
def watch(
    where: Where,
    bus: Bus,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Only keys that start so.")] = "",
    count: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="End after so many.")
    ] = None,
    agent: Actor = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show the changes of a namespace as they come, until Ctrl-C.

    With --json each is a line. What was missed, as too much changed at once, is said.
    """
    coming: queue.SimpleQueue[Change | Lagged] = queue.SimpleQueue()
    with (
        _context(bus, namespace, where, agent) as context,
        context.watch(prefix, coming.put),
    ):
        if not as_json:
            sentence = f"Watching {where!r}. Ctrl-C ends it."
            console(stderr=True).print(inert(sentence), style="dim")
        left = count
        while left is None or left > 0:
            try:
                change = coming.get(timeout=1.0)
            except queue.Empty:
                continue  # Ctrl-C is heard between two waits, on every system
            except KeyboardInterrupt:
                raise typer.Exit(130) from None
            _show(change, as_json)
            left = None if left is None else left - 1


@contextmanager
def _context(
    bus: str, namespace: str | None, where: str, agent: str | None = None
) -> Iterator[Context]:
    with guest(bus, namespace, sends=False) as node:
        yield node.context.namespace(where).bound_to(agent)


def _show(change: Change | Lagged, as_json: bool) -> None:
    from actorbus.context.store import Change

    if as_json:
        told = (
            _told(change)
            if isinstance(change, Change)
            else {"lagged": {"first": change.first, "last": change.last}}
        )
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        return
    if not isinstance(change, Change):
        sentence = f"missed changes {change.first} to {change.last}"
        console().print(inert(sentence), style="yellow")
        return
    line = inert(f"{datetime.fromtimestamp(change.at).astimezone():%H:%M:%S}  {change.key} ")
    line.append(f"v{change.version}", style="dim")
    line.append_text(inert(f"  {change.author or '(outside)'}  "))
    line.append_text(_value(change))
    console().print(line, soft_wrap=True)


def _value(change: Change) -> Text:
    if change.deleted:
        return inert("deleted", style="red")
    return inert(json.dumps(_plain(change.value), ensure_ascii=False))


def _told(change: Change) -> dict[str, Any]:
    return {
        "key": change.key,
        "value": _plain(change.value),
        "version": change.version,
        "author": change.author,
        "at": _iso(change.at),
        "deleted": change.deleted,
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _plain(value: Any) -> Any:
    from actorbus.persistence.payloads import encode

    return json.loads(encode(value))
