"""``actorbus demo``: a team of agents surveys a real source tree.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import sysconfig
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from actorbus.cli.demo.interrupt import Interrupt
from actorbus.cli.demo.progress import LiveProgress
from actorbus.cli.demo.report import plain
from actorbus.cli.demo.run import history, survey
from actorbus.cli.demo.source import Unlisted, walk
from actorbus.cli.demo.tables import write, write_next
from actorbus.cli.terminal import console, fail
from actorbus.errors import ActorbusError, AuditUnavailable
from actorbus.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.cli.demo.report import History, Report

_DEFAULT_AUDIT: Final = "sqlite:///actorbus-demo.db"
_MOST_AGENTS: Final = 256


def demo(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="The folder to survey. Default: the standard library of this Python.",
            show_default=False,
        ),
    ] = None,
    agents: Annotated[
        int, typer.Option(min=1, max=_MOST_AGENTS, metavar="N", help="How many surveyors.")
    ] = 4,
    audit: Annotated[
        str,
        typer.Option(
            envvar="ACTORBUS_AUDIT", metavar="URL", help="Where history goes; a run adds to it."
        ),
    ] = _DEFAULT_AUDIT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> None:
    """Survey a source tree with a team of agents.

    A scout finds the Python files and gives each to the least busy surveyor. The surveyors parse
    them, and a librarian gathers the findings in shared context. Files that cannot be parsed end
    as dead letters with the reason. Hidden folders, site-packages and __pycache__ are left out.

    Ctrl-C sends an urgent halt, which overtakes the files that wait, and shows what there is; a
    second one ends at once. Results go to stdout, progress and errors to stderr.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    root = _checked(path or Path(sysconfig.get_path("stdlib")))
    node = _node(audit)
    try:
        report, written, trouble = _conduct(node, root, agents)
    except KeyboardInterrupt:
        fail("interrupted twice: ended at once, with work unfinished", 130)
    except ActorbusError as error:
        fail(str(error), 1)
    if as_json:
        # ASCII only, so nothing in it can speak to a terminal.
        sys.stdout.write(json.dumps(plain(report, written), indent=2) + "\n")
    else:
        screen = console()
        write(report, screen)
        if written is not None:
            write_next(written, screen, default_url=_DEFAULT_AUDIT)
    trouble = trouble or _trouble(report)
    if trouble:
        fail(trouble, 1)
    if report.interrupted:
        raise typer.Exit(130)


def _conduct(node: Node, root: Path, agents: int) -> tuple[Report, History | None, str]:
    """Survey `root`; what came of it, what was written, and what went wrong with writing it.

    Raises:
        AuditUnavailable: history cannot be written at all.
        KeyboardInterrupt: interrupted twice.
    """
    report = written = None
    trouble = ""
    with _fit_for_parsing(), Interrupt() as interrupt:
        try:
            with node, node.run() as run:
                with LiveProgress() as progress:
                    report = survey(node, root, agents, interrupt, progress)
                written = history(node, run.id, report)
        except AuditUnavailable as error:
            if report is None:
                raise
            trouble = str(error)
    if written is not None and written.path is not None and written.path.is_file():
        written = replace(written, bytes=written.path.stat().st_size)
    return report, written, trouble


@contextmanager
def _fit_for_parsing() -> Iterator[None]:
    """No warnings about code that is not ours, and a collector that leaves old objects alone:
    trees come and go so fast that looking through those took a quarter of the time."""
    gc.freeze()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        gc.unfreeze()


def _checked(path: Path) -> Path:
    """`path`, if there is anything to survey in it."""
    try:
        root = path.resolve(strict=True)
    except FileNotFoundError:
        fail(f"there is no folder {path}", 2)
    except (OSError, RuntimeError) as error:
        fail(f"cannot open {path}: {getattr(error, 'strerror', None) or error}", 2)
    if not root.is_dir():
        fail(f"{path} is not a folder; name the one it is in: {path.parent}", 2)
    found = walk(root)
    first = next(found, None)
    if isinstance(first, Unlisted) and first.path == ".":
        fail(f"cannot list {path}: {first.why}", 2)
    if not isinstance(first, str) and not any(isinstance(one, str) for one in found):
        fail(f"no Python file (*.py) is in {path} or below it", 2)
    return root


def _node(audit: str) -> Node:
    """A node, not yet started. Its log shows errors unless ACTORBUS_LOG_LEVEL says otherwise."""
    from actorbus.settings import Settings

    try:
        settings = Settings(
            log_level=os.environ.get("ACTORBUS_LOG_LEVEL", "error"),
            # The scout waits for room as long as the largest files take.
            send_timeout=600.0,
            stop_timeout=5.0,
            context_history=10,
            context_log=1_000,
        )
        return Node(audit=audit, settings=settings)
    except ActorbusError as error:
        fail(str(error), 2)


def _trouble(report: Report) -> str:
    """What the team did wrong, if anything; a file that cannot be parsed is no such thing."""
    if report.failures:
        one = report.failures[0]
        return f"{len(report.failures):,} messages failed, such as {one.about}: {one.why}"
    if report.lost:
        return f"{report.lost:,} files were found and never accounted for"
    return ""
