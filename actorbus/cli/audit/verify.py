"""``actorbus audit verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import AsJson, console, inert, print_json, table
from actorbus.cli.audit.proof import Proven
from actorbus.persistence.drawing.wording import counted

if TYPE_CHECKING:
    from actorbus.persistence.audit import Audit
    from actorbus.persistence.verify import Verification

TAMPERED = 3


@command
def verify(
    history: Proven,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", help="PEM file: anchors must be signed with its key."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that nobody changed history. Exit codes: 0 sound, 3 tampered with, 1 unreadable."""
    found = _verified(history, public_key)
    if as_json:
        print_json(_plain(found))
    else:
        _show(found)
    if not found.sound:
        raise typer.Exit(TAMPERED)


def _verified(history: Audit, public_key: Path | None) -> Verification:
    if not sys.stderr.isatty():
        return history.verify(public_key=public_key)
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=None)
        return history.verify(
            public_key=public_key,
            progress=lambda rows, total: bar.update(task, completed=rows, total=total),
        )


def _show(found: Verification) -> None:
    page = console()
    if found.findings:
        listed = table("what", "chain", "row", "table", "id", "says")
        for one in found.findings:
            cells = (one.flaw, one.chain, one.seq, one.table, one.id, one.says)
            listed.add_row(*(inert("-" if cell is None else str(cell)) for cell in cells))
        page.print(listed)
    verdict = "sound" if found.sound else "not as it was written"
    page.print(
        f"{counted(found.rows, 'row')} in {counted(found.chains, 'chain')},"
        f" {counted(found.anchors, 'anchor')}: {verdict}.",
        style="green" if found.sound else "red",
    )
    for what, count in (
        ("Deleted by retention", found.deleted),
        ("Redacted", found.redacted),
        ("From before there were chains, so that nothing proves them", found.unchained),
    ):
        if count:
            page.print(f"{what}: {counted(count, 'row')}.")
    if not found.anchors:
        page.print("Without anchors a history that was written anew as a whole looks sound.")


def _plain(found: Verification) -> dict[str, Any]:
    return {
        "sound": found.sound,
        "rows": found.rows,
        "chains": found.chains,
        "anchors": found.anchors,
        "signed": found.signed,
        "deleted": found.deleted,
        "redacted": found.redacted,
        "unchained": found.unchained,
        "findings": [
            {
                "flaw": str(one.flaw),
                "chain": one.chain,
                "seq": one.seq,
                "table": one.table,
                "id": one.id,
                "says": one.says,
            }
            for one in found.findings
        ],
    }
