"""``actorbus dead-letters``: what no agent of a running deployment could handle."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from actorbus.cli.audit.common import AsJson, console, inert, print_json, table
from actorbus.cli.deployment import Bus, Namespace  # noqa: TC001 - typer reads the hints
from actorbus.cli.guest import failures_told, reached
from actorbus.errors import ActorbusError, InvalidArgument, Undecodable, Untrusted
from actorbus.message import Priority, Reason, format_id, parse_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.bus.transports.redis.dead_letters import DeploymentLetters, StoredLetter

_IN_SHORT: Final = 200
"""Characters of an error in a list: a row is as wide as the widest where it goes to a file."""

OfReason = Annotated[
    str | None,
    typer.Option("--reason", metavar="WORD", help=f"Only these: {', '.join(Reason)}."),
]
OfAgent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only that agent's.")]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest, so many.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of messages.")]
All = Annotated[bool, typer.Option("--all", help="All that the options leave, instead of ids.")]

app = typer.Typer(
    name="dead-letters",
    help="What no agent could handle, on a running deployment: list it, send it again, forget it."
    " Messages to agents are kept on the server; events that failed are in their nodes' history.",
    epilog="Exit codes: 0 done, 1 failed (no such letter, no agent, no server), 2 wrong usage.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def list_when_nothing_is_said(
    context: typer.Context,
    bus: Annotated[
        str | None, typer.Option(envvar="ACTORBUS_BUS", metavar="URL", help="The server.")
    ] = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is None:
        if bus is None:
            raise typer.BadParameter("give --bus URL, or set ACTORBUS_BUS")
        list_letters(bus, namespace, as_json=as_json)


@app.command("list")
def list_letters(
    bus: Bus,
    namespace: Namespace = None,
    reason: OfReason = None,
    agent: OfAgent = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    with _letters(bus, namespace) as letters:
        found = letters.list(reason=_known(reason), agent=agent, limit=limit)
        kept = letters.count()
    if as_json:
        print_json([_plain(one) for one in found])
        return
    if not found:
        sentence = "Nothing matches." if kept else "No dead letters."
        console(stderr=True).print(inert(sentence))
        return
    listed = table("id", "at", "agent", "reason", "tries", "error")
    for one in found:
        listed.add_row(
            format_id(one.id),
            f"{datetime.fromtimestamp(one.at).astimezone():%Y-%m-%d %H:%M:%S}",
            inert(one.agent),
            inert(one.reason, style="red"),
            str(one.attempts),
            inert(_in_short(one.error)),
        )
    console().print(listed)
    if kept > len(found) and reason is None and agent is None:
        console(stderr=True).print(inert(f"{kept:,} are kept; --limit shows more."), style="dim")


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of a message.")],
    bus: Bus,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show all there is to know of one: its payload, and why it was not handled."""
    with _letters(bus, namespace) as letters:
        letter = letters.get(parse_id(id))
        told = _plain(letter) | _contents(letters, letter)
    if as_json:
        print_json(told)
        return
    page = console()
    error, payload = told.pop("error"), told.pop("payload", None)
    for name, value in told.items():
        if value not in (None, {}):
            page.print(inert(f"{name:<15}{value}"))
    page.print(inert("payload", style="bold"))
    page.print(inert(json.dumps(payload, indent=2, ensure_ascii=False), lines=True))
    if error:
        page.print(inert("error", style="bold"))
        page.print(inert(error.rstrip(), lines=True))


@app.command()
def requeue(
    bus: Bus,
    ids: Ids = None,
    every: All = False,
    reason: OfReason = None,
    agent: OfAgent = None,
    limit: Limit = 1_000,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to their agents again, each under a new id that the old one caused.

    A letter is sent once, however often and by whomever it is asked for; one that cannot be sent
    is kept, and the command ends with 1.
    """
    done: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    with _letters(bus, namespace) as letters:
        # The oldest first: they come back in the order that they were given up in.
        for letter in reversed(_meant(letters, ids, every, reason, agent, limit)):
            old = format_id(letter.id)
            try:
                done.append({"id": old, "new_id": format_id(letters.requeue(letter))})
            except ActorbusError as error:
                failed.append({"id": old, "error": type(error).__name__, "message": str(error)})
    if as_json:
        print_json({"requeued": done, "failed": failed})
    for one in [] if as_json else done:
        console().print(inert(f"{one['id']} was sent again as {one['new_id']}"))
    for one in failed:
        console(stderr=True).print(inert(f"{one['id']} is kept: {one['message']}"), style="red")
    if not as_json and not done and not failed:
        console(stderr=True).print(inert("Nothing matches."))
    if failed:
        raise typer.Exit(1)


@app.command()
def discard(
    bus: Bus,
    ids: Ids = None,
    every: All = False,
    reason: OfReason = None,
    agent: OfAgent = None,
    limit: Limit = 1_000,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Forget dead letters for good."""
    with _letters(bus, namespace) as letters:
        gone = letters.discard(_meant(letters, ids, every, reason, agent, limit))
    if as_json:
        print_json({"discarded": gone})
        return
    console().print(f"Discarded {gone:,}.")


@contextmanager
def _letters(bus: str, namespace: str | None) -> Iterator[DeploymentLetters]:
    from actorbus.bus.transports.redis.dead_letters import DeploymentLetters

    with reached(bus, namespace) as there, failures_told():
        yield DeploymentLetters(there.server, there.log, there.codec, there.trust)


def _meant(
    letters: DeploymentLetters,
    ids: list[str] | None,
    every: bool,
    reason: str | None,
    agent: str | None,
    limit: int,
) -> list[StoredLetter]:
    if bool(ids) == every:
        raise InvalidArgument("what is meant", ids or "nothing", "give ids, or --all")
    if ids and (reason or agent):
        raise InvalidArgument(
            "what is meant", ids, "ids say it; --reason and --agent go with --all"
        )
    if ids:
        return [letters.get(one) for one in dict.fromkeys(map(parse_id, ids))]
    return letters.list(reason=_known(reason), agent=agent, limit=limit)


def _known(reason: str | None) -> str | None:
    if reason is not None and reason not in list(Reason):
        raise InvalidArgument("a reason", reason, f"one of {', '.join(Reason)}")
    return reason


def _plain(one: StoredLetter) -> dict[str, Any]:
    return {
        "id": format_id(one.id),
        "at": datetime.fromtimestamp(one.at, UTC).isoformat(),
        "agent": one.agent,
        "reason": one.reason,
        "attempts": one.attempts,
        "priority": Priority(one.level).name,
        "error": one.error,
    }


def _contents(letters: DeploymentLetters, letter: StoredLetter) -> dict[str, Any]:
    from actorbus.persistence.payloads import encode

    try:
        message = letters.message(letter)
    except (Undecodable, Untrusted) as error:
        return {"unreadable": str(error), "bytes": len(letter.blob)}
    return {
        "kind": str(message.kind),
        "type": message.type,
        "sender": message.sender,
        "topic": message.topic,
        "correlation_id": format_id(message.correlation_id),
        "causation_id": None if message.causation_id is None else format_id(message.causation_id),
        "run_id": message.run_id,
        "headers": dict(message.headers),
        "payload": json.loads(encode(message.payload)),
    }


def _in_short(error: str) -> str:
    """What was raised, or why it was refused, in one line; `show` has all of it."""
    lines = error.strip().splitlines() or ["-"]
    frames = [at for at, line in enumerate(lines) if line.startswith('  File "')]
    after = lines[frames[-1] + 1 :] if frames else []
    line = next((one for one in after if not one.startswith(" ")), lines[0])
    return line if len(line) <= _IN_SHORT else f"{line[:_IN_SHORT]}…"
