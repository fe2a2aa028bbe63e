"""What the commands share: which history is meant, and how its answers are shown."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from actorbus.cli import terminal
from actorbus.cli.audit.command import From
from actorbus.errors import AuditUnavailable, InvalidQuery, UnknownRecord
from actorbus.message import Status
from actorbus.persistence.audit import Audit
from actorbus.persistence.filters import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from actorbus.persistence.answers import MessageView

_DEMO: Final = "actorbus-demo.db"
_PIPED_WIDTH: Final = 10_000
"""A pipe has no width, and whoever reads it wants whole ids."""

COLOURS: Final = {
    Status.HANDLED: "green",
    Status.ACCEPTED: "yellow",
    Status.FAILED: "red",
    Status.DEAD: "red",
}

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


def opened(url: str | None, **options: Any) -> Audit:
    """The history that is meant; the demo's where none is named and it is here."""
    if url is None:
        if not Path(_DEMO).is_file():
            raise AuditUnavailable(
                "which history? Give --audit sqlite:///history.db, or set ACTORBUS_AUDIT"
                f" (there is no ./{_DEMO} here)"
            )
        url = f"sqlite:///{_DEMO}"
    return Audit(url, **options)


def _history(
    audit: Url = None,
    tenant: Tenant = "default",
    project: Project = "default",
    anchors: Annotated[
        Path | None, typer.Option(envvar="ACTORBUS_AUDIT_ANCHORS", hidden=True)
    ] = None,
) -> Audit:
    from actorbus.persistence.anchors import place_of

    # The anchors, so that no command takes their file for another.
    return opened(audit, tenant=tenant, project=project, anchors=place_of(anchors))


History = Annotated[Audit, From(_history)]


def say_nothing_found(history: Audit) -> None:
    """An answer without messages; a tenant or project that is not there is named."""
    try:
        check_project(history)
    except UnknownRecord as error:
        sentence = str(error)
    else:
        sentence = "Nothing matches."
    console(stderr=True).print(inert(sentence), style="dim")


def check_project(history: Audit) -> None:
    """
    Raises:
        UnknownRecord: there is no such tenant, or no such project of it.
    """
    known = [one.name for one in history.projects(limit=MOST)]
    if history.project not in known:
        raise UnknownRecord("project", history.project, f"tenant {history.tenant!r}", known)


def moment(option: str, value: str | None) -> datetime | None:
    """A time as people write it; without a zone it is local."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidQuery(f"{option} {value!r} is no time such as 2026-03-01T12:00") from None


def console(*, stderr: bool = False) -> Console:
    """The terminal's console, as wide as need be where it is none."""
    made = terminal.console(stderr=stderr)
    if not made.file.isatty():
        made.width = _PIPED_WIDTH
    return made


def inert(text: str, *, lines: bool = False, style: str = "") -> Text:
    """`text` for a table or a line; `lines` keeps its line breaks."""
    parts = text.split("\n") if lines else [text]
    return Text("\n".join(terminal.inert(part) for part in parts), style=style)


def table(*columns: str) -> Table:
    """A table without a frame whose columns fold."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, overflow="fold")
    return made


def addressed(view: MessageView) -> str:
    """To whom a message went, in words."""
    if view.recipient is not None:
        return view.recipient
    if view.topic is not None:
        return f"topic {view.topic}"
    return "(outside)" if view.kind in ("reply", "error") else "everyone"


def standing(view: MessageView) -> Text:
    """What became of a message, in its colour."""
    words = f"{view.status}: {view.reason}" if view.reason else str(view.status)
    return inert(words, style=COLOURS.get(view.status, ""))


def print_json(value: Any) -> None:
    """ASCII only, so nothing in it can speak to a terminal."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_change(changed: bool, said: str, *, as_json: bool) -> None:
    """What a command did, or that there was nothing to do."""
    if as_json:
        print_json({"changed": changed})
        return
    console().print(said)


def print_rows(names: Sequence[str], rows: Iterable[Sequence[Any]], *, as_json: bool) -> None:
    """Rows as a table, or each as a JSON object."""
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    listed = table(*names)
    for row in rows:
        listed.add_row(*(inert("-" if cell is None else str(cell)) for cell in row))
    console().print(listed)
