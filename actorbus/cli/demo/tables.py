"""The report for a reader: tables that fit 80 columns, side by side where there is room."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from actorbus.cli.terminal import inert
from actorbus.persistence.drawing.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from actorbus.cli.demo.report import History, Report

_LETTERS_SHOWN: Final = 12
_WIDE: Final = 160
"""Columns of a terminal from which on tables of findings fit side by side."""


def write(report: Report, screen: Console) -> None:
    """Write what was found, who did it, and what could not be done."""
    screen.print(_headline(report), soft_wrap=True)
    screen.print()
    findings: list[RenderableType] = [
        _totals(report),
        _largest(report),
        _longest(report),
        _imported(report),
    ]
    if screen.width >= _WIDE:
        screen.print(Columns(findings, padding=(0, 4)))
        screen.print()
        findings = []
    for part in (*findings, _surveyors(report), *_dead_letters(report), *_unlisted(report)):
        screen.print(part)
        screen.print()


def write_next(history: History, screen: Console, *, default_url: str) -> None:
    """Write where the history is, and the commands that read it, ready to be copied."""
    place = history.url if history.path is None else str(history.path)
    size = "" if history.bytes is None else f", {_bytes(history.bytes)}"
    gone = "" if history.kept else "; it was in memory only, and is gone now"
    screen.print(Text("History", style="bold"))
    screen.print(
        f"  {inert(place)}: {counted(history.messages, 'message')}{size}{gone}", soft_wrap=True
    )
    if not history.kept:
        return
    screen.print()
    screen.print(Text("Next", style="bold"))
    for command, what in _commands(history, default_url):
        screen.print(Text(f"  # {what}", style="dim"), soft_wrap=True)
        screen.print(Text(f"  {command}"), soft_wrap=True)


def _headline(report: Report) -> Text:
    done = report.summary.files + len(report.refused)
    line = Text(f"Surveyed {counted(done, 'file')}", style="bold")
    if done != report.found:
        line.append(f" of {report.found:,} found")
    line.append(f" in {report.seconds:.1f} s, {report.rate:,.0f} files/s: {inert(report.root)}")
    if report.interrupted:
        line.append("\nInterrupted", style="bold yellow")
        line.append(
            f": the halt overtook {counted(report.left, 'file')} that waited.", style="not bold"
        )
    return line


def _totals(report: Report) -> RenderableType:
    summary = report.summary
    defined = summary.functions + summary.classes
    table = _table("What it holds", "", ">")
    for name, value in (
        ("files parsed", f"{summary.files:,}"),
        ("bytes", f"{summary.bytes:,}"),
        ("lines", f"{summary.lines:,}"),
        ("functions", f"{summary.functions:,}"),
        ("classes", f"{summary.classes:,}"),
        ("with a docstring", f"{summary.documented / defined:.0%}" if defined else "-"),
        ("modules imported", f"{summary.modules:,}"),
    ):
        table.add_row(name, value)
    return table


def _largest(report: Report) -> RenderableType:
    table = _table("Largest files", "path", ">lines")
    for one in report.summary.largest:
        table.add_row(inert(one.path), f"{one.lines:,}")
    return table


def _longest(report: Report) -> RenderableType:
    table = _table("Longest functions", "function", "at", ">lines")
    for one in report.summary.longest:
        table.add_row(inert(one.name), f"{inert(one.path)}:{one.line}", f"{one.lines:,}")
    return table


def _imported(report: Report) -> RenderableType:
    table = _table("Most imported", "module", ">files")
    for module, files in report.summary.imported:
        table.add_row(inert(module), f"{files:,}")
    return table


def _surveyors(report: Report) -> RenderableType:
    table = _table("Who did how much", "surveyor", ">parsed", ">refused", ">lines", ">CPU s")
    for one in report.summary.tallies:
        table.add_row(
            one.name, f"{one.files:,}", f"{one.refused:,}", f"{one.lines:,}", f"{one.cpu:.2f}"
        )
    return table


def _dead_letters(report: Report) -> Iterator[RenderableType]:
    if not report.letters:
        yield Text.assemble(("Dead letters\n", "bold"), "  None: every file could be parsed.")
        return
    reasons = _table("Dead letters", "reason", "kind", ">messages")
    for reason, kind, number in report.by_reason():
        reasons.add_row(reason, kind, f"{number:,}")
    if report.forgotten:
        reasons.add_row("forgotten, too many to keep", "", f"{report.forgotten:,}")
    yield reasons
    if not report.refused and not report.failures:
        yield Text("Every file that was looked at could be parsed.")
        return
    shown = [*report.failures, *report.refused]
    letters = _table("", "file", "why it could not be done")
    for one in shown[:_LETTERS_SHOWN]:
        letters.add_row(inert(one.about), Text(inert(one.why), style="red"))
    if len(shown) > _LETTERS_SHOWN:
        letters.add_row(f"and {len(shown) - _LETTERS_SHOWN:,} more", "")
    yield letters


def _unlisted(report: Report) -> Iterator[RenderableType]:
    number = report.summary.folders_unlisted
    if number == 0:
        return
    table = _table(f"Folders that could not be listed: {number:,}", "folder", "why")
    for one in report.summary.unlisted:
        table.add_row(inert(one.path), inert(one.why))
    yield table


def _commands(history: History, default_url: str) -> Iterator[tuple[str, str]]:
    audit = f"{_program()} audit"
    known = history.url == default_url or os.environ.get("ACTORBUS_AUDIT") == history.url
    where = "" if known else f" --audit {shlex.quote(history.url)}"
    yield f"{audit} list{where}", "the newest messages, and what became of them"
    if history.example is not None:
        yield f"{audit} show {history.example}{where}", "all there is to know of one of them"
    if history.conversation is not None:
        yield (
            f"{audit} conversation {history.conversation}{where}",
            "who asked whom what for the summary above",
        )


def _program() -> str:
    """How this program was called, so that what we print works where it is read."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(_short(Path(sys.executable)))} -m actorbus"
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return called.name
    return shlex.quote(_short(called))


def _short(path: Path) -> str:
    """`path` as seen from here, if it is below here."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the venv's link
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def _table(title: str, *columns: str) -> Table:
    """A table without lines; a column that starts with > holds numbers."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
        show_header=any(column.strip(">") for column in columns),
    )
    for column in columns:
        number = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
        )
    return table


def _bytes(size: int) -> str:
    if size < 1_000_000:
        return f"{size / 1_000:,.0f} kB"
    return f"{size / 1_000_000:,.1f} MB"
