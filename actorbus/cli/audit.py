"""``actorbus audit``: read message history.

Exit codes: 0 found, 1 the history cannot be read or has no such message, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actorbus.errors import AuditUnavailable, InvalidName, InvalidQuery
from actorbus.message import Status, format_id
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actorbus.persistence.audit import MessageView

T = TypeVar("T")

_DEMO: Final = "actorbus-demo.db"
_PIPED_WIDTH: Final = 10_000
"""A pipe has no width, and whoever reads it wants whole ids."""
_COLOURS: Final = {
    Status.HANDLED: "green",
    Status.ACCEPTED: "yellow",
    Status.FAILED: "red",
    Status.DEAD: "red",
}

app = typer.Typer(
    name="audit",
    help="Read message history: who said what to whom, and what became of it.",
    no_args_is_help=True,
)

Url = Annotated[
    str | None,
    typer.Option(
        "--audit",
        envvar="ACTORBUS_AUDIT",
        metavar="URL",
        help=f"The history, such as sqlite:///history.db. Default: ./{_DEMO} if it exists.",
    ),
]
Tenant = Annotated[str, typer.Option(envvar="ACTORBUS_TENANT", help="Whose history.")]
Project = Annotated[str, typer.Option(envvar="ACTORBUS_PROJECT", help="Which project's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of a message.")]


@app.command("list")
def list_messages(
    audit: Url = None,
    tenant: Tenant = "default",
    project: Project = "default",
    sender: Annotated[str | None, typer.Option(help="Sent by this agent.")] = None,
    recipient: Annotated[str | None, typer.Option(help="Received by this agent.")] = None,
    agent: Annotated[str | None, typer.Option(help="Sent or received by this agent.")] = None,
    type: Annotated[str | None, typer.Option(help="Payloads of this type.")] = None,
    status: Annotated[str | None, typer.Option(help="accepted, handled, failed or dead.")] = None,
    run: Annotated[str | None, typer.Option(help="Of this run.")] = None,
    since: Annotated[str | None, typer.Option(help="Sent at or after, in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Sent before, in ISO 8601.")] = None,
    text: Annotated[str | None, typer.Option(help="With this in payload or error.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Older than this message: the next page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List messages, newest first."""

    def ask() -> list[MessageView]:
        return _history(audit, tenant, project).messages(
            sender=sender,
            recipient=recipient,
            agent=agent,
            type=type,
            status=status,
            run=run,
            since=_moment("--since", since),
            until=_moment("--until", until),
            text=text,
            limit=limit,
            before=before,
        )

    found = _answered(ask)
    if as_json:
        _print_json([_plain(view) for view in found])
        return
    console = _console()
    console.print(_table(found))
    if len(found) == limit:
        _console(stderr=True).print(f"More: --before {format_id(found[-1].id)}", style="dim")


@app.command()
def show(
    id: Id,
    audit: Url = None,
    tenant: Tenant = "default",
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Show all there is to know of one message."""
    view = _answered(lambda: _history(audit, tenant, project).message(id))
    if view is None:
        _fail(f"history has no message {id}", 1)
    if as_json:
        _print_json(_plain(view))
        return
    console = _console()
    fields = Table.grid(padding=(0, 2))
    fields.add_column(style="bold", no_wrap=True)
    fields.add_column(overflow="fold")
    for name, value in _plain(view).items():
        if value not in (None, [], {}) and name not in ("payload", "deliveries"):
            fields.add_row(name, _inert(_shown(value)))
    console.print(fields)
    console.print(Text("payload", style="bold"))
    console.print(_inert(json.dumps(view.payload, indent=2, ensure_ascii=False), lines=True))
    if len(view.deliveries) > 1:
        console.print(_deliveries(view))


@app.command()
def conversation(
    id: Id,
    audit: Url = None,
    tenant: Tenant = "default",
    project: Project = "default",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Draw who said what to whom, from the id of any message of the conversation."""
    found = _answered(lambda: _history(audit, tenant, project).conversation(id, limit=limit))
    if not found:
        _fail(f"history has no conversation {id}", 1)
    if as_json:
        _print_json([_plain(view) for view in found])
        return
    console = _console()
    for line in _sequence(found):
        console.print(line, no_wrap=True, overflow="ellipsis")
    if len(found) == limit:
        _console(stderr=True).print(f"Only the first {limit:,}; see --limit.", style="dim")


def _history(url: str | None, tenant: str, project: str) -> Audit:
    if url is None:
        if not Path(_DEMO).is_file():
            raise AuditUnavailable(
                "which history? Give --audit sqlite:///history.db, or set ACTORBUS_AUDIT"
                f" (there is no ./{_DEMO} here)"
            )
        url = f"sqlite:///{_DEMO}"
    return Audit(url, tenant=tenant, project=project)


def _answered(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (InvalidName, InvalidQuery) as error:
        _fail(str(error), 2)
    except AuditUnavailable as error:
        _fail(str(error), 1)


def _fail(sentence: str, code: int) -> NoReturn:
    _console(stderr=True).print(_inert(f"Error: {sentence}", lines=True), style="red")
    raise typer.Exit(code)


def _moment(option: str, value: str | None) -> datetime | None:
    """A time as people write it; without a zone it is local."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidQuery(f"{option} {value!r} is no time such as 2026-03-01T12:00") from None


def _console(*, stderr: bool = False) -> Console:
    """rich honours NO_COLOR; it only has to be told that a pipe is wide."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def _table(views: Iterable[MessageView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id", no_wrap=True, min_width=36)
    table.add_column("sent (UTC)", no_wrap=True)
    for name in ("from", "to", "type"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    table.add_column("status", min_width=8, overflow="fold")
    for view in views:
        table.add_row(
            format_id(view.id),
            view.created_at.strftime("%H:%M:%S"),
            _inert(view.sender or "-"),
            _inert(_to(view)),
            _inert(view.type),
            Text(_standing(view), style=_COLOURS.get(view.status, "")),
        )
    return table


def _deliveries(view: MessageView) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("delivered to", "status", "attempt", "error"):
        table.add_column(name, overflow="fold")
    for one in view.deliveries:
        status = f"{one.status}: {one.reason}" if one.reason else str(one.status)
        table.add_row(
            _inert(one.recipient or "-"), _inert(status), str(one.attempt), _inert(one.error or "")
        )
    return table


def _sequence(views: list[MessageView]) -> Iterable[Text]:
    """One line a message, indented under the one that caused it."""
    depths: dict[int, int] = {}
    start = views[0].created_at
    for view in views:
        cause = view.causation_id
        depth = depths[cause] + 1 if cause in depths else 0
        depths[view.id] = depth
        after = (view.created_at - start).total_seconds()
        line = Text(f"{after:>9.3f}s  {'  ' * min(depth, 12)}")
        line.append(_inert(view.sender or "(outside)"))
        line.append(" <── " if view.kind in ("reply", "error") else " ──> ", style="dim")
        line.append(_inert(_to(view)))
        line.append("  ")
        line.append(_inert(view.type))
        line.append(f"  {_standing(view)}", style=_COLOURS.get(view.status, ""))
        if view.took is not None and view.took >= 0.001:
            line.append(f"  {view.took:.3f}s", style="dim")
        yield line


def _to(view: MessageView) -> str:
    if view.recipient is not None:
        return view.recipient
    if view.topic is not None:
        return f"topic {view.topic}"
    return "(outside)" if view.kind in ("reply", "error") else "everyone"


def _standing(view: MessageView) -> str:
    return str(_inert(f"{view.status}: {view.reason}" if view.reason else str(view.status)))


def _plain(view: MessageView) -> dict[str, Any]:
    """A view in JSON's words."""
    return {
        "id": format_id(view.id),
        "kind": str(view.kind),
        "type": view.type,
        "sender": view.sender,
        "recipient": view.recipient,
        "topic": view.topic,
        "priority": view.priority.name,
        "status": str(view.status),
        "reason": None if view.reason is None else str(view.reason),
        "error": view.error,
        "attempts": view.attempts,
        "created_at": _iso(view.created_at),
        "started_at": _iso(view.started_at),
        "ended_at": _iso(view.ended_at),
        "deadline": _iso(view.deadline),
        "waited": view.waited,
        "took": view.took,
        "correlation_id": format_id(view.correlation_id),
        "causation_id": None if view.causation_id is None else format_id(view.causation_id),
        "run_id": view.run_id,
        "node": view.node,
        "hops": view.hops,
        "headers": dict(view.headers),
        "payload": view.payload,
        "deliveries": [
            {
                "recipient": one.recipient,
                "status": str(one.status),
                "reason": None if one.reason is None else str(one.reason),
                "error": one.error,
                "attempt": one.attempt,
                "started_at": _iso(one.started_at),
                "ended_at": _iso(one.ended_at),
            }
            for one in view.deliveries
        ],
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _inert(text: str, *, lines: bool = False) -> Text:
    """`text` with what a terminal would obey shown as an escape instead."""
    return Text(
        "".join(
            char if char.isprintable() or (lines and char == "\n") else _escaped(char)
            for char in text
        )
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _print_json(value: Any) -> None:
    """ASCII only, so nothing in it can speak to a terminal."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
